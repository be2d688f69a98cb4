"""Staff sign in by password and second factor, over HTTP: enrolment, codes, and the end of a session."""

import re
from datetime import timedelta
from html import unescape
from threading import Barrier, Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection

from identity.domain.staff_sign_in import (
    Factor,
    Seat,
    StaffMember,
    WrongFactor,
    code_of,
    new_secret,
    step_at,
)
from identity.facade import staff_sign_in
from identity.infrastructure.staff_sessions import SessionStore
from identity.models import User
from identity.models.staff import StaffFactor, StaffRecoveryCode
from identity.tests.factories import PASSWORD
from identity.tests.offices import (
    CODE,
    CODES,
    ENROL,
    LOGIN,
    NOON,
    Office,
    actions,
    another,
    now_code,
    signed_in,
    wrong_passwords,
)
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import SECRET, a_factor

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock")]


# --- the codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")],
)
def test_codes_are_those_of_rfc_6238(seconds, code):
    secret = new_secret(b"12345678901234567890")

    assert code_of(secret, seconds // 30) == code


def a_taker(**over):
    return Factor(id=None, user_id=None, secret=SECRET, created_at=NOON, **over)  # type: ignore[arg-type]


def test_a_clock_may_be_one_step_off_and_no_more():
    step = step_at(NOON)

    taken = {off for off in range(-4, 5) if a_taker().takes(code_of(SECRET, step + off), at=NOON)}

    assert taken == {-1, 0, 1}


def test_no_code_is_taken_twice_nor_one_from_before_it():
    factor, step = a_taker(), step_at(NOON)

    assert factor.takes(code_of(SECRET, step), at=NOON)
    assert not factor.takes(code_of(SECRET, step), at=NOON)
    assert not factor.takes(code_of(SECRET, step - 1), at=NOON)
    assert factor.takes(f" {code_of(SECRET, step + 1)[:3]} {code_of(SECRET, step + 1)[3:]}", at=NOON)


@pytest.mark.parametrize("code", ["", "0", "é", "٣٣٣٣٣٣", "999999999999"])
def test_what_is_no_code_is_refused_and_no_error(code):
    assert not a_taker().takes(code, at=NOON)


# --- enrolment --------------------------------------------------------------------------------------------------------


def test_without_a_factor_the_password_leads_to_enrolment_and_nowhere_else(mary):
    office = Office()

    assert office.password().headers["Location"] == CODE
    assert office.get(CODE).headers["Location"] == ENROL
    for path in ("/admin/", "/admin/identity/user/", CODES, "/admin/password_change/", "/admin/finance/accounts/"):
        answer = office.get(path)
        assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, LOGIN), path
    assert office.get(ENROL).status_code == 200
    assert not office.is_in()


def test_who_enrols_is_in_and_has_ten_recovery_codes_that_are_stored_as_hashes(mary):
    office = Office()
    office.password()
    text = unescape(office.get(ENROL).content.decode())
    [secret] = re.findall(r'id="secret">([A-Z2-7]{32})<', text)
    uri = urlsplit(re.findall(r'id="uri">([^<]+)<', text)[0])

    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/PenPay%3Amary")
    assert parse_qs(uri.query)["secret"] == [secret]
    assert b"errornote" in office.code(another(now_code(secret)), ENROL).content
    assert secret in office.get(ENROL).content.decode()  # a slip of the fingers changes nothing
    assert not office.is_in()

    answer = office.code(now_code(secret), ENROL)
    codes = re.findall(r"<code>([A-Z2-7-]{19})</code>", answer.content.decode())

    assert "no-store" in answer.headers["Cache-Control"]
    assert office.is_in()
    assert len(set(codes)) == 10
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM staff_factors")
        assert secret not in str(cursor.fetchall())
        cursor.execute("SELECT hash FROM staff_recovery_codes")
        assert not [code for code in codes if code.replace("-", "") in str(cursor.fetchall())]
    assert actions("staff.factor_enrolled") == [("staff.factor_enrolled", str(mary.pk), "")]
    assert office.get(ENROL).headers["Location"] == LOGIN


def test_a_secret_that_somebody_else_was_shown_is_never_the_one_that_is_confirmed(mary):
    thief, owner = Office("10.9.9.9"), Office()
    thief.password()
    [seen] = re.findall(r'id="secret">(\w+)<', thief.get(ENROL).content.decode())
    owner.password()
    [secret] = re.findall(r'id="secret">(\w+)<', owner.get(ENROL).content.decode())

    assert secret != seen
    assert b"errornote" in thief.code(now_code(seen), ENROL).content
    assert not StaffFactor.objects.filter(confirmed_at__isnull=False).exists()


def test_with_a_factor_nobody_enrols_another_one(enrolled):
    office = Office()
    office.password()

    assert office.get(ENROL).headers["Location"] == CODE
    assert office.code(now_code(), ENROL).headers["Location"] == CODE
    assert StaffFactor.objects.get().secret == SECRET


