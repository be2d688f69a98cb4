"""What is stored is read back; the directory, the database's own refusals, and staff in the same table."""

from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings, strategies as st

from identity import models
from identity.domain.contact import Email
from identity.domain.customer import Customer
from identity.domain.device import Device
from identity.domain.kyc import KycStatus
from identity.domain.user import User, UserNotFound
from identity.facade import accounts, registration, users
from identity.tests.factories import PASSWORD, DerivLoginFactory, a_customer, a_phone
from shared_kernel.domain.events import UserRegistered
from shared_kernel.domain.identifiers import DeviceId, Phone, UserId
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db


def locked(user: UserId) -> Customer:
    with unit_of_work():
        return users.customer(user)


# the aggregate


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from([KycStatus.SUBMITTED, KycStatus.VERIFIED]),
    tier=st.sampled_from(["basic", "standard", None]),
    devices=st.integers(0, 3),
    verified=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_what_save_wrote_get_reads_back_equal(status, tier, devices, verified, epoch):
    at = now()
    phone = Phone(a_phone())
    user = User.register(UserId(new_id()), phone, Email(f"{new_id()}@example.org"), "Amina Ōtieno", "!", at=at)
    with unit_of_work():
        accounts.add(user)
    user.decide_kyc(status, tier=tier, expires_at=at, at=at, why="")
    for n in range(devices):
        user.enrol(
            Device(
                id=DeviceId(new_id()),
                client_id=str(n),
                name="Simu ya Amina",
                platform="ios",
                secret_hash="ab" * 32,
                slot=None,
                created_at=at + timedelta(seconds=n),
                last_seen_at=at,
            ),
            limit=3,
        )
    if verified:
        user.phone_proven(phone, at=at)
    for _ in range(epoch):
        user.end_all_sessions(at=at, why="")
    with unit_of_work():
        accounts.save(user)

    with unit_of_work():
        read = accounts.get(user.id)

    def state(user: User) -> dict[str, object]:
        plain = {name: value for name, value in vars(user).items() if name not in {"devices", "notes", "events"}}
        return plain | {"devices": [vars(device) for device in user.active_devices()]}

    assert state(read) == state(user)


# the directory


def test_a_customer_is_read_in_one_locking_statement():
    known = a_customer(full_name="Amina Otieno", tier="standard")
    with CaptureQueriesContext(connection) as queries:
        customer = locked(known.id)
        assert (customer.id, customer.phone, customer.full_name) == (known.id, known.phone, "Amina Otieno")
        assert (customer.kyc_status, customer.tier, customer.is_frozen) == ("verified", "standard", False)
        assert customer.deriv_login == known.deriv_login
        assert customer.deriv_name_matches
    selects = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert len(selects) == 1
    if connection.vendor == "mysql":
        assert selects[0].endswith("FOR UPDATE")


def test_the_name_is_decrypted_only_when_it_is_asked_for():
    known = a_customer()
    models.Profile.objects.filter(pk=known.id).update(full_name="")
    with connection.cursor() as cursor:  # a value from elsewhere: decrypting it fails
        cursor.execute("UPDATE user_profile SET full_name = 'v1.gone.xxxx'")
    customer = locked(known.id)
    with pytest.raises(Exception, match="no key"):
        _ = customer.full_name


def test_what_is_not_proven_is_not_told():
    unproven = locked(a_customer(phone_verified=False, deriv_account=None, kyc_status="none").id)
    assert (unproven.phone, unproven.deriv_login, unproven.deriv_name_matches) == (None, None, False)
    assert unproven.deriv_checked_at is None
    assert unproven.kyc_status == "none"


def test_a_verification_that_ran_out_is_told_as_expired():
    known = a_customer()
    models.Compliance.objects.filter(pk=known.id).update(kyc_expires_at=now() - timedelta(seconds=1))
    assert locked(known.id).kyc_status == "expired"


@pytest.mark.parametrize("column", [{"frozen_at": now()}, {"is_active": False}])
def test_a_frozen_or_closed_account_is_told_as_frozen(column):
    assert locked(a_customer(**column).id).is_frozen


@pytest.mark.django_db(transaction=True)
def test_a_customer_is_never_read_without_a_lock():
    with pytest.raises(RuntimeError):
        users.customer(a_customer().id)


def test_strangers_and_staff_are_no_customers():
    staff = a_customer(is_staff=True)
    for unknown in (UserId(new_id()), staff.id):
        with pytest.raises(UserNotFound):
            locked(unknown)
    assert users.tier_of(a_customer(tier="basic").id) == "basic"


def test_a_customer_is_found_by_phone_in_any_form_or_by_email():
    known = a_customer()
    assert users.find("0" + known.phone.number[3:]) == users.find(known.email.upper()) == known.id
    assert users.find("0700000000") is None
    assert users.find("nonsense") is None


def test_a_check_with_deriv_is_remembered_for_the_login_that_was_asked_about():
    known = a_customer()
    later = now() + timedelta(hours=1)
    with unit_of_work():
        users.remember_deriv_check(known.id, DerivLogin(DerivPlatform.WS_V3, "CR0"), at=later)
    assert locked(known.id).deriv_checked_at != later
    with unit_of_work():
        assert known.deriv_login is not None
        users.remember_deriv_check(known.id, known.deriv_login, at=later)
        users.remember_deriv_check(known.id, known.deriv_login, at=now())  # an older answer changes nothing
    assert locked(known.id).deriv_checked_at == later


