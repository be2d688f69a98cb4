"""Few tries: what is counted before it is judged, what it locks, and whom it never locks out."""

import re
from dataclasses import replace
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import connection

from identity.domain.credentials import InvalidCredentials, SignInBusy
from identity.domain.staff_sign_in import (
    MOST_TRIES,
    Seat,
    SignInLocked,
    Tries,
)
from identity.facade import staff_sign_in
from identity.infrastructure.tokens import Argon2idHasher
from identity.models import User
from identity.models.staff import StaffSignInTries
from identity.tests.factories import PASSWORD
from identity.tests.offices import (
    NOON,
    Office,
    actions,
    another,
    now_code,
    signed_in,
    wrong_passwords,
)
from shared_kernel.tests.staff import a_factor

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]


def test_five_wrong_passwords_lock_the_account_for_fifteen_minutes_wherever_they_come_from(enrolled, clock):
    assert wrong_passwords(Office("10.0.0.7"), 3) == [200] * 3
    assert wrong_passwords(Office("10.0.0.8"), 2) == [200] * 2

    refused = Office("10.0.0.9").password()

    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    assert len(actions("staff.sign_in_failed")) == 5
    assert actions("staff.locked_out") == [("staff.locked_out", str(enrolled.pk), "account, address")]
    clock.shift(timedelta(minutes=15))
    signed_in(address="10.0.0.9")


def test_a_refused_try_does_not_prolong_the_lock(enrolled, clock):
    stranger = Office("10.9.9.9")
    wrong_passwords(stranger, 5)
    for _ in range(7):
        clock.shift(timedelta(minutes=2))
        assert stranger.password().status_code == 429
    clock.shift(timedelta(minutes=1))

    assert stranger.password().status_code == 302


def test_names_that_nobody_has_are_answered_alike_and_lock_alike(enrolled):
    known, unknown = Office("10.0.0.7"), Office("10.0.0.8")
    pages = []
    for office, name in ((known, "mary"), (unknown, "nobody")):
        answers = [office.password(name, "a wrong password") for _ in range(6)]
        hidden = re.compile(r'name="csrfmiddlewaretoken" value="[^"]+"|value="(mary|nobody)"')
        pages.append([(a.status_code, hidden.sub("", a.content.decode())) for a in answers])

    assert pages[0] == pages[1]
    assert [status for status, _ in pages[0]] == [200] * 5 + [429]


def test_an_address_is_locked_for_all_names(enrolled):
    stranger = Office("10.9.9.9")
    for number in range(5):
        wrong_passwords(stranger, 1, f"name{number}")

    assert stranger.password().status_code == 429
    signed_in(address="10.0.0.1")


def test_wrong_codes_count_and_a_right_password_in_between_forgets_none_of_them(enrolled, clock):
    thief = Office("10.9.9.9")
    for _ in range(5):
        assert thief.password().status_code == 302
        assert thief.code(another(now_code())).status_code == 200

    assert thief.password().status_code == 429


def test_a_stranger_locks_nobody_out_who_has_signed_in_with_this_browser_before(enrolled, clock):
    office = signed_in()
    stranger = Office("10.0.0.1")  # the same address even
    wrong_passwords(stranger, 5)

    assert office.is_in(), "who is signed in stays so"
    office.post("/admin/logout/", {"csrfmiddlewaretoken": office.cookies["csrftoken"].value})
    clock.shift(30)
    office.password()
    office.code(now_code())
    assert office.is_in()
    assert stranger.password().status_code == 429


def test_a_known_browser_has_five_tries_too_and_is_nobody_elses(enrolled, clock):
    paul = User.objects.create_staff("paul", "paul@example.org", PASSWORD, "support")
    a_factor(paul)
    office = signed_in()
    office.post("/admin/logout/", {"csrfmiddlewaretoken": office.cookies["csrftoken"].value})
    wrong_passwords(Office("10.9.9.9"), 5, "paul")

    assert office.password("paul").status_code == 429, "mary's browser is not paul's"
    assert wrong_passwords(office, 6) == [200] * 5 + [429]
    office.cookies["penpay_staff_browser"] = "W10:1vNxyz:forged"
    assert office.password().status_code == 302, "another count: that of unknown browsers"


def new_password(office, old):
    new = "nine herons over Nakuru"
    return office.send("/admin/password_change/", old_password=old, new_password1=new, new_password2=new)


