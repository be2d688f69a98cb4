"""`verify_ledger` finds each way in which ledger and reservations can differ from a withdrawal's status."""

from itertools import combinations
from uuid import UUID

import pytest

from payments.facade import deposits
from payments.tests.factories import AGENT, MID, a_rate, kes, usd
from payments.tests.stored_withdrawals import PAYOUT, RESERVED, SENT, SPLIT, a_key, a_withdrawal, reserve
from payments.tests.verifying import checks, findings, row
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.money import Currency
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from wallet.facade import customer_in_transit, ledger, snapshot, verify_ledger

pytestmark = pytest.mark.django_db(transaction=True)

UNPAID = {"CREATED", "UNDER_REVIEW", "DERIV_DEBIT_SENT", "REJECTED", "EXPIRED"}
PAYING = {"RATE_LOCKED", "MPESA_DISBURSING"}
HELD = {"DERIV_DEBITED", "CREDIT_BACK_PENDING"}
STATUSES = sorted(UNPAID | PAYING | HELD | {"FAILED", "COMPLETED", "REVERSED", "NEEDS_ATTENTION"})
TO_PAY = ("debited", "exchanged")
LEGS = ("debited", "exchanged", "paid", "credited_back", "debit_reverted")
FITS: dict[tuple[str, ...], set[str]] = {  # what was posted: where that is as it must be, beside before a person
    (): UNPAID | {"FAILED"},
    ("debited",): HELD,
    TO_PAY: PAYING,
    (*TO_PAY, "fee"): PAYING,
    (*TO_PAY, "paid"): {"COMPLETED"},
    (*TO_PAY, "paid", "fee"): {"COMPLETED"},
    (*TO_PAY, "paid", "debit_owed"): {"COMPLETED"},
    (*TO_PAY, "paid_less"): {"COMPLETED"},
    (*TO_PAY, "paid_more"): {"COMPLETED"},
    (*TO_PAY, "paid", "payout_undone"): PAYING,
    (*TO_PAY, "paid_more", "payout_undone"): PAYING,
    (*TO_PAY, "exchange_undone"): HELD,
    (*TO_PAY, "exchange_undone", "exchanged"): PAYING,
    (*TO_PAY, "exchange_undone", "credited_back"): {"REVERSED"},
    ("debited", "credited_back"): {"REVERSED"},
    ("debited", "credited_back", "uncovered"): {"REVERSED"},
    ("debited", "debit_reverted"): {"REVERSED", "FAILED"},
    ("orphan_matched",): HELD,
    ("orphan_matched", "exchanged", "paid"): {"COMPLETED"},
}


@pytest.mark.parametrize("posted", FITS, ids="-".join)
def test_what_must_stand_is_sound_and_in_any_other_status_it_is_found(posted):
    fits = FITS[posted] | {"NEEDS_ATTENTION"}
    for status in fits:
        a_withdrawal(status, *posted)
    assert findings() == []

    wrong = [a_withdrawal(status, *posted) for status in STATUSES if status not in fits]

    found = [where for check, where in checks() if check == "statuses"]
    assert sorted(found) == sorted(row(withdrawal) for withdrawal in wrong)
    with snapshot():
        assert verify_ledger().findings == []


@pytest.mark.parametrize("posted", [p for n in range(6) for p in combinations(LEGS, n)], ids="-".join)
def test_legs_that_do_not_fit_are_found_although_the_customers_other_money_covers_them(posted):
    user = other_money()

    planted = {status: a_withdrawal(status, *posted, user=user) for status in STATUSES}

    fits = FITS[posted] | {"NEEDS_ATTENTION"} if posted in FITS else set()
    wrong = [row(withdrawal) for status, withdrawal in planted.items() if status not in fits]
    assert sorted(where for check, where in checks() if check == "statuses") == sorted(wrong)


def other_money() -> UUID:
    """A customer who has fifty times as much in transit, of either currency, for two other withdrawals."""
    dollars, user = usd(50 * SENT.amount), new_id()
    split = a_rate(at=now(), rate=MID - 3).split_withdrawal(dollars)
    for status in ("DERIV_DEBITED", "MPESA_DISBURSING"):
        other = a_withdrawal(status, user=user, amount=dollars.amount, payout_amount=split.payout.amount)
        with unit_of_work():
            ledger.post_withdrawal_debited(*other.who, dollars, agent=AGENT, **a_key())
            if status == "MPESA_DISBURSING":
                ledger.post_withdrawal_exchanged(*other.who, dollars, split=split, at=now())
    return user


