"""Valid treasury movements of each kind, and two people who decide about them."""

from datetime import date, timedelta
from itertools import count
from typing import Any

from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from wallet.domain.statement import KENYA
from wallet.domain.treasury import RULES, Kind
from wallet.facade import ProposeMovement, ledger, treasury_movements
from wallet.models import TreasuryMovement
from wallet.tests.factories import a_customer, kes, usd

MARY, JOHN = "staff:1", "staff:2"
PAYBILL, B2C, AGENT, OTHER_AGENT = "174379", "600992", "CR900001", "7001"
_numbers = count(1)


def today() -> date:
    return now().astimezone(KENYA).date()


def a_receipt() -> str:
    return f"UKT{next(_numbers):07}"


def an_id() -> str:
    return str(880000 + next(_numbers))


def a_bank_reference() -> str:
    return f"FT26/{next(_numbers):05}"


# Accounts, amount, what it gets, and what shows it where it leaves (or as a whole) and where it arrives.
GIVEN = {
    Kind.TOP_UP_MPESA: ("bank", f"mpesa_utility:{B2C}", kes(5000), None, a_bank_reference, a_receipt),
    Kind.SETTLEMENT: (f"mpesa_working:{PAYBILL}", "bank", kes(5000), None, a_receipt, a_bank_reference),
    Kind.MPESA_TRANSFER: (
        f"mpesa_working:{PAYBILL}", f"mpesa_utility:{PAYBILL}", kes(5000), None, a_receipt, a_receipt,
    ),
    Kind.TOP_UP_AGENT: ("bank", f"deriv_agent:{AGENT}", usd(500), None, a_bank_reference, an_id),
    Kind.AGENT_WITHDRAWAL: (f"deriv_agent:{AGENT}", "bank", usd(500), None, an_id, a_bank_reference),
    Kind.AGENT_TRANSFER: (f"deriv_agent:{AGENT}", f"deriv_agent:{OTHER_AGENT}", usd(500), None, an_id, an_id),
    Kind.FX_CLOSE_OUT: ("bank", "bank", kes(77_400), usd(600), a_bank_reference, a_bank_reference),
    Kind.OWNERS_FUNDING: ("", "bank", kes(5000), None, a_bank_reference, None),
    Kind.OWNERS_WITHDRAWAL: ("bank", "", usd(50), None, a_bank_reference, None),
    Kind.OPENING_BALANCE: ("", f"mpesa_utility:{B2C}", kes(5000), None, a_bank_reference, None),
    Kind.MPESA_CHARGE: (f"mpesa_charges_paid:{B2C}", "", kes(13), None, a_receipt, None),
    Kind.BANK_CHARGE: ("bank", "", kes(50), None, a_bank_reference, None),
    Kind.RECEIVABLE_RECOVERED: ("owed", "bank", kes(1271), None, a_bank_reference, None),
    Kind.RECEIVABLE_WRITTEN_OFF: ("owed", "", kes(1271), None, a_bank_reference, None),
}  # fmt: skip
assert set(GIVEN) == set(RULES)


def a_command(kind: Kind = Kind.SETTLEMENT, **over) -> ProposeMovement:
    source, target, amount, got, shown, _ = GIVEN[kind]
    source = f"customer_receivable:{owing(amount)}" if source == "owed" and "source" not in over else source
    given: dict[str, Any] = {
        "kind": kind, "amount": amount, "reference": shown(), "day": today(), "why": "as the advice says",
        "source": source, "target": target, "got": got,
    }  # fmt: skip
    return ProposeMovement(**given | over)


def owing(amount):
    """A customer who owes so much."""
    customer = a_customer()
    with unit_of_work():
        ledger.post_uncovered(
            TransactionId(new_id()),
            customer,
            amount,
            paid_by="mpesa_utility",
            owner=B2C,
            provider_key=f"late:{customer}",
            at=now(),
        )
    return customer


def proposed(kind: Kind = Kind.SETTLEMENT, **over):
    return treasury_movements.propose(a_command(kind, **over), by=MARY).id


def approved(kind: Kind = Kind.SETTLEMENT, **over):
    """Posted, or on its way."""
    id = proposed(kind, **over)
    treasury_movements.approve(id, by=JOHN)
    return id


def seen(id, charge=0, lost=0, **over):
    """One person has seen it arrive, all but what was kept or is lost."""
    row = TreasuryMovement.objects.get(pk=id)
    currency, shown = Currency(row.got_currency or row.currency), GIVEN[Kind(row.kind)][5]
    if row.kind == Kind.MPESA_TRANSFER and row.source_owner == row.target_owner:
        shown = lambda: row.reference  # noqa: E731 - one receipt shows both sides
    kept, gone = Money(charge * 100, currency), Money(lost * 100, Currency(row.currency))
    given: dict[str, Any] = {
        "reference": shown() if shown else "NONE", "day": today(), "charge": kept, "by": MARY,
        "arrived": Money((row.got or row.amount) - (kept.amount + gone.amount), currency), "lost": gone,
    }  # fmt: skip
    treasury_movements.arrive(id, **given | over)


def arrived(id, charge=0, **over):
    seen(id, charge, **over)
    treasury_movements.approve(id, by=JOHN)
    return id


def done(kind: Kind = Kind.SETTLEMENT, charge=0, **over):
    """At its end."""
    id = approved(kind, **over)
    return arrived(id, charge) if RULES[kind].in_transit else id


def yesterday() -> date:
    return today() - timedelta(days=1)
