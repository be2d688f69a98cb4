"""The ledger over the database and over its twin in memory, with one way to post to it and to read what was posted."""

from dataclasses import dataclass
from uuid import UUID

from shared_kernel.domain.identifiers import EntryId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.infrastructure.persistence import new_id, unit_of_work
from tests.in_memory import InMemoryLedger, World
from tests.in_memory_book import Line
from wallet.domain.ledger import Account
from wallet.facade import ledger
from wallet.infrastructure.persistence import forget_accounts, to_domain
from wallet.models import LedgerEntry
from wallet.tests.factories import (
    AGENT,
    AT,
    SHORTCODE,
    a_customer,
    a_rate,
    a_selling_rate,
    held,
    held_usd,
    kes,
    usd,
)

SENT, PAYOUT = usd(10), kes(1271)
SPLIT = a_selling_rate().split_withdrawal(SENT)  # 1291.00 at mid: payout 1271, margin 19.50, rounding 0.50


@dataclass(frozen=True)
class Posted:
    """One entry, whichever book holds it."""

    id: EntryId
    reference: str
    debit: Account
    credit: Account
    amount: Money
    provider_key: str | None
    reverses: EntryId | None


class InDatabase:
    def __init__(self):
        forget_accounts()
        self.ledger, self.unit_of_work = ledger, unit_of_work

    def posted(self, transaction: UUID | None) -> list[Posted]:
        rows = LedgerEntry.objects.select_related("debit_account", "credit_account").order_by("seq")
        return [_posted(to_domain(row)) for row in rows.filter(transaction_id=transaction)]


class InMemory:
    def __init__(self):
        world = World()
        self.world, self.ledger, self.unit_of_work = world, InMemoryLedger(world), world.unit_of_work

    def posted(self, transaction: UUID | None) -> list[Posted]:
        lines = [line.posted for line in self.world.entries if isinstance(line, Line)]
        return [_posted(known) for known in lines if known.transaction == transaction]


def _posted(known) -> Posted:
    e = known.entry
    return Posted(known.id, known.reference, e.debit, e.credit, e.amount, e.provider_key, e.reverses)


class Of:
    """The journals of one Transaction, each in a unit of work of its own; keys are made of its id."""

    def __init__(self, books, customer=None):
        self.books, self.ledger = books, books.ledger
        self.id, self.customer = TransactionId(new_id()), customer or a_customer()
        self.who = (self.id, self.customer)

    def key(self, name):
        return {"provider_key": f"{name}:{self.id}", "at": AT}

    def do(self, *steps):
        for step in steps:
            with self.books.unit_of_work():
                getattr(self, step)()

    def together(self, *steps):
        with self.books.unit_of_work():
            for step in steps:
                getattr(self, step)()

    def debited(self):
        self.ledger.post_withdrawal_debited(*self.who, SENT, agent=AGENT, **self.key("debit"))

    def exchanged(self, split=SPLIT):
        self.ledger.post_withdrawal_exchanged(*self.who, SENT, split=split, at=AT)

    def exchange_undone(self):
        self.ledger.undo_exchange(self.id, at=AT)

    def paid(self, amount=PAYOUT, key="payout"):
        self.ledger.post_withdrawal_paid(*self.who, amount, shortcode=SHORTCODE, **self.key(key))

    def paid_again(self):
        self.paid(key="second payout")

    def payout_undone(self):
        self.ledger.undo_withdrawal_paid(self.id, at=AT)

    def fee(self):
        self.ledger.post_mpesa_fee(self.id, kes(13), shortcode=SHORTCODE, **self.key("fee"))

    def credited_back(self, key="back"):
        self.ledger.post_credit_back_sent(*self.who, SENT, agent=AGENT, **self.key(key))

    def credited_back_again(self):
        self.credited_back("second back")

    def debit_reverted(self, covered=True):
        self.ledger.post_debit_reverted(*self.who, SENT, agent=AGENT, covered=covered, **self.key("reverted"))

    def debit_owed(self):
        self.debit_reverted(covered=False)

    def received(self):
        self.ledger.post_deposit_received(*self.who, kes(1300), shortcode=SHORTCODE, **self.key("stk"))

    def sent(self, key="transfer"):
        rate = a_rate()
        split, bought = rate.split_deposit(kes(1300)), rate.buy(kes(1300))
        self.ledger.post_deposit_sent(*self.who, split, bought, agent=AGENT, **self.key(key))

    def sent_undone(self):
        self.ledger.undo_deposit_sent(self.id, **self.key("transfer reverted"))

    def reversed_by_us(self):
        self.ledger.post_deposit_refunded(*self.who, kes(1300), shortcode=SHORTCODE, by="reversal", **self.key("rev"))

    def refunded_by_b2c(self):
        self.ledger.post_deposit_refunded(*self.who, kes(1300), shortcode=SHORTCODE, by="b2c", **self.key("refund"))

    def refund_undone(self):
        self.ledger.undo_deposit_refunded(self.id, at=AT)

    def reversed_by_mpesa(self, covered=True):
        self.ledger.post_deposit_reversed(
            *self.who, kes(1300), shortcode=SHORTCODE, covered=covered, **self.key("taken back")
        )

    def deposit_owed(self):
        self.reversed_by_mpesa(covered=False)

    def uncovered(self):
        self.ledger.post_uncovered(*self.who, PAYOUT, paid_by="mpesa_utility", owner=SHORTCODE, **self.key("late"))

    def orphan_in(self):
        self.ledger.post_suspense_in("mpesa_working", SHORTCODE, kes(70), **self.key("orphan"))

    def orphan_matched(self, orphan=None):
        self.ledger.post_suspense_matched(*self.who, kes(70), orphan=f"orphan:{(orphan or self).id}", at=AT)

    def orphan_returned(self):
        self.ledger.post_suspense_returned(
            "mpesa_utility", SHORTCODE, kes(70), orphan=f"orphan:{self.id}", transaction=self.id, **self.key("returned")
        )

    def unexplained_out(self):
        self.ledger.post_suspense_out("deriv_agent", AGENT, usd(3), **self.key("unexplained"))

    @property
    def lines(self):
        """Debit, credit, minor units, oldest first."""
        return [(e.debit.kind, e.credit.kind, e.amount.amount) for e in self.books.posted(self.id)]

    def held(self):
        return (
            self.ledger.balance(held(self.customer)).amount,
            self.ledger.balance(held_usd(self.customer)).amount,
        )
