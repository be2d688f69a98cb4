"""python -m tests.benchmarks.flood PORT PER_S: signs in with wrong passwords until standard input ends.

Each try is of another name and comes from one of a thousand addresses. Prints `begun`, and at the end how often which
status was answered, as JSON.
"""

import http.client
import json
import secrets
import sys
import threading
import time
from collections import Counter
from contextlib import closing

HOST = "127.0.0.1"
CLIENTS, ADDRESSES = 16, 1000
CSRF = "bench0000000000000000000000000ab"


def main(port: int, per_s: float) -> None:
    """Returns once standard input has ended."""
    over, statuses, lock = threading.Event(), Counter[int](), threading.Lock()

    def client(number: int) -> None:
        began, sent = time.perf_counter(), 0
        with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as api:
            while not over.wait(max(0.0, began + (sent + number / CLIENTS) * CLIENTS / per_s - time.perf_counter())):
                status = sign_in(api, (sent * CLIENTS + number) % ADDRESSES)
                sent += 1
                with lock:
                    statuses[status] += 1

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps(statuses))


def sign_in(api: http.client.HTTPConnection, address: int) -> int:
    """The status of one try."""
    body = {
        "identifier": f"2547{secrets.randbelow(10**8):08d}",
        "password": secrets.token_urlsafe(12),
        "device": {"name": "flood", "platform": "web"},
    }
    headers = {
        "Content-Type": "application/json",
        "Cookie": f"csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
        "X-Forwarded-For": f"41.90.{address // 250}.{address % 250}",
    }
    api.request("POST", "/api/v1/auth/login", json.dumps(body), headers)
    answer = api.getresponse()
    answer.read()
    return answer.status


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
