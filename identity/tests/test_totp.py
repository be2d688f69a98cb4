"""Authenticators: the RFC's own vectors, one use for a code, and how often one may be wrong."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given, strategies as st

from identity.domain.totp import LOCK, STEP_S, TotpFactor, TotpLocked, TotpUse, counter_of, totp
from identity.domain.verification import WrongCode
from shared_kernel.domain.identifiers import UserId

RFC_SECRET = b"12345678901234567890"
AT = datetime(2026, 11, 29, 12, 0, 10, tzinfo=UTC)
STEP_UP, SIGN_IN = TotpUse.STEP_UP, TotpUse.SIGN_IN
NOW = int(AT.timestamp()) // STEP_S


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_rfc_6238(second, code):
    assert totp(RFC_SECRET, second // STEP_S, digits=8) == code
    assert totp(RFC_SECRET, second // STEP_S) == code[2:]


@pytest.mark.parametrize(
    ("counter", "code"),
    list(
        enumerate(["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"])
    ),
)
def test_the_vectors_of_rfc_4226(counter, code):
    assert totp(RFC_SECRET, counter) == code


def a_factor() -> TotpFactor:
    return TotpFactor(user_id=UserId(uuid4()), secret=RFC_SECRET, created_at=AT, confirmed_at=AT)


@pytest.mark.parametrize(("off", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_off_by_one_step(off, good):
    assert (counter_of(RFC_SECRET, totp(RFC_SECRET, NOW + off), at=AT, after=0) == NOW + off) is good


def test_a_code_is_good_once_and_so_is_every_earlier_one():
    factor = a_factor()
    assert factor.submit(totp(RFC_SECRET, NOW), STEP_UP, at=AT) is None
    assert isinstance(factor.submit(totp(RFC_SECRET, NOW), STEP_UP, at=AT), WrongCode)
    assert isinstance(factor.submit(totp(RFC_SECRET, NOW - 1), STEP_UP, at=AT), WrongCode)
    assert factor.submit(totp(RFC_SECRET, NOW + 1), STEP_UP, at=AT) is None


def test_five_wrong_codes_in_a_row_lock_even_the_right_one_for_a_while():
    factor = a_factor()
    refusals = [factor.submit("000000", STEP_UP, at=AT) for _ in range(5)]
    assert [refusal.extra["tries_left"] for refusal in refusals] == [4, 3, 2, 1, 0]
    locked = factor.submit(totp(RFC_SECRET, NOW), STEP_UP, at=AT)
    assert isinstance(locked, TotpLocked)
    assert locked.extra["retry_after"] == LOCK.total_seconds() + 1
    later = AT + LOCK
    assert factor.submit(totp(RFC_SECRET, int(later.timestamp()) // STEP_S), STEP_UP, at=later) is None


def locked_for(factor: TotpFactor, at: datetime, use: TotpUse = STEP_UP) -> timedelta:
    """Gives wrong codes until none is taken."""
    for _ in range(5):
        assert isinstance(factor.submit("000000", use, at=at), WrongCode)
    locked = factor.submit("000000", use, at=at)
    assert isinstance(locked, TotpLocked)
    return timedelta(seconds=int(locked.extra["retry_after"]) - 1)


def test_each_lock_lasts_twice_as_long_as_the_one_before_and_none_longer_than_eight_hours():
    factor, at, waits = a_factor(), AT, []
    for _ in range(8):
        waits.append(locked_for(factor, at))
        at += waits[-1]
    assert [wait.total_seconds() / 60 for wait in waits] == [15, 30, 60, 120, 240, 480, 480, 480]


def test_a_refused_try_does_not_prolong_the_lock():
    factor = a_factor()
    locked_for(factor, AT)
    assert isinstance(factor.submit("000000", STEP_UP, at=AT + LOCK - timedelta(seconds=1)), TotpLocked)
    assert isinstance(factor.submit("000000", STEP_UP, at=AT + LOCK), WrongCode)


@pytest.mark.parametrize("forgotten", [True, False])
def test_locks_are_forgotten_after_a_day_without_wrong_codes_and_not_a_second_before(forgotten):
    factor = a_factor()
    locked_for(factor, AT)
    factor.submit("000000", STEP_UP, at=AT + LOCK)
    at = AT + LOCK + timedelta(days=1) - (timedelta() if forgotten else timedelta(seconds=1))
    refusals = [factor.submit("000000", STEP_UP, at=at) for _ in range(5)]
    left = [refusal.extra["tries_left"] for refusal in refusals if isinstance(refusal, WrongCode)]
    wait = factor.tries[STEP_UP].locked_until
    assert left == ([4, 3, 2, 1, 0] if forgotten else [3, 2, 1, 0])
    assert wait == at + (LOCK if forgotten else 2 * LOCK)


def test_a_right_code_forgets_the_locks_before_it_those_of_its_own_use():
    factor = a_factor()
    locked_for(factor, AT)
    locked_for(factor, AT, SIGN_IN)
    at = AT + LOCK
    assert factor.submit(totp(RFC_SECRET, int(at.timestamp()) // STEP_S), STEP_UP, at=at) is None
    assert locked_for(factor, at) == LOCK
    assert locked_for(factor, at, SIGN_IN) == 2 * LOCK


def test_who_guesses_at_sign_ins_locks_no_step_up():
    factor = a_factor()
    locked_for(factor, AT, SIGN_IN)
    assert factor.submit(totp(RFC_SECRET, NOW), STEP_UP, at=AT) is None
    assert isinstance(factor.submit(totp(RFC_SECRET, NOW + 1), SIGN_IN, at=AT), TotpLocked)


def test_a_code_of_one_use_is_spent_for_the_other():
    factor = a_factor()
    assert factor.submit(totp(RFC_SECRET, NOW), SIGN_IN, at=AT) is None
    assert isinstance(factor.submit(totp(RFC_SECRET, NOW), STEP_UP, at=AT), WrongCode)


def test_a_right_code_forgives_the_wrong_ones_before_it():
    factor = a_factor()
    for step in range(3):
        at = AT + timedelta(seconds=STEP_S * step)
        assert all(isinstance(factor.submit("000000", STEP_UP, at=at), WrongCode) for _ in range(4))
        assert factor.submit(totp(RFC_SECRET, NOW + step), STEP_UP, at=at) is None


@given(st.binary(min_size=20, max_size=20), st.integers(0, 2**40))
def test_a_code_has_six_digits(secret, counter):
    code = totp(secret, counter)
    assert len(code) == 6
    assert code.isdigit()


def test_the_secret_is_in_no_repr():
    assert "12345678901234567890" not in repr(a_factor())
