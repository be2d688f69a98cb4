"""django-hordak posts transfers, for comparison; run by the python of an environment of its own, not by ours.

    python ledger_peer.py prepare                   migrates its database and opens its accounts
    python ledger_peer.py post COUNT PROCESSES      prints the seconds that COUNT transfers took

`PEER_DATABASE` is a JSON object of Django's connection settings. It gets what favours it: accounts of its own for each
process, the fastest test of its triggers that it has, and one commit a transfer, as `transfer_to` makes it.
"""

import json
import multiprocessing
import os
import sys
import time
from typing import Any

import django
from django.conf import settings

MOST = 16  # processes; each has two accounts


def main() -> int:
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "mptt", "hordak"],
        DATABASES={"default": json.loads(os.environ["PEER_DATABASE"])},
        HORDAK_CURRENCIES=["KES"],
        DEFAULT_CURRENCY="KES",
        CURRENCIES=["KES"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        SECRET_KEY=os.urandom(16).hex(),
    )
    django.setup()
    if sys.argv[1] == "prepare":
        prepare()
    else:
        sys.stdout.write(json.dumps(post(int(sys.argv[2]), int(sys.argv[3]))) + "\n")
    return 0


def prepare() -> None:
    """An asset and a liability account for each process."""
    from django.core.management import call_command
    from hordak.models import Account

    call_command("migrate", verbosity=0)
    for number in range(MOST):
        for kind, code in (("AS", "1"), ("LI", "2")):
            Account.objects.get_or_create(
                code=f"{code}{number:02}", defaults={"name": f"{kind} {number}", "type": kind, "currencies": ["KES"]}
            )


def post(count: int, processes: int) -> float:
    """Seconds for all of them together, from when every process is ready."""
    from django.db import connections

    connections.close_all()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes + 1)
    each = [context.Process(target=_work, args=(n, count // processes, barrier)) for n in range(processes)]
    for process in each:
        process.start()
    barrier.wait(60)
    began = time.perf_counter()
    for process in each:
        process.join()
    took = time.perf_counter() - began
    if any(process.exitcode for process in each):
        raise SystemExit("a process of the peer failed")
    return took


def _work(number: int, count: int, barrier: Any) -> None:
    from hordak.models import Account
    from moneyed import Money

    debit, credit = (Account.objects.get(code=f"{code}{number:02}") for code in ("1", "2"))
    amount = Money("1300.00", "KES")
    credit.transfer_to(debit, amount)  # connections and caches are warm
    barrier.wait(60)
    for _ in range(count):
        credit.transfer_to(debit, amount)


if __name__ == "__main__":
    sys.exit(main())
