"""The initiator: its credential, the pinned certificate, the stop at the first error, the command that resumes it."""

import json
import time
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509.oid import NameOID
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from uuid_utils.compat import uuid7

from mpesa_integration import models
from mpesa_integration.facade import account, mpesa
from mpesa_integration.infrastructure.credentials import CertificateUnusable, public_key, security_credential
from mpesa_integration.tests.factories import a_result, a_stored_leg, a_stored_request, an_accepted_leg, conclude
from mpesa_integration.tests.test_callbacks import audited
from mpesa_integration.tests.test_result_callbacks import LEGS, post
from shared_kernel.domain.outcome import Accepted, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import Leg
from shared_kernel.infrastructure.persistence import unit_of_work
from shared_kernel.models import AuditLog

rows = pytest.mark.django_db(transaction=True)
REGISTRY: Any = mpesa.initiators
STOPPED = NotSent("initiator_stopped", 300, alert=True)
SECRET = "Pass#2026&$"


def a_certificate(path: Path, key, *, years_old: int = 0, der: bool = False) -> str:
    """Self-made; its SHA-256 fingerprint."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "apicrypt.test")])
    start = datetime.now(UTC) - timedelta(days=365 * years_old + 10)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(7).not_valid_before(start).not_valid_after(start + timedelta(days=30))
    signed = made.sign(key, hashes.SHA256())
    encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
    path.write_bytes(signed.public_bytes(encoding))
    return signed.fingerprint(hashes.SHA256()).hex()


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("der", [False, True])
def test_m_pesa_alone_can_open_the_credential_and_its_certificates_dates_do_not_count(tmp_path, key, der):
    path = tmp_path / "old.cer"
    pinned = a_certificate(path, key, years_old=10, der=der)

    first, second = (security_credential(SECRET, str(path), pinned.upper()) for _ in range(2))

    assert first != second
    assert len(first) == 344
    assert key.decrypt(b64decode(first), PKCS1v15()) == SECRET.encode()  # not OAEP, nothing appended


def test_a_fingerprint_may_be_written_as_openssl_does(tmp_path, key):
    path = tmp_path / "a.cer"
    pinned = a_certificate(path, key)

    assert public_key(str(path), ":".join(pinned[i : i + 2] for i in range(0, 64, 2)).upper())


def test_another_certificate_than_the_pinned_one_is_refused_and_both_are_named(tmp_path, key):
    path = tmp_path / "a.cer"
    found = a_certificate(path, key)

    with pytest.raises(CertificateUnusable, match=f"{found}, not {'0' * 64}"):
        public_key(str(path), "0" * 64)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", b"\x30"]
)
def test_what_is_no_certificate_is_refused_with_the_settings_name(tmp_path, content):
    path = tmp_path / "broken.cer"
    path.write_bytes(content)

    with pytest.raises(CertificateUnusable, match=r"MPESA_CERTIFICATE_FILE is no X\.509 certificate"):
        public_key(str(path), "")


@pytest.mark.parametrize(
    "weak",
    [lambda: rsa.generate_private_key(65537, 1024), lambda: ec.generate_private_key(ec.SECP256R1())],  # noqa: S505 - weak on purpose
)
def test_a_weak_or_foreign_kind_of_key_is_refused(tmp_path, weak):
    path = tmp_path / "weak.cer"
    a_certificate(path, weak())

    with pytest.raises(CertificateUnusable, match="no RSA key of 2048 bits"):
        public_key(str(path), "")


@pytest.mark.parametrize(
    ("file", "pinned", "said"),
    [("/nowhere/m.cer", "", "can't be read"), (None, "ab" * 32, "fingerprint")],
)
def test_nothing_starts_with_a_certificate_that_is_missing_or_another(settings, file, pinned, said):
    settings.MPESA_CERTIFICATE_FILE = file or settings.MPESA_CERTIFICATE_FILE
    settings.MPESA_CERTIFICATE_SHA256 = pinned

    with pytest.raises(ImproperlyConfigured, match=f"MPESA_CERTIFICATE_FILE .*{said}"):
        apps.get_app_config("mpesa_integration").ready()


def test_neither_password_nor_secrets_stand_in_the_accounts_repr(settings):
    settings.MPESA_INITIATOR_PASSWORD = SECRET

    shown = repr(account())

    for secret in (SECRET, settings.MPESA_PASSKEY, settings.MPESA_CONSUMER_SECRET):
        assert secret not in shown


# --- the stop --------------------------------------------------------------------------------------------------------


def send(request):
    return mpesa.send(request, give_up_at=time.monotonic() + 10)


@pytest.fixture(autouse=True)
def _in_use():
    REGISTRY.seen[0] = frozenset()
    yield
    REGISTRY.seen[0] = frozenset()


@pytest.fixture
def provider(mpesa_simulator):
    return mpesa_simulator


@rows
@pytest.mark.parametrize("code", ["2001", "18", "20", "21", "22", "8006", "11", "2006", "2028"])
@pytest.mark.parametrize("leg", LEGS)
def test_the_first_error_of_the_credential_stops_all_calls_in_the_initiators_name(provider, leg, code):
    request = an_accepted_leg(leg, **LEGS[leg])

    post(request, a_result(request, code=code))

    assert audited("mpesa_initiator.stopped") == [f"{leg} ended with {code}"]
    row = models.MpesaInitiator.objects.get()
    assert (row.name, row.why) == ("testapi", f"{leg} ended with {code}")
    REGISTRY.seen[0] = frozenset()  # another process
    for other, given in LEGS.items():
        assert send(a_stored_leg(other, **given)) == STOPPED
    assert mpesa.ask_balance("600992") == STOPPED
    assert provider.calls == {}
    assert isinstance(send(a_stored_request()), Accepted)  # an STK push has no initiator


@rows
def test_a_second_error_stops_nothing_anew():
    first, second = (an_accepted_leg(Leg.B2C_PAYOUT) for _ in range(2))

    post(first, a_result(first, code=2001))
    post(second, a_result(second, code=8006))

    assert audited("mpesa_initiator.stopped") == ["b2c_payout ended with 2001"]


@rows
@pytest.mark.parametrize(
    ("leg", "code", "fields"),
    [
        (Leg.B2C_PAYOUT, 1, {}),
        (Leg.B2C_PAYOUT, 2040, {}),
        (Leg.B2C_PAYOUT, 17, {}),
        (Leg.B2C_PAYOUT, 2001, {"ConversationID": "AG_another"}),  # forged by one who has but the URL
        (Leg.B2C_PAYOUT, 2001, {"ResultType": 1}),
        (Leg.REVERSAL, "R000001", {}),
    ],
)
def test_other_ends_and_forgeries_stop_nothing(leg, code, fields):
    request = an_accepted_leg(leg, **LEGS[leg])

    post(request, a_result(request, code=code, **fields))

    assert models.MpesaInitiator.objects.count() == 0


ANSWERS: list[tuple[Outcome, bool]] = [
    (
        Refused(
            "400.002.02", answer='{"errorCode": "400.002.02", "errorMessage": "Bad Request - Invalid InitiatorName"}'
        ),
        True,
    ),
    (Refused("400.002.02", answer='{"errorCode": "400.002.02", "errorMessage": "Invalid SecurityCredential"}'), True),
    (Unknown("ResponseCode 2001", answer='{"ResponseCode": "2001"}'), True),
    (
        Refused("400.002.02", answer='{"errorCode": "400.002.02", "errorMessage": "Bad Request - Invalid PartyB"}'),
        False,
    ),
    (Unknown("500.002.1001", answer='{"errorCode": "500.002.1001", "errorMessage": "Duplicate"}'), False),
    (Accepted(answer='{"ResponseCode": "0"}'), False),
    (NotSent("not_connected"), False),
]


@rows
@pytest.mark.parametrize(("outcome", "stops"), ANSWERS, ids=lambda value: str(value)[:60])
def test_an_answer_that_names_the_credential_stops_the_initiator_in_the_commit_that_stores_it(outcome, stops):
    request = a_stored_leg(Leg.B2C_PAYOUT)

    conclude(request, outcome)

    assert models.MpesaInitiator.objects.filter(stopped_at__isnull=False).exists() == stops
    assert len(audited("mpesa_initiator.stopped")) == stops


@rows
def test_a_stop_that_was_not_committed_is_none(provider):
    request = a_stored_leg(Leg.B2C_PAYOUT)

    def stop_and_fail():
        with unit_of_work():
            mpesa.requests_of([request.transaction_id], [(request, ANSWERS[0][0])])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_and_fail()

    assert isinstance(send(a_stored_leg(Leg.B2C_PAYOUT)), Accepted)


@rows
def test_the_simulators_lock_is_never_reached(provider, settings):
    """A wrong password is sent once: the balance query's result stops what would lock the credential."""
    settings.MPESA_INITIATOR_PASSWORD = "wrong"
    outcomes = []
    for _ in range(5):
        request = a_stored_leg(Leg.B2C_PAYOUT)
        outcomes.append(send(request))
        if isinstance(outcomes[-1], Accepted):
            conclude(request, outcomes[-1])
            post(request, a_result(request, code=2001))

    assert [type(outcome) for outcome in outcomes] == [Accepted, *[NotSent] * 4]
    assert provider.calls["b2c"] == 1