def test_createsuperuser_enrols_too():
    call_command("createsuperuser", "--noinput", "--username", "boss", "--email", "boss@example.org")
    boss = User.objects.get()
    boss.set_password(PASSWORD)
    boss.save()
    office = Office()

    office.password("boss")

    assert office.get(CODE).headers["Location"] == ENROL
    assert not office.is_in()


# --- the second factor ------------------------------------------------------------------------------------------------


def test_password_and_code_sign_in_and_a_code_works_once(enrolled, clock):
    office = signed_in()
    AuditLog.objects.get(action="staff.signed_in", target_id=str(enrolled.pk), after="totp")

    other = Office()
    other.password()
    assert b"errornote" in other.code(now_code()).content
    assert not other.is_in()
    clock.shift(30)
    assert other.code(now_code()).status_code == 302
    assert other.is_in()
    assert office.is_in()


def test_a_recovery_code_signs_in_once(enrolled, clock):
    office = signed_in()
    clock.shift(30)
    codes = re.findall(r"<code>([A-Z2-7-]{19})</code>", office.code(now_code(), CODES).content.decode())
    assert len(codes) == 10

    for expected in (True, False):
        lost_phone = Office("10.0.0.2")
        lost_phone.password()
        lost_phone.code(codes[0].lower())
        assert lost_phone.is_in() is expected
    assert StaffRecoveryCode.objects.filter(used_at=None).count() == 9
    assert AuditLog.objects.filter(action="staff.signed_in", after="recovery code").count() == 1


def test_new_recovery_codes_void_the_old_ones_and_want_a_code(enrolled, clock):
    office = signed_in()
    clock.shift(30)
    old = re.findall(r"<code>([A-Z2-7-]{19})</code>", office.code(now_code(), CODES).content.decode())
    assert b"errornote" in office.code(now_code(), CODES).content
    clock.shift(30)
    office.code(now_code(), CODES)

    other = Office()
    other.password()
    other.code(old[0])

    assert not other.is_in()
    assert StaffRecoveryCode.objects.count() == 10


def test_the_code_alone_is_nothing_and_the_password_is_soon_forgotten(enrolled, clock):
    office = Office()
    office.get(LOGIN)
    assert office.code(now_code()).headers["Location"] == LOGIN
    office.password()
    clock.shift(timedelta(minutes=11))
    assert office.code(now_code()).headers["Location"] == LOGIN
    assert not office.is_in()


def test_a_password_that_was_changed_in_between_is_asked_again(enrolled):
    office = Office()
    office.password()
    enrolled.set_password("another long password")
    enrolled.save()

    assert office.code(now_code()).headers["Location"] == LOGIN
    assert not office.is_in()


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "/api/v1/me", "javascript:alert(1)"])
def test_nobody_is_sent_elsewhere_after_signing_in(enrolled, wanted):
    office = Office()
    office.password(path=f"{LOGIN}?next={wanted}")

    assert office.code(now_code()).headers["Location"] == "/admin/"


def test_staff_come_to_the_page_they_asked_for(enrolled):
    office = Office()
    office.password(path=office.get("/admin/identity/user/?q=1").headers["Location"])

    assert office.code(now_code()).headers["Location"] == "/admin/identity/user/?q=1"


def test_a_session_id_that_was_planted_is_not_the_one_that_is_signed_in(enrolled):
    office = Office()
    office.password()
    planted = office.cookies["sessionid"].value
    office.code(now_code())

    assert office.cookies["sessionid"].value != planted
    assert not SessionStore().exists(planted)


def test_whoever_reads_the_table_of_sessions_is_nobody(enrolled):
    office = signed_in()
    cookie = office.cookies["sessionid"].value
    [row] = Session.objects.all()
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_key, session_data FROM django_session")
        assert cookie not in str(cursor.fetchall())

    thief = Office()
    for found in (row.session_key, row.session_key[:32]):
        thief.cookies["sessionid"] = found
        assert not thief.is_in()
    assert office.is_in()


def test_the_row_of_a_session_goes_with_the_sign_out(enrolled):
    office = signed_in()
    cookie = office.cookies["sessionid"].value
    assert SessionStore().exists(cookie)

    office.send("/admin/logout/")

    assert not Session.objects.exists()
    office.cookies["sessionid"] = cookie
    assert not office.is_in()


def test_no_step_goes_without_its_csrf_token(enrolled):
    office = Office()
    assert office.post(LOGIN, {"username": "mary", "password": PASSWORD}).status_code == 403
    office.password()
    assert office.post(CODE, {"code": now_code()}).status_code == 403
    assert not office.is_in()


# --- the end of a session ---------------------------------------------------------------------------------------------


def test_a_session_ends_after_fifteen_minutes_of_nothing(enrolled, clock):
    office = signed_in()
    for _ in range(4):
        clock.shift(timedelta(minutes=14))
        assert office.is_in()
    clock.shift(timedelta(minutes=15))

    assert not office.is_in()
    assert actions("staff.session_ended") == [("staff.session_ended", str(enrolled.pk), "idle")]
    assert AuditLog.objects.get(action="staff.session_ended").actor == f"staff:{enrolled.pk}"


