"""The aggregate's rules, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, strategies as st

from identity.domain.contact import Address, Email, InvalidEmail, InvalidName, full_name
from identity.domain.device import Device, DeviceLimitReached
from identity.domain.kyc import NEXT, IllegalKycStep, InvalidTier, Kyc, KycStatus, same_person
from identity.domain.session import RefreshInFlight, RefreshTokenReused, Session, SessionEnded
from identity.domain.user import AccountFrozen, DerivBinding, User, UserNotFound
from identity.domain.verification import (
    CodesAskedTooOften,
    NoOpenCode,
    OneTimeCode,
    Purpose,
    WrongCode,
    refuse_too_many,
)
from identity.tests.test_kyc_snapshot import FACTS
from shared_kernel.domain.identifiers import DeviceId, InvalidPhone, Phone, UserId
from shared_kernel.domain.requests import DerivPlatform

AT = datetime(2026, 11, 22, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
YEARS = timedelta(days=2557)


def a_user(**fields) -> User:
    given: dict[str, Any] = {
        "id": uuid4(),
        "phone": Phone("254712345678"),
        "email": Email("amina@example.org"),
        "full_name": "Amina Wanjiru Otieno",
        "password_hash": "!",
        "created_at": AT,
    }
    return User(**given | fields)


def a_device(client_id: str, at: datetime = AT) -> Device:
    return Device(
        id=DeviceId(uuid4()),
        client_id=client_id,
        name="x",
        platform="android",
        secret_hash=client_id,
        slot=None,
        created_at=at,
        last_seen_at=at,
    )


@pytest.mark.parametrize(
    "text",
    ["+254712345678", "254712345678", "0712345678", "712345678", "0712 345 678", "+254 712-345-678", "(0712) 345678"],
)
def test_a_phone_is_the_same_in_all_its_forms(text):
    assert Phone.parse(text) == Phone("254712345678")


@pytest.mark.parametrize("text", ["+254112345678", "0112345678"])
def test_newer_prefixes_are_mobile_numbers_too(text):
    assert Phone.parse(text) == Phone("254112345678")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "07123456",
        "07123456789",
        "0212345678",
        "+255712345678",
        "07١2345678",
        "0712345678x",
        "++254712345678",
        "0" * 99,
    ],
)
def test_what_is_no_kenyan_mobile_number_is_refused(text):
    with pytest.raises(InvalidPhone):
        Phone.parse(text)


def test_neither_phone_nor_email_shows_itself_in_full():
    assert str(Phone("254712345678")) == "+2547****5678"
    assert "amina@" not in repr(Email("amina@example.org"))


@pytest.mark.parametrize(
    "text", ["", "amina", "a@b", "a b@example.org", "a@example..org", "ａ@example.org", "a@b.c\n.d"]
)
def test_what_is_no_email_address_is_refused(text):
    with pytest.raises(InvalidEmail):
        Email.parse(text)


@pytest.mark.parametrize("text", ["Amina", "", "  ", "Amina " + "x" * 120, "Amina \x00tieno"])
def test_a_full_name_has_two_words_and_is_printable(text):
    with pytest.raises(InvalidName):
        full_name(text)


@pytest.mark.parametrize(
    "told",
    [
        "AMINA WANJIRU OTIENO",
        "Otieno, Amina Wanjiru",
        "Amina Otieno",
        "Àmina Wanjirú Otieno",
        "amina wanjiru otieno kamau",
    ],
)
def test_spelling_order_and_left_out_names_make_no_other_person(told):
    assert same_person("Amina Wanjiru Otieno", told)


@pytest.mark.parametrize("told", ["Amina", "Amina Wanjiru Kamau", "Brian Otieno", "", "Otieno Otieno", "X Æ"])
def test_one_shared_name_makes_no_same_person(told):
    assert not same_person("Amina Wanjiru Otieno", told)


def test_the_device_limit_counts_active_devices_only():
    user = a_user()
    first = user.enrol(a_device("a"), limit=2)
    second = user.enrol(a_device("b", AT + SECOND), limit=2)
    with pytest.raises(DeviceLimitReached) as refused:
        user.enrol(a_device("c"), limit=2, is_proven=True)
    assert [d["id"] for d in refused.value.extra["devices"]] == ["a", "b"]
    with pytest.raises(DeviceLimitReached) as refused:
        user.enrol(a_device("c"), limit=2)
    assert refused.value.extra == {}

    user.revoke(first, at=AT, why="test")
    third = user.enrol(a_device("c"), limit=2)

    assert (second.slot, third.slot, first.slot) == (2, 1, None)


def test_a_device_that_lost_its_cookie_takes_its_own_place_again():
    user = a_user()
    lost = user.enrol(a_device("a"), limit=1)
    again = user.enrol(a_device("a"), limit=1)
    assert lost.revoked_at == AT
    assert user.active_devices() == [again]


def test_a_device_is_recognised_by_its_secret_and_not_by_its_id():
    user = a_user()
    device = user.enrol(a_device("a"), limit=1)
    assert user.recognise(device.id, "a", at=AT) is device
    assert user.recognise(device.id, "b", at=AT) is None


def a_session() -> Session:
    return Session.begin(uuid4(), UserId(uuid4()), DeviceId(uuid4()), 0, at=AT)


def test_a_refresh_token_is_used_once():
    session = a_session()
    token = session.issue(uuid4(), "h", timedelta(days=7), at=AT)

    assert session.spend(token, at=AT, arrived_at=AT) is None
    refusal = session.spend(token, at=AT + SECOND, arrived_at=AT + SECOND)

    assert isinstance(refusal, RefreshTokenReused)
    assert session.ended_at == AT + SECOND
    assert isinstance(session.spend(token, at=AT + SECOND, arrived_at=AT), SessionEnded)


def test_a_request_that_was_under_way_when_the_token_was_spent_ends_nothing():
    session = a_session()
    token = session.issue(uuid4(), "h", timedelta(days=7), at=AT)
    session.spend(token, at=AT + SECOND, arrived_at=AT)
    assert isinstance(session.spend(token, at=AT + 2 * SECOND, arrived_at=AT), RefreshInFlight)
    assert session.ended_at is None


def test_no_refresh_token_outlives_its_session():
    session = a_session()
    token = session.issue(uuid4(), "h", timedelta(days=7), at=AT + timedelta(days=29))
    assert token.expires_at == session.expires_at == AT + timedelta(days=30)
    assert isinstance(session.spend(token, at=token.expires_at, arrived_at=AT), SessionEnded)


def a_verification() -> OneTimeCode:
    return OneTimeCode(
        id=uuid4(),
        user_id=UserId(uuid4()),
        purpose=Purpose.STEP_UP,
        target=Phone("254712345678"),
        code_hash="h",
        created_at=AT,
        expires_at=AT + timedelta(minutes=5),
    )


def test_five_wrong_codes_close_a_code_even_for_the_right_one():
    verification = a_verification()
    left = [verification.submit(False, at=AT).extra["tries_left"] for _ in range(5)]
    assert left == [4, 3, 2, 1, 0]
    assert isinstance(verification.submit(True, at=AT), NoOpenCode)


def test_the_fifth_try_may_still_be_right():
    verification = a_verification()
    assert all(isinstance(verification.submit(False, at=AT), WrongCode) for _ in range(4))
    assert verification.submit(True, at=AT) is None
    assert isinstance(verification.submit(True, at=AT), NoOpenCode)


def test_a_code_is_good_for_less_than_five_minutes():
    assert isinstance(a_verification().submit(True, at=AT + timedelta(minutes=5)), NoOpenCode)
    assert a_verification().submit(True, at=AT + timedelta(minutes=4, seconds=59)) is None


def test_the_fourth_code_in_ten_minutes_has_to_wait():
    sent = [AT, AT + SECOND, AT + 2 * SECOND]
    refuse_too_many(sent[:2], at=AT + 3 * SECOND)
    with pytest.raises(CodesAskedTooOften) as refused:
        refuse_too_many(sent, at=AT + 3 * SECOND)
    wait = refused.value.extra["retry_after"]
    refuse_too_many(sent, at=AT + (3 + wait) * SECOND)


@given(st.sampled_from(KycStatus), st.sampled_from(KycStatus))
def test_kyc_goes_only_where_the_table_says(before, after):
    standing = Kyc(before, "none")
    if after in NEXT[before]:
        assert standing.to(after, tier="standard", at=AT) == Kyc(after, "standard", AT)
    else:
        with pytest.raises(IllegalKycStep):
            standing.to(after, tier=None, at=AT)


@pytest.mark.parametrize("tier", ["", "Standard", "x" * 17, "a b", "tiér"])
def test_a_tier_is_a_plain_word(tier):
    with pytest.raises(InvalidTier):
        Kyc(tier=tier)


def a_binding() -> DerivBinding:
    return DerivBinding(
        id=uuid4(),
        platform=next(iter(DerivPlatform)),
        account="CR1",
        currency="USD",
        full_name="Amina Wanjiru Otieno",
        name_matches=False,
        token="t",
        bound_at=AT,
        checked_at=AT,
    )


@pytest.mark.parametrize(
    "end",
    [lambda user: user.close(keep_until=AT + YEARS, at=AT), lambda user: user.restrict(until=None, at=AT, why="asked")],
    ids=["closed", "erased"],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda user: user.bind_deriv(a_binding(), is_virtual=False),
        lambda user: user.unbind_deriv(at=AT),
        lambda user: user.refuse_kyc(),
        lambda user: user.submit_kyc(FACTS, id=uuid4(), version=1, at=AT),
        lambda user: user.rename("Amina Otieno", at=AT),
        lambda user: user.move(Address(line="P.O. Box 1"), at=AT),
        lambda user: user.change_phone(Phone("254700000001"), at=AT),
        lambda user: user.change_email(Email("other@example.org"), at=AT),
        lambda user: user.change_password("hash", at=AT, why="test"),
        lambda user: user.phone_proven(Phone("254700000001"), at=AT),
        lambda user: user.email_proven(Email("other@example.org"), at=AT),
        lambda user: user.lose_authenticator(at=AT, removal=uuid4()),
        lambda user: user.may_change(),
        lambda user: user.close(keep_until=AT + YEARS, at=AT),
    ],
    ids=[
        "bind",
        "unbind",
        "may submit",
        "submit",
        "rename",
        "move",
        "phone",
        "email",
        "password",
        "phone proven",
        "email proven",
        "authenticator",
        "any",
        "close",
    ],
)
def test_of_an_account_that_has_ended_nothing_is_changed(end, change):
    """A request that was let in before may come to its change after the end."""
    user = a_user(phone_verified_at=AT, deriv_login=a_binding())
    end(user)
    user.pull_notes()

    with pytest.raises(UserNotFound):
        change(user)

    assert user.pull_notes() == []
    assert user.kyc.status is KycStatus.NONE


@pytest.mark.parametrize(
    "change",
    [
        lambda user: user.change_password("hash", at=AT, why="test"),
        lambda user: user.phone_proven(Phone("254712345678"), at=AT),
        lambda user: user.email_proven(Email("amina@example.org"), at=AT),
        lambda user: user.lose_authenticator(at=AT, removal=uuid4()),
    ],
    ids=["password", "phone proven", "email proven", "authenticator"],
)
def test_nor_of_one_that_is_under_review(change):
    user = a_user(frozen_at=AT)
    user.pull_notes()

    with pytest.raises(AccountFrozen):
        change(user)

    assert user.pull_notes() == []
    assert (user.password_hash, user.phone_verified_at, user.email_verified_at) == ("!", None, None)


def test_closing_dates_what_the_law_keeps_and_erasing_later_ends_no_relationship_anew():
    user = a_user()
    user.close(keep_until=AT + YEARS, at=AT)
    assert (user.closed_at, user.erase_after) == (AT, AT + YEARS)

    user.restrict(until=AT + YEARS, at=AT + SECOND, why="asked")

    assert (user.closed_at, user.restricted_at) == (AT, AT + SECOND)


def test_an_account_that_was_closed_can_be_erased():
    user = a_user(deriv_login=a_binding())
    user.close(keep_until=AT + YEARS, at=AT)

    user.restrict(until=None, at=AT, why="asked")

    assert user.restricted_at == AT