@pytest.mark.parametrize("posted", [("debited",), (*TO_PAY, "paid_less"), TO_PAY], ids="-".join)
def test_money_that_left_in_transit_by_any_other_journal_is_found(posted):
    for status in sorted(FITS[posted] | {"NEEDS_ATTENTION"}):
        user = other_money()
        withdrawal = a_withdrawal(status, *posted, user=user)
        amount = usd(1) if posted == ("debited",) else kes(1)
        with unit_of_work():
            ledger.post_excess(*withdrawal.who, amount, at=now())

        assert ("statuses", row(withdrawal)) in checks(), status


@pytest.mark.parametrize(("status", "posted"), [("FAILED", ()), ("DERIV_DEBITED", ("debited",)),
                                                ("REVERSED", ("debited", "credited_back")),
                                                ("NEEDS_ATTENTION", ("debited",))])  # fmt: skip
def test_a_payout_without_an_exchange_is_found_although_suspense_covers_it(status, posted):
    withdrawal = a_withdrawal(status, *posted, "paid_out_of_suspense")

    assert checks() == [("statuses", row(withdrawal))]


@pytest.mark.parametrize(("status", "purpose"), [("NEEDS_ATTENTION", "credit_back_sent"),
                                                 ("NEEDS_ATTENTION", "withdrawal_exchanged"),
                                                 ("MPESA_DISBURSING", "withdrawal_exchanged")])  # fmt: skip
def test_a_leg_of_another_amount_is_found_although_what_is_left_is_in_transit(status, purpose):
    withdrawal = a_withdrawal(status, "debited")
    part = SENT - usd(100)
    with unit_of_work():
        if purpose == "credit_back_sent":
            ledger.post_credit_back_sent(*withdrawal.who, part, agent=AGENT, **a_key())
        else:
            ledger.post_withdrawal_exchanged(*withdrawal.who, part, split=SPLIT, at=now())

    assert checks() == [("statuses", row(withdrawal))]


@pytest.mark.parametrize(("status", "over"), [("MPESA_DISBURSING", 100), ("MPESA_DISBURSING", -100),
                                              ("REVERSED", 100), ("REVERSED", -100)])  # fmt: skip
def test_a_debit_of_another_amount_than_the_row_says_is_found(status, over):
    user, debited = other_money(), SENT + usd(over)
    withdrawal = a_withdrawal(status, user=user)
    with unit_of_work():
        ledger.post_withdrawal_debited(*withdrawal.who, debited, agent=AGENT, **a_key())
        if status == "REVERSED":
            ledger.post_credit_back_sent(*withdrawal.who, SENT, agent=AGENT, **a_key())
        else:
            ledger.post_withdrawal_exchanged(*withdrawal.who, SENT, split=SPLIT, at=now())

    assert ("statuses", row(withdrawal)) in checks()


def test_a_difference_is_told_in_figures():
    withdrawal = a_withdrawal("COMPLETED", *TO_PAY)

    assert findings()[0] == (
        "statuses",
        row(withdrawal),
        "COMPLETED of 1000 for 126500, but debited 1000, exchanged 1000 for 126500, payouts 0, credited back 0, "
        "in transit 0 USD and 126500 KES",
    )


def test_of_many_wrong_withdrawals_the_first_of_each_status_is_named():
    paid = sorted(a_withdrawal("COMPLETED").id for _ in range(3))
    back = sorted(a_withdrawal("REVERSED").id for _ in range(3))

    assert [where for _, where in checks()] == [f"transactions {paid[0]}", f"transactions {back[0]}"]


@pytest.mark.parametrize("purpose", ["withdrawal_debited", "withdrawal_exchanged", "withdrawal_paid"])
@pytest.mark.parametrize("damage", ["UPDATE ledger_entries SET amount = amount + 1 WHERE",
                                    "DELETE FROM ledger_entries WHERE"])  # fmt: skip