def test_wrong_old_passwords_of_a_session_are_counted_and_lock_as_those_of_a_sign_in_do(enrolled, clock):
    office = signed_in()
    assert [new_password(office, "a wrong password").status_code for _ in range(5)] == [200] * 5

    refused = new_password(office, PASSWORD)

    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    assert "wait 15 min" in refused.content.decode()
    assert actions("staff.password_refused") == [("staff.password_refused", str(enrolled.pk), "wrong old password")] * 5
    assert actions("staff.locked_out") == [("staff.locked_out", str(enrolled.pk), "browser")]
    assert actions("staff.password_changed") == []
    enrolled.refresh_from_db()
    assert enrolled.check_password(PASSWORD)
    clock.shift(timedelta(minutes=15) - timedelta(seconds=1))
    assert office.is_in()
    clock.shift(1)
    assert new_password(office, PASSWORD).status_code == 302


def test_whoever_stole_a_session_alone_counts_as_an_unknown_browser(enrolled):
    office = signed_in()
    thief = Office("10.9.9.9")
    thief.cookies["sessionid"] = office.cookies["sessionid"].value
    assert [new_password(thief, "a wrong password").status_code for _ in range(6)] == [200] * 5 + [429]

    assert Office("10.0.0.2").password().status_code == 429, "one count with the sign-in from unknown browsers"
    assert new_password(office, PASSWORD).status_code == 302, "its owner's own browser goes on"


def test_a_right_old_password_gives_its_try_back(enrolled):
    office = signed_in()
    for _ in range(3):
        for _ in range(2):
            office.send("/admin/password_change/", old_password=PASSWORD, new_password1="x", new_password2="y")
    assert wrong_passwords(office, 5) == [200] * 5


def test_a_sign_in_forgets_the_tries_of_the_account(enrolled, clock):
    wrong_passwords(Office(), 4)
    signed_in()
    clock.shift(30)

    assert wrong_passwords(Office("10.0.0.2"), 4) == [200] * 4


def test_a_try_that_was_never_judged_is_given_back(enrolled, monkeypatch):
    def busy(*_):
        raise SignInBusy("busy", retry_after=5)

    monkeypatch.setattr(type(staff_sign_in.passwords), "matches", busy)
    assert [Office().password().status_code for _ in range(6)] == [429] * 6
    monkeypatch.undo()

    signed_in()


def test_old_counts_are_cleared_away(clock):
    wrong_passwords(Office(), 2, "nobody")
    assert StaffSignInTries.objects.count() == 2
    clock.shift(timedelta(days=2))
    wrong_passwords(Office("10.0.0.2"), 1, "somebody")

    assert StaffSignInTries.objects.count() == 2


def test_tries_are_forgotten_after_the_last_one():
    tries = Tries(count=0, last_at=NOON)
    for minutes in (0, 14, 28, 42, 56):
        tries.add(NOON + timedelta(minutes=minutes))
    at = NOON + timedelta(minutes=56)

    assert tries.locked_until(at) == at + timedelta(minutes=15)
    assert tries.locked_until(at + timedelta(minutes=15)) is None
    tries.add(at + timedelta(minutes=15))
    assert tries.count == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="one writer at a time")
def test_many_tries_at_once_are_no_more_than_five(everybody_may_try):
    User.objects.create_staff("mary", "mary@example.org", PASSWORD)
    judged, gate = [], Barrier(12)
    matches = staff_sign_in.passwords.matches

    class Counting:
        def matches(self, *given):
            judged.append(1)
            return matches(*given)

    slow = replace(staff_sign_in, passwords=Counting())  # type: ignore[arg-type]
    outcomes = []

    def attempt(number):
        gate.wait()
        try:
            slow.password("mary", "a wrong password", lambda _: "", f"10.0.1.{number}")
        except (InvalidCredentials, SignInLocked) as refused:
            outcomes.append(type(refused))
        finally:
            connection.close()

    threads = [Thread(target=attempt, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(outcomes) == 12
    assert len(judged) == outcomes.count(InvalidCredentials) == MOST_TRIES


def test_a_name_that_nobody_has_costs_a_hash_too(enrolled, monkeypatch):
    hashed, verify = [], Argon2idHasher.verify

    def counting(self, password, encoded):
        hashed.append(password)
        return verify(self, password, encoded)

    monkeypatch.setattr(Argon2idHasher, "verify", counting)
    counts: list[int] = []
    for name in ("mary", "nobody", "nobody@example.org"):
        wrong_passwords(Office(f"10.0.2.{len(counts)}"), 1, name)
        counts.append(len(hashed))

    assert counts == [1, 2, 3]


def test_a_seat_without_a_known_browser_counts_by_account_and_address():
    assert [key.partition(":")[0] for key in Seat(address="1.2.3.4").counted_under(None, "x")] == ["address", "name"]
