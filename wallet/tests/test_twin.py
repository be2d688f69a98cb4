"""The book in memory keeps and refuses what the database keeps and refuses, or the simulation would prove nothing."""

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.infrastructure.persistence import new_id
from wallet.domain.ledger import AlreadyPosted, InTransitOverdrawn, NothingToUndo, ProviderKeyUsed
from wallet.facade import verify_ledger
from wallet.tests.books import InDatabase, InMemory, Of
from wallet.tests.factories import a_customer

pytestmark = pytest.mark.django_db
REFUSALS = {AlreadyPosted: "twice", ProviderKeyUsed: "twice", NothingToUndo: "nothing", InTransitOverdrawn: "overdrawn"}
VERBS = ["debited", "exchanged", "exchange_undone", "paid", "paid_again", "payout_undone", "fee", "credited_back",
         "credited_back_again", "debit_reverted", "debit_owed", "received", "sent", "sent_undone", "reversed_by_us",
         "refunded_by_b2c", "refund_undone", "reversed_by_mpesa", "uncovered", "orphan_in", "orphan_matched",
         "orphan_returned"]  # fmt: skip
ONCE = ["withdrawal_exchanged", "withdrawal_paid", "credit_back_sent", "deposit_refunded"]
steps = st.tuples(st.integers(0, 1), st.sampled_from(VERBS))
units = st.lists(st.lists(steps, min_size=1, max_size=2), max_size=15)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(units)
def test_any_journals_are_kept_or_refused_alike_and_no_withdrawal_is_ever_paid_or_given_back_twice(units):
    ids, customer = [TransactionId(new_id()) for _ in range(2)], a_customer()
    both = []
    for books in (InDatabase(), InMemory()):
        of = [Of(books, customer) for _ in ids]
        for each, id in zip(of, ids, strict=True):
            each.id, each.who = id, (id, customer)
        both.append(of)

    for unit in units:
        assert attempt(both[0], unit) == attempt(both[1], unit)
        for real, twin in zip(*both, strict=True):
            assert (real.lines, real.held()) == (twin.lines, twin.held())
            assert max(standing(real, purpose) for purpose in ONCE) <= 1
            assert min(real.held()) >= 0
    assert verify_ledger().findings == []


def standing(of, purpose) -> int:
    """How many journals of that purpose nothing took back."""
    entries = of.books.posted(of.id)
    undone = {entry.reverses for entry in entries}
    return len(
        {e.reference.rpartition(":")[0] for e in entries if f":{purpose}:" in e.reference and e.id not in undone}
    )


def attempt(of, unit) -> str:
    """Both steps in one unit of work: what was refused, if anything."""
    try:
        with of[0].books.unit_of_work():
            for which, verb in unit:
                getattr(of[which], verb)()
    except tuple(REFUSALS) as refused:
        return REFUSALS[type(refused)]
    return ""
