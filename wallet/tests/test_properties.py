"""Any journals, kept or refused, against a model in plain Python."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from shared_kernel.domain.identifiers import EntryId, JournalId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id, unit_of_work
from shared_kernel.tests.reset import reset_database
from wallet.domain.ledger import Account, AccountKind, Entry, InTransitOverdrawn, Journal, Side
from wallet.facade import ledger, trial_balance, verify_ledger
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerEntry
from wallet.tests.factories import AT

KINDS = [
    AccountKind.MPESA_WORKING,
    AccountKind.DERIV_AGENT,
    AccountKind.SUSPENSE,
    AccountKind.FX_POSITION,
    AccountKind.CUSTOMER_IN_TRANSIT,
]
names = st.tuples(st.sampled_from(KINDS), st.sampled_from(["", "a", "b"]))
moves = st.tuples(st.sampled_from(Currency), names, names, st.integers(1, 1000)).filter(lambda m: m[1] != m[2])
units = st.lists(st.lists(st.lists(moves, max_size=4), min_size=1, max_size=4), max_size=6)


@pytest.mark.django_db(transaction=True)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(units=units, reverse=st.lists(st.integers(0, 50), max_size=3, unique=True))
def test_any_journals_keep_the_books_balanced_and_the_balances_exact(units, reverse):
    reset_database()
    forget_accounts()
    model: Counter[Account] = Counter()
    posted = 0
    for unit in units:
        journals = [tuple(entry(move) for move in moves) for moves in unit]
        entries = [e for journal in journals for e in journal]
        posted += len(entries) * attempt(model, entries, lambda journals=journals: post_all(journals))
    for number in reverse:
        row = LedgerEntry.objects.select_related("debit_account", "credit_account").order_by("seq")[number:].first()
        if row is not None:
            [known] = ledger.book.entries([EntryId(row.id)])
            back = Entry(known.entry.credit, known.entry.debit, known.entry.amount)
            posted += attempt(model, [back], lambda id=known.id: reverse_one(id))

    assert LedgerEntry.objects.count() == posted
    for account, credits in model.items():
        side = 1 if account.kind.normal_side is Side.CREDIT else -1
        assert ledger.balance(account).amount == side * credits
    assert sum(row.debit - row.credit for row in trial_balance()) == 0
    assert verify_ledger().findings == []


def attempt(model, entries, write) -> bool:
    """Writes, and expects the refusal that the model foretells. Returns whether it was kept."""
    after = Counter(model)
    for e in entries:
        after[e.debit] -= e.amount.amount
        after[e.credit] += e.amount.amount
    if any(credits < 0 and not account.kind.may_be_overdrawn for account, credits in after.items()):
        with pytest.raises(InTransitOverdrawn):
            write()
        return False
    write()
    model.clear()
    model.update(after)
    return True


def entry(move) -> Entry:
    currency, debit, credit, amount = move
    accounts = [Account(kind, currency, owner) for kind, owner in (debit, credit)]
    return Entry(accounts[0], accounts[1], Money(amount, currency))


def post_all(journals):
    with unit_of_work():
        for entries in journals:
            id = JournalId(new_id())
            ledger.book.append(Journal(id, "test", str(id), entries, AT))


def reverse_one(id):
    with unit_of_work():
        ledger.reverse([id], at=AT)
