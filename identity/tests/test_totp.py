"""Authenticators: the RFC's own vectors, one use for a code, and how often one may be wrong."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given, strategies as st

from identity.domain.totp import LOCK, STEP_S, TotpFactor, TotpLocked, counter_of, totp
from identity.domain.verification import WrongCode
from shared_kernel.domain.identifiers import UserId

RFC_SECRET = b"12345678901234567890"
AT = datetime(2026, 11, 29, 12, 0, 10, tzinfo=UTC)
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
    assert factor.submit(totp(RFC_SECRET, NOW), at=AT) is None
    assert isinstance(factor.submit(totp(RFC_SECRET, NOW), at=AT), WrongCode)
    assert isinstance(factor.submit(totp(RFC_SECRET, NOW - 1), at=AT), WrongCode)
    assert factor.submit(totp(RFC_SECRET, NOW + 1), at=AT) is None


def test_five_wrong_codes_in_a_row_lock_even_the_right_one_for_a_while():
    factor = a_factor()
    refusals = [factor.submit("000000", at=AT) for _ in range(5)]
    assert [refusal.extra["tries_left"] for refusal in refusals] == [4, 3, 2, 1, 0]
    locked = factor.submit(totp(RFC_SECRET, NOW), at=AT)
    assert isinstance(locked, TotpLocked)
    assert locked.extra["retry_after"] == LOCK.total_seconds() + 1
    later = AT + LOCK
    assert factor.submit(totp(RFC_SECRET, int(later.timestamp()) // STEP_S), at=later) is None


def test_a_right_code_forgives_the_wrong_ones_before_it():
    factor = a_factor()
    for step in range(3):
        at = AT + timedelta(seconds=STEP_S * step)
        assert all(isinstance(factor.submit("000000", at=at), WrongCode) for _ in range(4))
        assert factor.submit(totp(RFC_SECRET, NOW + step), at=at) is None


@given(st.binary(min_size=20, max_size=20), st.integers(0, 2**40))
def test_a_code_has_six_digits(secret, counter):
    code = totp(secret, counter)
    assert len(code) == 6
    assert code.isdigit()


def test_the_secret_is_in_no_repr():
    assert "12345678901234567890" not in repr(a_factor())
