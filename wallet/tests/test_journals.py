"""Each journal of withdrawals, give-backs and suspense, over the database and over its twin in memory."""

from collections import Counter

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from shared_kernel.domain.money import CurrencyMismatch
from shared_kernel.infrastructure.persistence import new_id
from wallet.domain.ledger import AlreadyPosted, InTransitOverdrawn, NothingToUndo, ProviderKeyUsed
from wallet.facade import mpesa_utility, verify_ledger
from wallet.tests.books import PAYOUT, SENT, InDatabase, InMemory, Of
from wallet.tests.factories import (
    AT,
    MPESA,
    SHORTCODE,
    a_selling_rate,
    kes,
    owed,
    usd,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(params=[InDatabase, InMemory], ids=["database", "memory"])
def books(request):
    return request.param()


@pytest.fixture
def withdrawal(books):
    return Of(books)


deposit = withdrawal

TO_PAY = ("debited", "exchanged")
EXCHANGE = [
    ("customer_in_transit", "fx_position", 1_000),
    ("fx_position", "customer_in_transit", 127_100),
    ("fx_position", "fx_margin", 1_950),
    ("fx_position", "rounding", 50),
]
JOURNALS = [  # what came before, the journal, its lines
    ((), "debited", [("deriv_agent", "customer_in_transit", 1_000)]),
    (("debited",), "exchanged", EXCHANGE),
    (TO_PAY, "paid", [("customer_in_transit", "mpesa_utility", 127_100)]),
    ((*TO_PAY, "paid"), "fee", [("mpesa_fees", "mpesa_charges_paid", 1_300)]),
    (("debited",), "credited_back", [("customer_in_transit", "deriv_agent", 1_000)]),
    (("debited",), "debit_reverted", [("customer_in_transit", "deriv_agent", 1_000)]),
    ((*TO_PAY, "paid"), "debit_owed", [("customer_receivable", "deriv_agent", 1_000)]),
    (("received",), "reversed_by_us", [("customer_in_transit", "mpesa_working", 130_000)]),
    (("received",), "refunded_by_b2c", [("customer_in_transit", "mpesa_utility", 130_000)]),
    (("received",), "reversed_by_mpesa", [("customer_in_transit", "mpesa_working", 130_000)]),
    (("received", "sent"), "deposit_owed", [("customer_receivable", "mpesa_working", 130_000)]),
    (("debited", "credited_back"), "uncovered", [("customer_receivable", "mpesa_utility", 127_100)]),
    (("orphan_in",), "orphan_matched", [("suspense", "customer_in_transit", 7_000)]),
    (("orphan_in",), "orphan_returned", [("suspense", "mpesa_utility", 7_000)]),
]
UNKEYED = {"exchanged", "orphan_matched"}  # no money moves at a provider
TAKES = ["exchanged", "paid", "credited_back", "debit_reverted", "reversed_by_us", "refunded_by_b2c",
         "reversed_by_mpesa"]  # fmt: skip
each_journal = pytest.mark.parametrize(("before", "journal", "lines"), JOURNALS, ids=[j[1] for j in JOURNALS])


@each_journal
def test_a_journal_posts_its_lines_and_the_books_stay_sound(withdrawal, before, journal, lines):
    withdrawal.do(*before)
    known = len(withdrawal.lines)

    withdrawal.do(journal)

    assert withdrawal.lines[known:] == lines
    assert [e.provider_key for e in withdrawal.books.posted(withdrawal.id)[known:]].count(None) == (
        len(lines) if journal in UNKEYED else 0
    )
    assert verify_ledger().findings == []


@each_journal
def test_a_journal_that_is_posted_again_is_refused_and_changes_nothing(withdrawal, before, journal, lines):
    withdrawal.do(*before, journal)
    was = withdrawal.lines, withdrawal.held()
    Of(withdrawal.books, withdrawal.customer).do("debited", "received", "orphan_in", "orphan_matched")
    Of(withdrawal.books, withdrawal.customer).do("debited", "exchanged")  # so that in-transit could pay for a repeat
    held_now = withdrawal.held()

    with pytest.raises((AlreadyPosted, ProviderKeyUsed)):
        withdrawal.do(journal)

    assert (withdrawal.lines, withdrawal.held()) == (was[0], held_now)


@pytest.mark.parametrize("journal", TAKES)
def test_what_is_not_in_transit_cannot_leave(withdrawal, journal):
    with pytest.raises(InTransitOverdrawn):
        withdrawal.do(journal)

    assert withdrawal.lines == []


@pytest.mark.parametrize(("before", "journal"), [(b, j) for b, j, _ in JOURNALS if j not in UNKEYED])
def test_a_movement_at_the_provider_is_posted_once_over_all_journals(withdrawal, before, journal):
    other = Of(withdrawal.books)
    withdrawal.do(*before)
    withdrawal.key = lambda name: other.key("debit")
    other.do("debited")
    known = withdrawal.lines

    with pytest.raises(ProviderKeyUsed):
        withdrawal.do(journal)

    assert withdrawal.lines == known


def test_an_orphan_and_an_unexplained_outflow_stand_in_suspense_under_no_transaction(withdrawal):
    withdrawal.do("orphan_in", "unexplained_out")

    assert withdrawal.lines == []
    posted = [e for e in withdrawal.books.posted(None) if str(withdrawal.id) in e.provider_key]
    assert [(e.debit.kind, e.credit.kind, e.amount) for e in posted] == [
        ("mpesa_working", "suspense", kes(70)),
        ("suspense", "deriv_agent", usd(3)),
    ]


class TestWithdrawals:
    def test_a_second_payout_is_refused_although_another_withdrawal_of_the_customer_would_cover_it(self, withdrawal):
        withdrawal.do(*TO_PAY, "paid")
        Of(withdrawal.books, withdrawal.customer).do(*TO_PAY)

        with pytest.raises(AlreadyPosted):
            withdrawal.do("paid_again")

        assert withdrawal.held() == (127_100, 0)

    def test_a_second_credit_back_is_refused_although_another_withdrawal_would_cover_it(self, withdrawal):
        withdrawal.do("debited", "credited_back")
        Of(withdrawal.books, withdrawal.customer).do("debited")

        with pytest.raises(AlreadyPosted):
            withdrawal.do("credited_back_again")

        assert withdrawal.held() == (0, 1_000)

    def test_an_exchange_that_is_undone_is_mirrored_entry_by_entry_and_names_each(self, withdrawal):
        withdrawal.do(*TO_PAY, "exchange_undone")

        entries = withdrawal.books.posted(withdrawal.id)
        exchanged, undone = entries[1:5], entries[5:]
        assert [(e.credit, e.debit, e.amount, e.reverses) for e in undone] == [
            (e.debit, e.credit, e.amount, e.id) for e in exchanged
        ]
        assert withdrawal.held() == (0, 1_000)
        assert verify_ledger().findings == []

    def test_what_is_undone_is_the_last_exchange_at_its_own_rate(self, withdrawal):
        withdrawal.do(*TO_PAY, "exchange_undone")
        with withdrawal.books.unit_of_work():
            withdrawal.exchanged(a_selling_rate("128", "126").split_withdrawal(SENT))
        assert withdrawal.held() == (126_000, 0)

        withdrawal.do("exchange_undone")

        assert [amount for *_, amount in withdrawal.lines[-3:]] == [1_000, 126_000, 2_000]
        assert withdrawal.held() == (0, 1_000)

    def test_an_exchange_can_be_undone_and_made_anew_in_one_unit_of_work(self, withdrawal):
        withdrawal.do(*TO_PAY)

        withdrawal.together("exchange_undone", "exchanged")

        assert withdrawal.held() == (127_100, 0)

    def test_an_exchange_is_undone_once(self, withdrawal):
        withdrawal.do(*TO_PAY)
        with pytest.raises(AlreadyPosted):
            withdrawal.together("exchange_undone", "exchange_undone")
        withdrawal.do("exchange_undone")

        with pytest.raises(NothingToUndo):
            withdrawal.do("exchange_undone")

        assert withdrawal.held() == (0, 1_000)

    def test_an_exchange_whose_payout_was_paid_cannot_be_undone(self, withdrawal):
        withdrawal.do(*TO_PAY, "paid")

        with pytest.raises(InTransitOverdrawn):
            withdrawal.do("exchange_undone")

    def test_one_withdrawals_exchange_is_undone_and_not_another_ones(self, withdrawal):
        other = Of(withdrawal.books, withdrawal.customer)
        withdrawal.do(*TO_PAY)
        other.do(*TO_PAY)

        withdrawal.do("exchange_undone")

        assert len(other.lines) == 5
        assert withdrawal.held() == (127_100, 1_000)

    @pytest.mark.parametrize("undo", ["exchange_undone", "payout_undone", "sent_undone", "refund_undone"])
    def test_what_never_was_cannot_be_undone(self, withdrawal, undo):
        withdrawal.do("debited")

        with pytest.raises(NothingToUndo):
            withdrawal.do(undo)

        assert len(withdrawal.lines) == 1

    def test_a_payout_that_was_denied_is_in_transit_again_and_can_be_paid_by_another_movement(self, withdrawal):
        withdrawal.do(*TO_PAY, "paid", "payout_undone")
        assert withdrawal.held() == (127_100, 0)

        withdrawal.do("paid_again")

        assert withdrawal.held() == (0, 0)
        assert verify_ledger().findings == []

    @pytest.mark.parametrize(
        ("paid", "line"),
        [
            (kes(1200), ("customer_in_transit", "suspense", 7_100)),
            (kes(1300), ("suspense", "customer_in_transit", 2_900)),
            (PAYOUT, None),
        ],
    )
    def test_another_amount_is_posted_as_proven_and_the_difference_stands_in_suspense(self, withdrawal, paid, line):
        withdrawal.do(*TO_PAY)

        with withdrawal.books.unit_of_work():
            withdrawal.paid(paid)
            withdrawal.ledger.post_difference(*withdrawal.who, due=PAYOUT, paid=paid, at=AT)

        expected = [("customer_in_transit", "mpesa_utility", paid.amount), line]
        assert withdrawal.lines[5:] == [posted for posted in expected if posted]
        assert withdrawal.held() == (0, 0)

        withdrawal.do("payout_undone")
        assert withdrawal.held() == (127_100, 0)
        withdrawal.do("paid_again")

    def test_more_than_the_payout_without_its_difference_is_refused(self, withdrawal):
        withdrawal.do(*TO_PAY)

        with pytest.raises(InTransitOverdrawn), withdrawal.books.unit_of_work():
            withdrawal.paid(kes(1300))

    def test_a_debit_that_deriv_took_back_can_be_debited_again(self, withdrawal):
        withdrawal.do("debited", "debit_reverted")

        withdrawal.key = lambda name: {"provider_key": f"again:{withdrawal.id}", "at": AT}
        withdrawal.do("debited")

        assert withdrawal.held() == (0, 1_000)

    def test_a_payout_of_no_shilling_is_left_out_of_the_exchange(self, withdrawal):
        withdrawal.do("debited")

        with withdrawal.books.unit_of_work():
            withdrawal.exchanged(a_selling_rate("129", "129").split_withdrawal(usd("0")))  # worth nothing at all

        assert withdrawal.lines[1:] == [("customer_in_transit", "fx_position", 1_000)]


class TestDeposits:
    def test_a_transfer_that_deriv_reverted_is_mirrored_under_the_reversions_own_key(self, deposit):
        deposit.do("received", "sent", "sent_undone")

        entries = deposit.books.posted(deposit.id)
        sent, undone = entries[1:5], entries[5:]
        assert [(e.credit, e.debit, e.amount, e.reverses) for e in undone] == [
            (e.debit, e.credit, e.amount, e.id) for e in sent
        ]
        assert [e.provider_key for e in undone] == [f"transfer reverted:{deposit.id}", None, None, None]
        assert deposit.held() == (130_000, 0)
        with deposit.books.unit_of_work():
            deposit.sent("second transfer")
        assert deposit.held() == (0, 0)

    @pytest.mark.parametrize(("first", "second"), [("reversed_by_us", "refunded_by_b2c"),
                                                   ("refunded_by_b2c", "reversed_by_us")])  # fmt: skip
    def test_a_deposit_is_refunded_by_one_way_although_another_deposit_would_cover_both(self, deposit, first, second):
        Of(deposit.books, deposit.customer).do("received")
        deposit.do("received", first)

        with pytest.raises(AlreadyPosted):
            deposit.do(second)

        assert deposit.held() == (130_000, 0)

    def test_a_refund_that_was_denied_is_in_transit_again(self, deposit):
        deposit.do("received", "refunded_by_b2c", "refund_undone")

        assert deposit.held() == (130_000, 0)
        deposit.do("reversed_by_us")
        assert deposit.held() == (0, 0)


class TestSuspense:
    @pytest.mark.parametrize("again", ["orphan_matched", "orphan_returned"])
    @pytest.mark.parametrize("first", ["orphan_matched", "orphan_returned"])
    def test_an_orphan_is_settled_once(self, deposit, first, again):
        deposit.do("orphan_in", first)

        with pytest.raises((AlreadyPosted, ProviderKeyUsed)):
            deposit.do(again)

    def test_an_orphan_is_matched_to_one_transaction(self, deposit):
        other = Of(deposit.books)
        deposit.do("orphan_in", "orphan_matched")

        with pytest.raises(AlreadyPosted), other.books.unit_of_work():
            other.orphan_matched(deposit)

        assert other.held() == (0, 0)

    def test_money_that_nothing_covers_is_what_the_customer_owes(self, withdrawal):
        withdrawal.do("debited", "credited_back", "uncovered")

        assert withdrawal.ledger.balance(owed(withdrawal.customer)) == PAYOUT
        assert withdrawal.held() == (0, 0)

    @pytest.mark.parametrize(("kind", "amount"), [("deriv_agent", kes(1)), ("mpesa_working", usd(1))])
    def test_an_account_pays_in_its_own_currency(self, withdrawal, kind, amount):
        with pytest.raises(CurrencyMismatch), withdrawal.books.unit_of_work():
            withdrawal.ledger.post_uncovered(*withdrawal.who, amount, paid_by=kind, owner="x", provider_key="x", at=AT)


def test_the_utility_accounts_balance_is_what_payouts_can_be_made_of():
    books = InDatabase()
    before = books.ledger.mpesa_balance(SHORTCODE)
    with books.unit_of_work():
        books.ledger.post_opening(mpesa_utility(SHORTCODE), kes(5000), reference=str(new_id()), at=AT)
    withdrawal = Of(books)
    withdrawal.do(*TO_PAY)

    with books.unit_of_work():
        withdrawal.paid()
        assert books.ledger.mpesa_balance(SHORTCODE) == before + kes(5000 - 1271)
        assert books.ledger.balance(MPESA) == kes(0)


def test_a_group_of_exchanges_is_posted_in_three_statements_and_one_reading():
    books = InDatabase()
    withdrawals = [Of(books) for _ in range(50)]
    for withdrawal in withdrawals:
        withdrawal.do("debited", "exchanged", "exchange_undone")

    with CaptureQueriesContext(connection) as captured, books.unit_of_work():
        for withdrawal in withdrawals:
            withdrawal.exchanged()

    written = [query["sql"] for query in captured if "SAVEPOINT" not in query["sql"]]
    kinds = Counter(sql.split()[0] for sql in written if "ledger_accounts" not in sql)  # known, once committed
    assert kinds == {"SELECT": 1, "INSERT": 2, "UPDATE": 1}
    assert {withdrawal.held() for withdrawal in withdrawals} == {(127_100, 0)}