@rows
def test_a_certificate_that_went_missing_sends_nothing_and_asks_for_a_person(provider, settings):
    settings.MPESA_CERTIFICATE_FILE = "/nowhere/m.cer"

    assert send(a_stored_leg(Leg.B2C_PAYOUT)) == NotSent("certificate", 300, alert=True)
    assert provider.calls == {}


def resume(*arguments):
    out = StringIO()
    code: Any = 0
    try:
        call_command("resume_initiator", "--why", "new password set", "--json", *arguments, stdout=out)
    except SystemExit as error:
        code = error.code
    return code, json.loads(out.getvalue())


@rows
def test_a_person_resumes_it_and_the_audit_log_says_who_and_why(provider):
    with unit_of_work():
        mpesa.initiators.stop("b2c_payout ended with 2001", at=datetime.now(UTC))

    assert resume("--dry-run") == (0, {"initiator": "testapi", "was_stopped": True, "dry_run": True})
    assert send(a_stored_leg(Leg.B2C_PAYOUT)) == STOPPED
    assert resume("--staff", str(uuid7()))[0] == 0

    assert isinstance(send(a_stored_leg(Leg.B2C_PAYOUT)), Accepted)
    row = AuditLog.objects.get(action="mpesa_initiator.resumed")
    assert (row.target_id, row.why) == ("testapi", "new password set")
    assert row.actor.startswith("staff:")


@rows
def test_resuming_what_was_not_stopped_changes_nothing_and_says_so():
    assert resume() == (1, {"initiator": "testapi", "was_stopped": False, "dry_run": False})
    assert AuditLog.objects.count() == 0