def test_a_session_ends_after_eight_hours_however_busy(enrolled, clock):
    office = signed_in()
    for _ in range(47):
        clock.shift(timedelta(minutes=10))
        assert office.is_in()
    clock.shift(timedelta(minutes=10))

    assert not office.is_in()


def test_signing_out_is_audited_and_ends_the_session(enrolled):
    office = signed_in()
    token = office.cookies["csrftoken"].value

    assert office.post("/admin/logout/", {"csrfmiddlewaretoken": token}).status_code == 200

    assert not office.is_in()
    assert actions("staff.session_ended") == [("staff.session_ended", str(enrolled.pk), "signed out")]


def test_a_session_that_nobody_proved_is_ended(enrolled):
    office = Office()
    office.force_login(enrolled)

    assert not office.is_in()
    assert actions("staff.session_ended") == [("staff.session_ended", str(enrolled.pk), "unproven")]


def test_who_is_no_member_of_staff_any_more_is_out_at_once(enrolled):
    office = signed_in()
    User.objects.filter(pk=enrolled.pk).update(is_active=False)

    assert not office.is_in()


def test_a_new_password_wants_the_old_one_is_audited_and_ends_other_sessions(enrolled, clock):
    here = signed_in()
    clock.shift(30)
    elsewhere = signed_in()
    new = "nine herons over Nakuru"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}

    for wrong in ({"old_password": "x"}, {"new_password1": "short", "new_password2": "short"}, dict.fromkeys(
        ("new_password1", "new_password2"), "ab cd" * 26
    )):  # fmt: skip
        assert here.send("/admin/password_change/", **form | wrong).status_code == 200
    assert actions("staff.password_changed") == []
    assert here.send("/admin/password_change/", **form).headers["Location"] == "/admin/password_change/done/"

    assert actions("staff.password_changed") == [("staff.password_changed", str(enrolled.pk), "")]
    assert here.is_in()
    assert not elsewhere.is_in()
    enrolled.refresh_from_db()
    assert enrolled.check_password(new)


def test_the_demos_staff_sign_in_with_the_code_that_the_demo_prints(settings, capsys):
    settings.DERIV_AGENTS = []
    call_command("create_demo_data", "--staff-password", PASSWORD, "--staff-secret", SECRET, "--json")

    for name in ("admin@example.com", "finance", "mlro2@example.com"):
        office = Office()
        office.password(name)
        office.code(now_code())
        assert office.is_in(), name
    assert AuditLog.objects.filter(action="staff.factor_enrolled", actor="system:create_demo_data").count() == 9


def test_a_demo_secret_that_is_none_is_said_so(settings, capsys):
    settings.DERIV_AGENTS = []

    with pytest.raises(CommandError, match="base32"):
        call_command("create_demo_data", "--staff-password", PASSWORD, "--staff-secret", "not base32!", "--json")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="one writer at a time")
def test_of_two_requests_with_one_code_one_is_let_in():
    mary = User.objects.create_staff("mary", "mary@example.org", PASSWORD)
    a_factor(mary)
    member = StaffMember(id=mary.pk, name="mary", password_hash="")
    gate, outcomes = Barrier(4), []

    def attempt(number):
        gate.wait()
        try:
            outcomes.append(bool(staff_sign_in.factor(member, now_code(), Seat(address=f"10.0.3.{number}"))))
        except WrongFactor:
            outcomes.append(False)
        finally:
            connection.close()

    threads = [Thread(target=attempt, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == [False, False, False, True]
    assert AuditLog.objects.filter(action="staff.signed_in").count() == 1


# --- an operator's help -----------------------------------------------------------------------------------------------


def test_an_operator_unlocks_and_resets_with_an_audit_row_and_the_sessions_end(enrolled, capsys):
    office = signed_in()
    wrong_passwords(Office("10.9.9.9"), 5)
    call_command("staff_access", "unlock", "mary", "--why", "called", "--json")
    assert Office("10.0.0.5").password().status_code == 302

    call_command("staff_access", "reset_factor", "Mary@Example.org", "--why", "lost phone", "--json")

    assert not office.is_in()
    assert not StaffFactor.objects.exists()
    assert [(action, why) for action, _, why in actions("staff.unlocked", "staff.factor_reset")] == [
        ("staff.unlocked", "called"),
        ("staff.factor_reset", "lost phone"),
    ]
    again = Office()
    again.password()
    assert again.get(CODE).headers["Location"] == ENROL


@pytest.mark.parametrize("arguments", [("unlock", "nobody", "--why", "x"), ("reset_factor", "mary")])
def test_an_operator_names_somebody_and_says_why(enrolled, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        call_command("staff_access", *arguments, "--json")

    assert end.value.code == 2
    assert StaffFactor.objects.exists()


def test_a_dry_run_changes_nothing(enrolled, capsys):
    call_command("staff_access", "reset_factor", "mary", "--why", "x", "--dry-run", "--json")

    assert StaffFactor.objects.exists()
    assert not actions("staff.factor_reset")
