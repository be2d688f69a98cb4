"""M-Pesa's callbacks: stored durably and answered, through gunicorn; and the floor: the same rows by hand."""

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import MySQLdb

from mpesa_integration import models
from mpesa_integration.domain.request import callback_token, token_hash
from penpay.stack import HOST, Stack
from shared_kernel.domain.identifiers import RequestId
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import new_id, now
from tests.benchmarks.floor import Model
from tests.benchmarks.world import options, quantile

SENDERS = 8


@dataclass(frozen=True)
class Answered:
    """One round. Times in ms."""

    per_s: float
    p50_ms: float
    p99_ms: float


def attempts(count: int) -> list[tuple[bytes, bytes]]:
    """Accepted prompts that wait for their callback: the id, and the whole HTTP request that M-Pesa would send."""
    at, made, found = now(), [], []
    for _ in range(count):
        id, transaction = new_id(), new_id()
        token, checkout = callback_token(blind_index, RequestId(id)), f"ws_CO_{secrets.token_hex(12)}"
        made.append(
            models.MpesaRequest(
                id=id, transaction_id=transaction, leg="stk_push", attempt=1, reference=secrets.token_hex(6),
                amount=130000, currency="KES", phone="254700000000", shortcode="174379",
                callback_hash=token_hash(token), status="accepted", send_before=at + timedelta(seconds=10),
                created_at=at, outcome_at=at,
                merchant_request_id="29115-34620561-1", checkout_request_id=checkout,
                checkout_index=blind_index("mpesa_requests.checkout_request_id", checkout),
            )
        )  # fmt: skip
        found.append((id.bytes, _request(token, checkout)))
    models.MpesaRequest.objects.bulk_create(made, batch_size=500)
    return found


def _request(token: str, checkout: str) -> bytes:
    items = {"Amount": 1300.0, "MpesaReceiptNumber": secrets.token_hex(5).upper(), "TransactionDate": 20261122150000,
             "PhoneNumber": 254700000000}  # fmt: skip
    told = {
        "MerchantRequestID": "29115-34620561-1", "CheckoutRequestID": checkout, "ResultCode": 0,
        "ResultDesc": "The service request is processed successfully.",
        "CallbackMetadata": {"Item": [{"Name": name, "Value": value} for name, value in items.items()]},
    }  # fmt: skip
    body = json.dumps({"Body": {"stkCallback": told}}).encode()
    head = (
        f"POST /cb/s/{token} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\nUser-Agent: Apache-HttpClient\r\n\r\n" + body


def answered(stack: Stack, requests: Sequence[tuple[bytes, bytes]], *, senders: int = SENDERS) -> Answered:
    """As many as go, over kept connections."""

    def send(part: Sequence[tuple[bytes, bytes]]) -> list[float]:
        times = []
        with socket.create_connection((HOST, stack.port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _, request in part:
                began = time.perf_counter()
                connection.sendall(request)
                answer = connection.recv(4096)
                while b"Accepted" not in answer:
                    more = connection.recv(4096)
                    assert more, answer
                    assert answer.startswith(b"HTTP/1.1 200"), answer
                    answer += more
                times.append((time.perf_counter() - began) * 1000)
        return times

    took, times = _side_by_side(send, requests, senders)
    return Answered(len(requests) / took, quantile(times, 0.5), quantile(times, 0.99))


def floor(known: Model, requests: Sequence[tuple[bytes, bytes]], *, senders: int = SENDERS) -> Answered:
    """The look-up by hash, the callback's row and its event, and a commit, by hand-written SQL; values are copied."""
    callback, event = dict(known.rows["mpesa_callbacks"][0]), dict(known.rows["domain_events"][1])
    event["published_at"] = now().replace(tzinfo=None)  # the relay shall leave them alone

    def write(part: Sequence[tuple[bytes, bytes]]) -> list[float]:
        times, connection = [], MySQLdb.connect(**options())
        cursor = connection.cursor()
        for id, _ in part:
            began = time.perf_counter()
            cursor.execute("SELECT id, transaction_id, amount FROM mpesa_requests WHERE callback_hash = %s", [id.hex()])
            cursor.fetchall()
            _insert(cursor, "mpesa_callbacks", callback | {"id": new_id().bytes, "request_id": id})
            _insert(cursor, "domain_events", event | {"id": new_id().bytes, "aggregate_id": id})
            connection.commit()
            times.append((time.perf_counter() - began) * 1000)
        connection.close()
        return times

    took, times = _side_by_side(write, requests, senders)
    return Answered(len(requests) / took, quantile(times, 0.5), quantile(times, 0.99))


def _insert(cursor: Any, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(f"`{name}`" for name in row)
    cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(row))})", list(row.values()))


def _side_by_side(
    work: Callable[[Sequence[tuple[bytes, bytes]]], list[float]], items: Sequence[tuple[bytes, bytes]], threads: int
) -> tuple[float, list[float]]:
    """Seconds, and what each part found; raises what one of them raised."""
    times: list[float] = []
    failed: list[BaseException] = []

    def run(part: Sequence[tuple[bytes, bytes]]) -> None:
        try:
            times.extend(work(part))
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)

    running = [threading.Thread(target=run, args=(items[n::threads],)) for n in range(threads)]
    began = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - began, times
