"""manage.py treasury list|propose: what treasury still has to do, and a draft of a movement.

A command knows only the login it was typed at, and an id that anybody can type. That is nobody's word on money: what
it proposes is a draft, until somebody who is signed in to the back-office makes it theirs and another one approves it.
`approve`, `reject` and `arrived` therefore only say where that is done.
"""

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import date
from typing import Any

from django.core.management.base import CommandError
from django.urls import reverse

from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import current_context, now
from shared_kernel.management.base import Report, StaffCommand, argument
from wallet.facade import (
    InTransit,
    OpenMovement,
    ProposeMovement,
    TreasuryKind,
    cash_in_transit,
    open_movements,
    treasury_movements,
)

LATE = 5  # days; a bank and a weekend take less


class Command(StaffCommand):
    """Exit code 1: something has been on its way for too long, or cash in transit is not what the movements make it."""

    help = "Lists treasury movements that wait or are on their way, or drafts one; people decide in the back-office."
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["list", "propose", "approve", "reject", "arrived"])
        parser.add_argument("what", nargs="?", default="", help="propose: the kind; else the movement's id")
        parser.add_argument("--amount", default="", help="as in 1300.00")
        parser.add_argument("--currency", default="KES", help="of the amount: KES or USD")
        parser.add_argument("--from", dest="source", default="", help="as in bank or mpesa_utility:600992")
        parser.add_argument("--to", dest="target", default="", help="likewise; left out where the kind says it")
        parser.add_argument("--got", default="", help="fx_close_out: what it gets, in the other currency")
        parser.add_argument("--reference", default="", help="receipt, transaction id or the bank's reference")
        parser.add_argument("--day", default="", help="on which it was booked there, in Kenya, as in 2026-11-24")
        parser.add_argument("--why", default="", help="for whoever approves it; no personal data")

    def report(self, options: dict[str, Any]) -> Report:
        match options["action"]:
            case "list":
                return _list()
            case "propose":
                return _propose(options)
            case action:
                pages = reverse("admin:wallet_treasurymovement_changelist")
                raise CommandError(f"{action} takes somebody who is signed in: do it in the back-office, at {pages}")


def _list() -> Report:
    found, transit = open_movements(now()), cash_in_transit()
    late = [row for row in found if row.status in {"in_transit", "arriving"} and row.days >= LATE]
    uneven = [row for row in transit if row.ledger != row.movements]
    told = {
        "movements": [_json(row) for row in found],
        "cash_in_transit": [
            {"currency": row.currency, "ledger": _amount(row.ledger), "movements": _amount(row.movements)}
            for row in transit
        ],
        "late": [str(row.id) for row in late],
        "ok": not (late or uneven),
    }
    return Report(told, list(_lines(found, transit)), wrong=bool(late or uneven))


def _propose(options: dict[str, Any]) -> Report:
    kind = argument(TreasuryKind, options["what"], f"KIND (one of {', '.join(TreasuryKind)})")
    currency = argument(Currency, options["currency"], "--currency")
    other = next(one for one in Currency if one is not currency)
    command = ProposeMovement(
        kind=kind,
        amount=Money.parse(options["amount"], currency),
        got=Money.parse(options["got"], other) if options["got"] else None,
        source=options["source"],
        target=options["target"],
        reference=options["reference"],
        day=argument(date.fromisoformat, options["day"], "--day"),
        why=options["why"],
    )
    context, dry_run = current_context(), options["dry_run"]
    draft = treasury_movements.propose(command, by="", drafted_by=context.device, dry_run=dry_run)
    told = {
        "id": None if dry_run else str(draft.id), "status": str(draft.status), "kind": str(kind),
        "amount": {"amount": f"{draft.amount.decimal:.2f}", "currency": str(currency)}, "from": str(draft.source),
        "to": str(draft.target), "dry_run": dry_run,
    }  # fmt: skip
    page = "" if dry_run else reverse("admin:wallet_treasurymovement_change", args=[draft.id])
    line = f"{kind} of {draft.amount} from {draft.source} to {draft.target}"
    then = f"would be drafted: {line}" if dry_run else f"drafted: {line}; somebody makes it theirs at {page}"
    return Report(told | {"page": page}, [then])


def _json(row: OpenMovement) -> dict[str, Any]:
    return {
        "id": str(row.id), "kind": row.kind, "status": row.status,
        "amount": {"amount": _amount(row.amount), "currency": row.currency}, "from": row.source, "to": row.target,
        "reference": row.reference, "day": row.day.isoformat(), "by": row.by, "days": row.days,
    }  # fmt: skip


def _lines(found: list[OpenMovement], transit: list[InTransit]) -> Iterator[str]:
    for row in found:
        yield (
            f"{row.id}  {row.status:<10}  {row.days:>3} days  {_amount(row.amount):>16} {row.currency}  {row.kind}  "
            f"{row.source} -> {row.target}  {row.reference}"
        )
    for one in transit:
        differs = "" if one.ledger == one.movements else f", but its movements make {_amount(one.movements)}"
        yield f"cash in transit: {_amount(one.ledger)} {one.currency}{differs}"
    if not found:
        yield "nothing waits and nothing is on its way"


def _amount(cents: int) -> str:
    return f"{Money(cents, Currency.KES).decimal:.2f}"
