"""What reconciliation reads of the ledger: the sides of entries that are money at a provider."""

from datetime import timedelta

import pytest

from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from wallet.facade import float_legs_recorded, float_legs_under, ledger

pytestmark = pytest.mark.django_db(transaction=True)
AGENT = "CR900001"


def usd(cents):
    return Money(cents, Currency.USD)


def test_legs_are_signed_by_the_side_of_the_float_and_found_by_time_account_and_key():
    begin = now()
    with unit_of_work():
        ledger.post_suspense_in("deriv_agent", AGENT, usd(500), provider_key="deriv:CR900001:1", at=begin)
        ledger.post_suspense_out("deriv_agent", AGENT, usd(300), provider_key="deriv:CR900001:2", at=begin)
        ledger.post_suspense_out("deriv_agent", "CR2", usd(300), provider_key="deriv:CR2:3", at=begin)
    end = now() + timedelta(milliseconds=2)

    legs = float_legs_recorded("deriv_agent", AGENT, begin, end)

    assert [(leg.provider_key, leg.amount) for leg in legs] == [("deriv:CR900001:1", 500), ("deriv:CR900001:2", -300)]
    assert float_legs_recorded("deriv_agent", AGENT, end, end + timedelta(hours=1)) == []
    assert float_legs_recorded("mpesa_working", AGENT, begin, end) == []
    assert legs[0].effective_at == begin <= legs[0].recorded_at
    assert [leg.owner for leg in float_legs_under(["deriv:CR2:3", "deriv:CR2:4"])] == ["CR2"]
    assert float_legs_under([]) == []


def test_what_was_mirrored_without_a_movement_had_never_moved_and_what_was_taken_back_had():
    begin, customer = now(), UserId(new_id())
    payout, credit = TransactionId(new_id()), TransactionId(new_id())
    kes, key = Money(500_00, Currency.KES), "deriv:CR900001:7"
    with unit_of_work():
        ledger.post_suspense_in("mpesa_utility", "600992", kes, provider_key="mpesa:600992:IN", at=begin)
        ledger.post_suspense_matched(payout, customer, kes, orphan="mpesa:600992:IN", at=begin)
    with unit_of_work():
        ledger.post_withdrawal_paid(
            payout, customer, kes, shortcode="600992", provider_key="mpesa:600992:OUT", at=begin
        )
        ledger.post_withdrawal_debited(credit, customer, usd(500), agent=AGENT, provider_key=key, at=begin)
    with unit_of_work():
        ledger.undo_withdrawal_paid(payout, at=begin)
        ledger.post_debit_reverted(
            credit, customer, usd(500), agent=AGENT, provider_key=f"{key}:reverted", covered=True, at=begin
        )

    legs = float_legs_under(["mpesa:600992:IN", "mpesa:600992:OUT", key, f"{key}:reverted"])

    assert [(leg.provider_key, leg.amount) for leg in legs] == [
        ("mpesa:600992:IN", 500_00), (key, 500), (f"{key}:reverted", -500)
    ]  # fmt: skip
