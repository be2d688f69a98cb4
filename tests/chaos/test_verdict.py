"""The verdict can fail: each promise is broken once, in a provider's book, and found."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from tests.chaos.plan import GAP_S, LASTS, MOST_CLOCK_S, Kind, blows, faults
from tests.chaos.verdict import Row, judge

DEPOSIT = Row("d", "deposit", "COMPLETED", "", 1300_00, 985, frozenset({"push", "credit", "R1"}))
WITHDRAWAL = Row("w", "withdrawal", "COMPLETED", "", 1000, 1270_00, frozenset({"debit", "b2c-1", "back"}))


def a_movement(kind: str, reference: str, amount: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "reference": reference, "amount": amount, **more}


PAID, CREDITED = a_movement("stk", "push", "1300.00"), a_movement("transfer", "note credit", "9.85")
DEBITED, PAID_OUT = a_movement("withdrawal", "debit", "10.00"), a_movement("b2c", "b2c-1", "1270.00")
CREDITED_BACK, REVERSED = a_movement("transfer", "back", "10.00"), a_movement("reversal", "R1", "1300.00")
GOOD = [PAID, CREDITED, DEBITED, PAID_OUT, a_movement("fee", "receipt", "5.00")]


def a(row: Row, status: str, reason: str = "") -> Row:
    return Row(row.id, row.type, status, reason, row.amount, row.payout, row.references)


def test_what_moved_as_it_should_breaks_nothing() -> None:
    assert judge([DEPOSIT, WITHDRAWAL], GOOD).broken == {}
    assert judge([a(DEPOSIT, "REFUNDED")], [PAID, REVERSED]).broken == {}
    assert judge([a(WITHDRAWAL, "REVERSED")], [DEBITED, CREDITED_BACK]).broken == {}
    assert judge([a(DEPOSIT, "FAILED"), a(WITHDRAWAL, "EXPIRED")], []).broken == {}
    assert judge([a(WITHDRAWAL, "NEEDS_ATTENTION", "payment_unknown")], [DEBITED]).broken == {}


@pytest.mark.parametrize(
    ("row", "movements", "promise"),
    [
        (WITHDRAWAL, [DEBITED, PAID_OUT, PAID_OUT], 1),
        (WITHDRAWAL, [DEBITED, PAID_OUT, CREDITED_BACK], 1),
        (DEPOSIT, [PAID, CREDITED, CREDITED], 1),
        (DEPOSIT, [PAID, CREDITED, REVERSED], 1),
        (a(WITHDRAWAL, "NEEDS_ATTENTION", "payment_contradictory"), [DEBITED, PAID_OUT, CREDITED_BACK], 1),
        (WITHDRAWAL, [DEBITED], 2),
        (WITHDRAWAL, [DEBITED, {**PAID_OUT, "amount": "1270.01"}], 2),
        (DEPOSIT, [CREDITED], 2),
        (DEPOSIT, [PAID, {**CREDITED, "status": "reverted"}], 2),
        (a(DEPOSIT, "FAILED"), [PAID], 2),
        (a(WITHDRAWAL, "REVERSED"), [DEBITED], 2),
        (a(WITHDRAWAL, "REVERSED"), [DEBITED, PAID_OUT], 2),
        (DEPOSIT, [PAID, CREDITED, a_movement("b2c", "nobody's", "1.00")], 2),
        (a(DEPOSIT, "AWAITING_MPESA"), [], 9),
        (a(WITHDRAWAL, "MPESA_DISBURSING"), [DEBITED], 9),
        (a(WITHDRAWAL, "NEEDS_ATTENTION", "step_failed:KeyError"), [DEBITED], 9),
        (a(WITHDRAWAL, "NEEDS_ATTENTION", "payment_unknown"), [DEBITED, PAID_OUT], 9),
        (a(WITHDRAWAL, "NEEDS_ATTENTION", "debit_unknown"), [DEBITED], 9),
        (a(WITHDRAWAL, "NEEDS_ATTENTION", "credit_back_refused:x"), [DEBITED, CREDITED_BACK], 9),
    ],
)
def test_a_broken_promise_is_found(row: Row, movements: list[Mapping[str, Any]], promise: int) -> None:
    found = [what for broken in judge([row], movements).broken.values() for what in broken]

    assert any(what.startswith(f"promise {promise}:") for what in found), found


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_plans_the_same_run_again_with_every_blow_and_a_minute_s_outage(seed: int) -> None:
    planned = blows(seed, 600, 2)

    assert planned == blows(seed, 600, 2)
    assert planned != blows(seed + 1, 600, 2)
    assert {blow.kind for blow in planned} == set(Kind)
    assert {blow.kind for blow in planned if blow.for_s == 60} == {Kind.MPESA_DOWN, Kind.DERIV_DOWN}
    assert all(blow.for_s <= max(LASTS[blow.kind][1], 60) for blow in planned)
    for clock in (Kind.MPESA_CLOCK, Kind.DERIV_CLOCK):
        assert sum(blow.for_s for blow in planned if blow.kind is clock) <= MOST_CLOCK_S
    assert all(after.at_s - before.at_s >= GAP_S[0] - 0.1 for before, after in pairwise(planned))
    assert faults(seed, 3) == faults(seed, 3) != faults(seed, 4)
