from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from shared_kernel.domain.identifiers import EntryId
from shared_kernel.domain.money import Currency
from shared_kernel.infrastructure.persistence import new_id, unit_of_work
from wallet.domain.ledger import (
    AccountKind,
    AlreadyPosted,
    EntryNotFound,
    InTransitOverdrawn,
    InvalidEntry,
    ProviderKeyUsed,
    house,
)
from wallet.facade import account_history, balances_of, entries_of, ledger, snapshot, trial_balance, verify_ledger
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerAccount, LedgerBalance, LedgerEntry
from wallet.tests.factories import (
    AGENT,
    AT,
    DERIV,
    MPESA,
    SUSPENSE,
    a_customer,
    a_deposit,
    a_rate,
    a_received_deposit,
    held,
    kes,
    post,
    receive,
    send,
    usd,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _accounts_of_this_test():
    forget_accounts()


def test_a_received_deposit_is_ours_at_mpesa_and_the_customers_in_transit():
    _, customer = a_received_deposit(kes(1300))

    assert ledger.balance(MPESA) == kes(1300)
    assert ledger.balance(held(customer)) == kes(1300)


def test_a_sent_deposit_posts_the_numbers_of_the_formula():
    """1300 KES at 131.05 (mid 129.10): 9.91 USD. FX round(991 × 129.10), margin ceil(991 × 131.05) - FX, the rest."""
    deposit, customer = a_received_deposit(kes(1300))

    with unit_of_work():
        send(deposit, customer, kes(1300))

    assert [(e.debit_kind, e.credit_kind, e.amount, e.currency) for e in entries_of(deposit)] == [
        ("mpesa_working", "customer_in_transit", 130000, "KES"),
        ("fx_position", "deriv_agent", 991, "USD"),
        ("customer_in_transit", "fx_position", 127938, "KES"),
        ("customer_in_transit", "fx_margin", 1933, "KES"),
        ("customer_in_transit", "rounding", 129, "KES"),
    ]
    assert ledger.balance(held(customer)) == kes(0)
    assert ledger.deriv_balance(AGENT) == usd("-9.91")


def test_parts_of_zero_are_left_out():
    deposit, customer = a_received_deposit(kes(1310))

    with unit_of_work():
        send(deposit, customer, kes(1310), rate=a_rate(mid="131", rate="131"))

    assert [e.credit_kind for e in entries_of(deposit)] == ["customer_in_transit", "deriv_agent", "fx_position"]


def test_a_group_is_posted_in_three_statements():
    deposits = [(a_deposit(), a_customer()) for _ in range(100)]
    with unit_of_work():
        for deposit, customer in deposits:
            receive(deposit, customer, kes(1300))
            send(a_deposit(), customer, kes(10))

    with CaptureQueriesContext(connection) as captured, unit_of_work():
        for deposit, customer in deposits:
            send(deposit, customer, kes(1000))

    written = [query["sql"].split()[:3] for query in captured if "SAVEPOINT" not in query["sql"]]
    accounts = [sql for sql in written if "ledger_accounts" in sql[-1] or sql[1] in {"IGNORE", "OR"}]
    assert [sql for sql in written if sql not in accounts] == [
        ["INSERT", "INTO", "ledger_entries"],
        ["INSERT", "INTO", "ledger_balances"],
        ["UPDATE", "ledger_balances", "SET"],
    ]
    assert verify_ledger().findings == []


def test_a_step_posts_once_however_often_it_is_asked():
    deposit, customer = a_received_deposit(kes(1300))

    def opening():
        ledger.post_opening(SUSPENSE, kes(5), reference="float", at=AT)

    with pytest.raises(AlreadyPosted):
        post(opening, opening)
    with pytest.raises((ProviderKeyUsed, AlreadyPosted)), unit_of_work():
        receive(deposit, customer, kes(1300))
    assert ledger.balance(MPESA) == kes(1300)
    assert LedgerEntry.objects.count() == 1


def test_a_movement_at_the_provider_is_posted_once_whichever_journal_does_it():
    a_received_deposit(kes(1300))
    deposit, customer = a_deposit(), a_customer()
    with unit_of_work():
        receive(deposit, customer, kes(1300), key="mpesa:174379:QKL1")

    with pytest.raises(ProviderKeyUsed), unit_of_work():
        receive(a_deposit(), a_customer(), kes(1300), key="mpesa:174379:QKL1")

    assert ledger.balance(MPESA) == kes(2600)


def test_a_second_payment_and_two_excesses_of_one_deposit_are_posted_as_proven():
    deposit, customer = a_deposit(), a_customer()

    with unit_of_work():
        receive(deposit, customer, kes(1500), key="mpesa:174379:A")
        receive(deposit, customer, kes(70), key="mpesa:174379:B")
        ledger.post_excess(deposit, customer, kes(70), of="B", at=AT)
        ledger.post_excess(deposit, customer, kes(200), at=AT)
    with unit_of_work():
        ledger.post_excess(deposit, customer, kes(1), of="C", at=AT)

    assert ledger.balance(held(customer)) == kes(1299)
    assert ledger.balance(SUSPENSE) == kes(271)


def test_a_second_booking_at_deriv_goes_to_suspense():
    with unit_of_work():
        ledger.post_opening(DERIV, usd(100), reference="float", at=AT)
    with unit_of_work():
        ledger.post_duplicate_sent(a_deposit(), usd(10), agent=AGENT, provider_key=f"deriv:{AGENT}:2", at=AT)

    assert ledger.deriv_balance(AGENT) == usd(90)
    assert ledger.balance(house(AccountKind.SUSPENSE, Currency.USD)) == usd(-10)


@pytest.mark.parametrize("known", [True, False])
def test_more_than_is_in_transit_is_refused_and_nothing_of_the_group_is_done(known):
    good, its_customer = a_received_deposit(kes(1300))
    bad, customer = a_received_deposit(kes(1299)) if known else (a_deposit(), a_customer())
    before = (LedgerEntry.objects.count(), LedgerAccount.objects.count(), ledger.balance(MPESA))

    with pytest.raises(InTransitOverdrawn):
        post(lambda: send(good, its_customer, kes(1300)), lambda: send(bad, customer, kes(1300)))

    assert (LedgerEntry.objects.count(), LedgerAccount.objects.count(), ledger.balance(MPESA)) == before
    assert ledger.balance(held(its_customer)) == kes(1300)
    assert verify_ledger().findings == []


def test_money_received_and_sent_in_one_unit_of_work_counts_by_its_net():
    deposit, customer = a_deposit(), a_customer()

    with unit_of_work():
        send(deposit, customer, kes(1300))
        receive(deposit, customer, kes(1300))

    assert ledger.balance(held(customer)) == kes(0)


def test_a_reversal_mirrors_names_and_happens_once():
    deposit, customer = a_received_deposit(kes(1300))
    entry = EntryId(entries_of(deposit)[0].id)

    with unit_of_work():
        ledger.reverse([entry], at=AT, provider_keys={entry: "mpesa:174379:REV1"})

    mirrored = entries_of(deposit)[1]
    assert mirrored.reverses == entry
    assert (mirrored.debit_kind, mirrored.credit_kind) == ("customer_in_transit", "mpesa_working")
    assert ledger.balance(MPESA) == ledger.balance(held(customer)) == kes(0)
    with pytest.raises(AlreadyPosted):
        post(lambda: receive(a_deposit(), customer, kes(1300)), lambda: ledger.reverse([entry], at=AT))


def test_what_was_spent_from_in_transit_cannot_be_reversed_away():
    deposit, customer = a_received_deposit(kes(1300))
    with unit_of_work():
        send(deposit, customer, kes(1300))

    with pytest.raises(InTransitOverdrawn), unit_of_work():
        ledger.reverse([EntryId(entries_of(deposit)[0].id)], at=AT)


def test_only_entries_that_exist_are_reversed():
    with pytest.raises(EntryNotFound), unit_of_work():
        ledger.reverse([EntryId(new_id())], at=AT)


def test_nothing_is_posted_outside_a_unit_of_work():
    with pytest.raises(RuntimeError):
        receive(a_deposit(), a_customer(), kes(1))


def test_a_float_leg_of_zero_is_refused():
    with pytest.raises(InvalidEntry), unit_of_work():
        receive(a_deposit(), a_customer(), kes(0))


def test_a_balance_includes_what_the_unit_of_work_has_collected():
    _, customer = a_received_deposit(kes(1300))

    with unit_of_work():
        receive(a_deposit(), customer, kes(200))
        assert ledger.balance(held(customer)) == kes(1500)
        assert ledger.balance(MPESA) == kes(1500)


def test_an_opening_balance_grows_the_account_on_its_own_side():
    with unit_of_work():
        ledger.post_opening(DERIV, usd(1000), reference="agent", at=AT)
        ledger.post_opening(SUSPENSE, kes(30), reference="old suspense", at=AT, source=AccountKind.OPENING_BALANCES)

    assert ledger.balance(DERIV) == usd(1000)
    assert ledger.balance(house(AccountKind.OWNERS_FUNDING, Currency.USD)) == usd(1000)
    assert ledger.balance(SUSPENSE) == kes(30)
    assert ledger.balance(house(AccountKind.OPENING_BALANCES, Currency.KES)) == kes(-30)


def test_the_trial_balance_is_zero_for_each_currency():
    deposit, customer = a_received_deposit(kes(1300))
    with unit_of_work():
        send(deposit, customer, kes(1300))

    for currency in ("KES", "USD"):
        rows = [row for row in trial_balance() if row.currency == currency]
        assert rows
        assert sum(row.debit for row in rows) == sum(row.credit for row in rows)


def test_an_accounts_history_is_paged_newest_first_without_gap_or_repeat():
    for _ in range(7):
        deposit, customer = a_received_deposit(kes(10))
        with unit_of_work():
            ledger.post_excess(deposit, customer, kes(1), at=AT)
    other = [e.reference for e in account_history(SUSPENSE.id)]

    pages, last = [], None
    while page := account_history(MPESA.id, before=last, limit=3):
        pages.append(page)
        last = page[-1].seq

    assert [len(page) for page in pages] == [3, 3, 1]
    seqs = [entry.seq for page in pages for entry in page]
    assert seqs == sorted(set(seqs), reverse=True)
    assert {entry.debit_kind for page in pages for entry in page} == {"mpesa_working"}
    assert len(other) == 7


def test_an_owners_balances_are_told_by_account():
    _, customer = a_received_deposit(kes(12))

    assert [(b.kind, b.currency, b.credit_balance) for b in balances_of(str(customer))] == [
        ("customer_in_transit", "KES", 1200)
    ]
    with snapshot():
        assert balances_of(str(a_customer())) == []


def test_customers_are_in_the_guarded_slot_and_the_house_in_others():
    a_received_deposit(kes(12))

    slots = {(row.account.kind, row.slot > 0) for row in LedgerBalance.objects.select_related("account")}
    assert slots == {("customer_in_transit", False), ("mpesa_working", True)}


def test_amounts_stay_exact_up_to_the_largest():
    biggest = kes(Decimal(10) ** 13)
    _, customer = a_received_deposit(biggest)

    assert ledger.balance(held(customer)) == biggest