# the database says the rules a second time


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE devices SET slot = 0",
        "UPDATE devices SET slot = NULL",
        "UPDATE user_compliance SET kyc_status = 'great'",
        "UPDATE user_compliance SET pep_status = 'maybe'",
        "UPDATE deriv_logins SET revoked_at = bound_at",
        "UPDATE deriv_logins SET active_for_id = NULL",
    ],
)
def test_the_database_refuses(sql):
    known = a_customer()
    device = {"client_id": "a", "name": "x", "platform": "x", "secret_hash": "x"}
    models.Device.objects.create(user_id=known.id, slot=1, created_at=now(), last_seen_at=now(), **device)
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


def test_one_slot_holds_one_device_and_one_customer_one_active_login():
    known = a_customer()
    device = {"client_id": "a", "name": "x", "platform": "x", "secret_hash": "x"}
    models.Device.objects.create(user_id=known.id, slot=1, created_at=now(), last_seen_at=now(), **device)
    with pytest.raises(IntegrityError), transaction.atomic():
        models.Device.objects.create(user_id=known.id, slot=1, created_at=now(), last_seen_at=now(), **device)
    with pytest.raises(IntegrityError), transaction.atomic():
        DerivLoginFactory.create(user=known.row)


# the first code


def test_the_first_code_goes_out_once_however_often_the_event_comes(sms):
    customer = a_customer(phone_verified=False)
    event = UserRegistered(user_id=customer.id, occurred_at=now())
    registration.send_codes([event, event])
    registration.send_codes([event])
    assert [phone for phone, _ in sms] == [customer.phone]


def test_no_first_code_goes_to_a_phone_that_is_proven(sms):
    registration.send_codes([UserRegistered(user_id=a_customer().id, occurred_at=now())])
    assert sms == []


# staff


def test_staff_sign_in_by_email_or_name_and_customers_never_do(client):
    call_command("createsuperuser", "--noinput", "--username", "Ops.Lead", "--email", "Ops@Example.org")
    staff = models.User.objects.get(is_staff=True)
    staff.set_password(PASSWORD)
    staff.save()
    customer = a_customer(password=PASSWORD)

    for name in ("ops@example.org", "OPS@example.org", "ops.lead", " Ops.Lead "):
        assert authenticate(None, username=name, password=PASSWORD) == staff
    for name in (customer.email, customer.row.username, customer.phone.number):
        assert authenticate(None, username=name, password=PASSWORD) is None

    site = Client()
    answer = site.post("/admin/login/", {"username": "ops@example.org", "password": PASSWORD}, follow=True)
    assert answer.redirect_chain[-1][0] == "/admin/login/enrol/"


def test_the_superusers_email_address_is_encrypted():
    call_command("createsuperuser", "--noinput", "--username", "ops", "--email", "ops@example.org")
    with connection.cursor() as cursor:
        cursor.execute("SELECT email FROM users")
        assert "ops@" not in cursor.fetchone()[0]
    assert models.User.objects.get().email == "ops@example.org"


# the command


@dataclass(frozen=True)
class Ran:
    code: int
    out: str


def run(capsys, *arguments: str) -> Ran:
    try:
        call_command("set_kyc", *arguments)
    except SystemExit as end:
        return Ran(int(end.code or 0), capsys.readouterr().out)
    return Ran(0, capsys.readouterr().out)


def test_kyc_is_set_with_an_audit_row(capsys):
    known = a_customer(kyc_status="none", tier="none")
    ran = run(capsys, str(known.id), "--status", "verified", "--tier", "standard", "--why", "papers seen", "--json")
    assert ran.code == 0
    assert ran.out.count("\n") <= 1
    assert '"before": "none none", "after": "verified standard"' in ran.out
    assert (locked(known.id).kyc_status, locked(known.id).tier) == ("verified", "standard")
    [row] = AuditLog.objects.filter(action="user.kyc")
    assert (row.target_id, row.before, row.after, row.why) == (
        str(known.id),
        "none none",
        "verified standard",
        "papers seen",
    )
    assert row.actor == "system:command:set_kyc"


def test_a_dry_run_changes_nothing(capsys):
    known = a_customer(kyc_status="none", tier="none")
    assert "would go" in run(capsys, str(known.id), "--status", "verified", "--tier", "standard", "--dry-run").out
    assert locked(known.id).kyc_status == "none"
    assert not AuditLog.objects.exists()


def test_who_it_is_may_be_told_on_standard_input(capsys, monkeypatch):
    known = a_customer(kyc_status="none")
    monkeypatch.setattr("sys.stdin", iter([]))
    monkeypatch.setattr("sys.stdin", type("In", (), {"readline": lambda self: f"+{known.phone.number}\n"})())
    assert run(capsys, "-", "--status", "verified").code == 0
    assert locked(known.id).kyc_status == "verified"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--status", "rejected"),
        ("--status", "verified", "--tier", "No Tier"),
        ("--status", "verified", "--expires-on", "x"),
    ],
)
def test_what_is_not_allowed_ends_with_2_and_changes_nothing(capsys, arguments):
    known = a_customer(kyc_status="none")
    assert run(capsys, str(known.id), *arguments, "--json").code == 2
    assert run(capsys, str(new_id()), "--status", "verified", "--json").code == 2
    assert locked(known.id).kyc_status == "none"
