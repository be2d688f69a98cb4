"""What two people may decide about a deposit."""

import pytest

from payments.domain.deposit import Deposit
from payments.domain.proposal import (
    Decision as D,
)
from payments.domain.transaction import OtherWayOpen, TransactionStatus as S
from payments.tests.deciding import a_customer, decide
from payments.tests.withdrawals import LONG
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Refused, Unknown
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, Leg
from tests.in_memory import CUSTOMER, Bench


@pytest.fixture
def deposits() -> Bench:
    return Bench()


# --- verdicts on a deposit's attempts -------------------------------------------------------------------------------


def reversal_unknown(bench: Bench) -> Deposit:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)
    bench.mpesa.calls_back(deposit.id)
    bench.deriv.answers, bench.mpesa.reversals = [Refused("disabled")], [Unknown("timeout")] * 1000
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).failure_code == "payment_unknown"
    return deposit


def test_a_refund_by_b2c_needs_the_reversal_judged_dead_and_two_people(deposits: Bench) -> None:
    deposit = reversal_unknown(deposits)
    with pytest.raises(OtherWayOpen):
        decide(deposits, deposit, D.REFUND_BY_B2C)

    decide(deposits, deposit, D.HAD_NO_EFFECT, deposits.now(deposit).at_mpesa(Leg.REVERSAL)[0])
    decide(deposits, deposit, D.REFUND_BY_B2C)

    assert deposits.now(deposit).status is S.REFUNDED
    assert [*deposits.mpesa.paid_out.values()] == [deposit.amount]
    assert deposits.world.balance("in-transit") == 0


def test_a_reversal_judged_made_ends_the_deposit(deposits: Bench) -> None:
    deposit = reversal_unknown(deposits)

    decide(
        deposits, deposit, D.TOOK_EFFECT, deposits.now(deposit).at_mpesa(Leg.REVERSAL)[0], reference="UKR0000001"
    )  # fmt: skip

    assert deposits.now(deposit).status is S.REFUNDED
    assert deposits.world.balance("mpesa") == deposits.world.balance("in-transit") == 0


def test_b2c_is_no_way_while_the_reversal_was_not_even_tried(deposits: Bench) -> None:
    deposit = deposits.deposit()
    deposits.drive(deposit)
    deposits.mpesa.pays(deposits.now(deposit).payments[0].reference, Money(1500_00, Currency.KES))
    deposits.mpesa.calls_back(deposit.id, agrees=False)
    deposits.drive(deposit)

    with pytest.raises(OtherWayOpen):
        decide(deposits, deposit, D.REFUND_BY_B2C)


@pytest.mark.parametrize("effect", [False, True])
def test_a_prompt_that_m_pesa_can_not_tell_about_is_judged(deposits: Bench, effect: bool) -> None:
    deposit = deposits.deposit()
    deposits.drive(deposit)
    deposits.sweep(deposit, until=LONG)
    [prompt] = deposits.now(deposit).payments

    decide(
        deposits,
        deposit,
        D.TOOK_EFFECT if effect else D.HAD_NO_EFFECT,
        prompt,
        reference="UKM0000009" if effect else "",
    )
    deposits.sweep(deposit, until=LONG)

    assert deposits.mpesa.busy_phones([deposit.phone]) == set()
    assert deposits.now(deposit).status is (S.REFUNDED if effect else S.FAILED)  # by now the rate is old
    assert deposits.mpesa.reversed == ({"UKM0000009"} if effect else set())
    assert deposits.world.balance("mpesa") == deposits.world.balance("in-transit") == 0


@pytest.mark.parametrize("effect", [False, True])
def test_a_transfer_that_deriv_can_not_tell_about_is_judged(deposits: Bench, effect: bool) -> None:
    deposit = deposits.deposit()
    deposits.drive(deposit)
    deposits.mpesa.pays(deposits.now(deposit).payments[0].reference, deposit.amount)
    deposits.mpesa.calls_back(deposit.id)
    deposits.deriv.answers = [deposits.deriv.books_in_silence if effect else Unknown("timeout")]
    deposits.deriv.is_down = True
    deposits.drive(deposit)
    deposits.sweep(deposit, until=LONG)
    assert deposits.now(deposit).failure_code == "transfer_unknown"

    [transfer] = deposits.now(deposit).transfers
    decide(
        deposits, deposit, D.TOOK_EFFECT if effect else D.HAD_NO_EFFECT, transfer, reference="9000" if effect else ""
    )
    if not effect:
        assert deposits.now(deposit).status is S.NEEDS_ATTENTION
        deposits.resume(deposit)

    assert deposits.now(deposit).status is S.COMPLETED
    assert len(deposits.deriv.book) == 1
    assert deposits.world.balance("deriv") == -deposit.payout.amount


def test_a_deposit_to_a_login_on_the_other_platform_is_paid_out_of_that_agents_float(
    deposits: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deriv moved the customer to its new platform while the old one could not say what became of the transfer."""
    deposit = deposits.deposit()
    deposits.drive(deposit)
    deposits.mpesa.pays(deposits.now(deposit).payments[0].reference, deposit.amount)
    deposits.mpesa.calls_back(deposit.id)
    deposits.deriv.answers, deposits.deriv.chain_is_whole = [Unknown("timeout")], False
    deposits.drive(deposit)
    deposits.sweep(deposit, until=LONG)
    decide(deposits, deposit, D.HAD_NO_EFFECT, deposits.now(deposit).transfers[0])
    login = DerivLogin(DerivPlatform.REST, "jane")
    deposits.users.customers[CUSTOMER] = a_customer(deriv_login=login)
    monkeypatch.setattr(deposits.deriv, "agent_for", lambda platform: "R900001")

    decide(deposits, deposit, D.OTHER_LOGIN)

    assert deposits.world.reserved == {deposit.id: deposit.payout}
    assert deposits.world.reserved_at[deposit.id] == "R900001"
    monkeypatch.undo()
    deposits.resume(deposit)
    assert (deposits.now(deposit).status, deposits.deriv.sent[-1].agent) == (S.COMPLETED, "R900001")
    assert not deposits.world.reserved
