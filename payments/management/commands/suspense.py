"""manage.py suspense list: what lies in suspense, how long, and who answers for it."""

from argparse import ArgumentParser
from typing import Any

from payments.facade import SuspenseItem, band_of, now, suspense
from shared_kernel.domain.money import Money
from shared_kernel.management.base import Report, StaffCommand

MOST = 10_000


class Command(StaffCommand):
    """Exit code 1: something lies there. What becomes of it is decided in the back-office, by two people."""

    help = "Lists what lies in suspense, the oldest first: orphans, excess payments, differences, double bookings."

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["list"], help="list")

    def report(self, options: dict[str, Any]) -> Report:
        items: list[SuspenseItem] = []
        after = 0
        while len(items) < MOST and (page := suspense.page(after=after)):
            items, after = items + page, page[-1].seq
        at = now()
        sums: dict[str, Money] = {}
        for item in items:
            known = sums.get(item.amount.currency, Money(0, item.amount.currency))
            sums[item.amount.currency] = known + item.amount
        data = {
            "as_of": at.isoformat(),
            "items": [
                {
                    "name": item.name,
                    "as": item.purpose,
                    "amount": str(item.amount.decimal),
                    "currency": str(item.amount.currency),
                    "since": item.booked_at.isoformat(),
                    "moved_at": item.moved_at.isoformat(),
                    "age": band_of(item.booked_at, at=at),
                    "owner": item.owner,
                    "transaction": item.transaction and str(item.transaction),
                    "settlement": item.settlement and str(item.settlement),
                }
                for item in items
            ],
            "sums": {str(currency): str(sum.decimal) for currency, sum in sums.items()},
            "complete": len(items) < MOST,
        }
        lines = [
            f"{item.booked_at:%Y-%m-%d}  {band_of(item.booked_at, at=at):<12} {item.amount!s:>18}  {item.owner:<8} "
            f"{item.purpose:<15} {item.name}{'  (proposed)' if item.settlement else ''}"
            for item in items
        ]
        total = ", ".join(map(str, sums.values())) or "nothing"
        lines.append(f"{len(items)} items, {total}" + ("" if len(items) < MOST else "; only the first are shown"))
        return Report(data, lines, wrong=bool(items))
