import pytest
from hypothesis import given, strategies as st

from shared_kernel.domain.money import Currency, CurrencyMismatch, Money
from wallet.domain.ledger import Account, AccountKind, Entry, InvalidEntry, Side, changes, house
from wallet.tests.factories import DERIV, MPESA, SUSPENSE, kes, usd

accounts = st.builds(Account, st.sampled_from(AccountKind), st.just(Currency.KES), st.sampled_from(["", "a", "b"]))


@given(st.lists(st.tuples(accounts, accounts, st.integers(1, 10**12))))
def test_any_entries_together_change_the_balances_by_zero(moves):
    entries = [Entry(debit, credit, Money(amount, Currency.KES)) for debit, credit, amount in moves if debit != credit]

    assert sum(changes(entries).values()) == 0


@pytest.mark.parametrize("amount", [0, -1])
def test_an_entry_moves_more_than_nothing(amount):
    with pytest.raises(InvalidEntry):
        Entry(MPESA, SUSPENSE, Money(amount, Currency.KES))


def test_an_entry_is_between_two_accounts():
    with pytest.raises(InvalidEntry):
        Entry(MPESA, MPESA, kes(1))


@pytest.mark.parametrize(
    ("debit", "credit", "amount"),
    [(MPESA, DERIV, kes(1)), (MPESA, SUSPENSE, usd(1)), (DERIV, house(AccountKind.SUSPENSE, Currency.USD), kes(1))],
)
def test_an_entry_has_one_currency(debit, credit, amount):
    with pytest.raises(CurrencyMismatch):
        Entry(debit, credit, amount)


def test_an_accounts_id_is_its_name_and_never_changes():
    assert str(MPESA.id) == "adbb81a7-3b9a-5872-b5f7-8bd95e07cbf0"
    assert len({Account(kind, currency).id for kind in AccountKind for currency in Currency}) == 2 * len(AccountKind)


@pytest.mark.parametrize(
    ("kind", "side"),
    [
        (AccountKind.MPESA_WORKING, Side.DEBIT),
        (AccountKind.DERIV_AGENT, Side.DEBIT),
        (AccountKind.CUSTOMER_IN_TRANSIT, Side.CREDIT),
        (AccountKind.SUSPENSE, Side.CREDIT),
        (AccountKind.FX_MARGIN, Side.CREDIT),
        (AccountKind.OWNERS_FUNDING, Side.CREDIT),
    ],
)
def test_assets_grow_by_debit_and_what_we_owe_or_earn_by_credit(kind, side):
    assert kind.normal_side is side


def test_only_a_customers_in_transit_account_may_not_be_overdrawn():
    assert [kind for kind in AccountKind if not kind.may_be_overdrawn] == [AccountKind.CUSTOMER_IN_TRANSIT]