def test_a_completed_withdrawal_with_another_amount_or_without_a_leg_is_found(broken, purpose, damage):
    a_withdrawal("COMPLETED", *TO_PAY, "paid")
    withdrawal = a_withdrawal("COMPLETED", *TO_PAY, "paid")

    broken(f"{damage} purpose = '{purpose}' AND transaction_id = %s", withdrawal.id)

    assert checks() == [("statuses", row(withdrawal))]


@pytest.mark.parametrize("column", ["amount", "payout_amount"])
@pytest.mark.parametrize("status", ["MPESA_DISBURSING", "COMPLETED"])
def test_a_row_that_says_another_amount_than_was_posted_is_found(broken, status, column):
    withdrawal = a_withdrawal(status, *TO_PAY, *(["paid"] if status == "COMPLETED" else []))

    broken(f"UPDATE transactions SET {column} = {column} + 1 WHERE id = %s", withdrawal.id)

    assert checks() == [("statuses", row(withdrawal))]


@pytest.mark.parametrize("status", ["CREATED", "AWAITING_MPESA"])
def test_a_withdrawal_that_has_entries_before_the_debit_or_a_deposits_status_is_found(status):
    withdrawal = a_withdrawal(status, *(["fee"] if status == "CREATED" else []))

    assert checks() == [("statuses", row(withdrawal))] + (
        [("reservations", row(withdrawal))] if status == "AWAITING_MPESA" else []
    )


class TestBeforeAPerson:
    @pytest.mark.parametrize("over", [{"confirmed_at": None}, {"deriv_transfer_id": ""}])
    def test_a_debit_that_the_row_does_not_know_is_found(self, over):
        withdrawal = a_withdrawal("NEEDS_ATTENTION", "debited", **over)

        assert checks() == [("statuses", row(withdrawal))]

    def test_a_debit_that_only_the_row_knows_is_found(self):
        withdrawal = a_withdrawal("NEEDS_ATTENTION", confirmed_at=now(), deriv_transfer_id="9001")

        assert checks() == [("statuses", row(withdrawal))]

    def test_a_payout_and_a_credit_back_of_one_withdrawal_are_found(self):
        """The second one is covered by what another withdrawal of the customer holds."""
        withdrawal = a_withdrawal("NEEDS_ATTENTION", *TO_PAY, "paid")
        a_withdrawal("DERIV_DEBITED", "debited", user=withdrawal.user_id)
        with unit_of_work():
            withdrawal.credited_back()

        assert checks() == [("statuses", row(withdrawal))]

    def test_another_amount_without_its_difference_is_found(self):
        withdrawal = a_withdrawal("NEEDS_ATTENTION", *TO_PAY)
        with unit_of_work():
            withdrawal.paid(kes(1200))

        assert checks() == [("statuses", row(withdrawal))]

    @pytest.mark.parametrize("status", ["COMPLETED", "NEEDS_ATTENTION"])
    def test_two_payouts_of_one_withdrawal_are_found(self, broken, status):
        """The ledger refuses them by their reference: here the second one is moved by hand."""
        withdrawal, other = (a_withdrawal(status, *TO_PAY, "paid") for _ in range(2))

        broken("UPDATE ledger_entries SET transaction_id = %s WHERE purpose = 'withdrawal_paid' "
               "AND transaction_id = %s", withdrawal.id, other.id)  # fmt: skip

        assert ("statuses", row(withdrawal)) in checks()

    @pytest.mark.parametrize(
        ("posted", "verb", "status", "what"),
        [
            (("debited", "credited_back"), "uncovered", "REVERSED", "paid out uncovered"),
            (TO_PAY, "paid_less", "COMPLETED", "paid less than was due"),
            (TO_PAY, "paid_more", "COMPLETED", "paid more than was due"),
        ],
    )
    def test_what_a_person_must_see_and_none_was_shown_is_found(self, broken, posted, verb, status, what):
        withdrawal = a_withdrawal(status, *posted)
        with unit_of_work():
            getattr(withdrawal, verb)()
        assert findings() == []

        broken(f"DELETE FROM audit_logs WHERE target_id = '{withdrawal.id}'")

        assert findings() == [("statuses", row(withdrawal), f"{status} and {what}, but no person was shown it")]


class TestInTransit:
    @pytest.mark.parametrize(("currency", "expected"), [(Currency.USD, 1_000), (Currency.KES, 126_500)])
    def test_money_of_either_currency_that_nobody_waits_for_is_found(self, broken, currency, expected):
        withdrawal = a_withdrawal("MPESA_DISBURSING", *TO_PAY)
        a_withdrawal("DERIV_DEBITED", "debited", user=withdrawal.user_id)
        account = customer_in_transit(withdrawal.user_id, currency).id

        broken("UPDATE ledger_balances SET credit_balance = credit_balance + 7 WHERE account_id = %s", account)

        detail = f"in transit are {expected + 7} {currency}, their Transactions make {expected}"
        assert findings() == [("on_the_way", f"user {withdrawal.user_id}", detail)]

    @pytest.mark.parametrize(("status", "posted", "currency", "amount"), [
        ("DERIV_DEBITED", ("debited",), Currency.USD, 1_000),
        ("MPESA_DISBURSING", TO_PAY, Currency.KES, 126_500),
        ("CREDIT_BACK_PENDING", ("debited",), Currency.USD, 1_000),
        ("NEEDS_ATTENTION", TO_PAY, Currency.KES, 126_500),
    ])  # fmt: skip
    def test_money_that_is_missing_is_found(self, broken, status, posted, currency, amount):
        withdrawal = a_withdrawal(status, *posted)
        account = customer_in_transit(withdrawal.user_id, currency).id

        broken("UPDATE ledger_balances SET credit_balance = 0 WHERE account_id = %s", account)

        detail = f"in transit are 0 {currency}, their Transactions make {amount}"
        assert findings() == [("on_the_way", f"user {withdrawal.user_id}", detail)]

    def test_money_that_stands_in_another_customers_account_is_found(self):
        withdrawal = a_withdrawal("DERIV_DEBITED")
        with unit_of_work():
            ledger.post_withdrawal_debited(withdrawal.id, UserId(new_id()), SENT, agent=AGENT, **a_key())

        assert [check for check, _ in checks()] == ["on_the_way"]

    def test_deposits_and_withdrawals_of_one_customer_are_told_apart_by_currency(self):
        user = new_id()
        a_withdrawal("DERIV_DEBITED", "debited", user=user)
        a_withdrawal("MPESA_DISBURSING", *TO_PAY, user=user)
        a_withdrawal("CREDIT_BACK_PENDING", *TO_PAY, "exchange_undone", user=user)

        assert findings() == []


class TestReservations:
    @pytest.mark.parametrize("status", sorted(RESERVED))
    def test_a_withdrawal_on_its_way_without_a_reservation_is_found(self, status):
        withdrawal = a_withdrawal(status, *posted_in(status))
        with unit_of_work():
            deposits.reservations.release([withdrawal.id], at=now())

        assert findings() == [("reservations", row(withdrawal), f"{status}, but its payout is not reserved")]

    @pytest.mark.parametrize("given", [{"account": AGENT}, {"amount": PAYOUT - kes(1)}])
    def test_a_reservation_of_less_or_at_deriv_is_found(self, broken, given):
        withdrawal = a_withdrawal("CREATED")
        broken("DELETE FROM float_reservations WHERE transaction_id = %s", withdrawal.id)
        broken("UPDATE float_accounts SET reserved = 0")
        with unit_of_work():
            reserve(withdrawal, **given)

        assert findings() == [("reservations", row(withdrawal), "CREATED, but its payout is not reserved")]

    @pytest.mark.parametrize("status", sorted(set(STATUSES) - RESERVED - {"NEEDS_ATTENTION"}))
    def test_a_reservation_that_outlives_the_payouts_leg_is_found(self, status):
        withdrawal = a_withdrawal(status, *posted_in(status))
        with unit_of_work():
            reserve(withdrawal)

        assert findings() == [("reservations", row(withdrawal), f"{status}, but money is still reserved for it")]

    @pytest.mark.parametrize("reserved", [True, False])
    def test_before_a_person_a_withdrawal_may_hold_its_reservation_or_not(self, reserved):
        withdrawal = a_withdrawal("NEEDS_ATTENTION", *TO_PAY)
        if reserved:
            with unit_of_work():
                reserve(withdrawal)

        assert findings() == []


def posted_in(status) -> tuple[str, ...]:
    return next(posted for posted, fits in FITS.items() if status in fits)
