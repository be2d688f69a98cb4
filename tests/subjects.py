"""Customers of whom everything is known, for the tests of data protection, and the commands about them."""

import json
from datetime import timedelta

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from identity.models import (
    Address,
    DerivAuthorization,
    DerivLogin,
    EmailVerification,
    Notice,
    PhoneVerification,
    Profile,
    TotpFactor,
    User,
)
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from mpesa_integration.models import MpesaCallback, MpesaRequest
from payments.domain.transaction import TransactionStatus as S
from payments.models import Transaction
from payments.tests.factories import a_float, a_quote, a_stored_deposit
from penpay.privacy import export as exporting
from penpay.privacy.inventory import INVENTORY
from penpay.privacy.model import Personal
from shared_kernel.facade import new_id
from shared_kernel.models import IdempotencyKey

SEVEN_YEARS = timedelta(days=settings.RETENTION_DAYS["aml_records"])
NAME, ACCOUNT = "Amina Wanjiru Otieno", "CR7654321"


def run(capsys, *arguments, code=0):
    """What a command answers with --json."""
    capsys.readouterr()
    ended: object = 0
    try:
        call_command(*arguments, "--json")
    except SystemExit as exit:
        ended = exit.code
    assert ended == code
    return json.loads(capsys.readouterr().out)


def somebody(**given):
    """A customer with all that is known of one: signed in, with an address, a code, and a finished deposit."""
    who = a_customer(full_name=NAME, deriv_account=ACCOUNT, password=PASSWORD, **given)
    profile = Profile.objects.get(pk=who.id)
    profile.date_of_birth = "1990-04-01"
    profile.save()
    at = timezone.now()
    Address(user=who.row, line="12 Moi Avenue", town="Kisumu", created_at=at).save()
    PhoneVerification(
        user=who.row,
        purpose="phone",
        phone=who.phone.number,
        code_hash="c" * 64,
        created_at=at,
        expires_at=at,
        open=None,
    ).save()
    EmailVerification(
        user=who.row, purpose="email", email=who.email, code_hash="c" * 64, created_at=at, expires_at=at, open=None
    ).save()
    TotpFactor(user=who.row, secret="JBSWY3DPEHPK3PXP", created_at=at, confirmed_at=at, step_up_failures=1).save()
    login = DerivLogin.objects.get(user_id=who.id)
    login.refresh_token, login.expires_at = "a-refresh-token", at + timedelta(hours=1)
    login.save()
    DerivAuthorization(
        user=who.row, session_id=new_id(), platform="rest", state_hash=new_id().hex, verifier="v" * 43, created_at=at,
        expires_at=at, code_hash="c" * 64,
    ).save()  # fmt: skip
    Notice(user=who.row, kind="phone_changed", channel="email", target=who.email, created_at=at).save()
    browser = Browser()
    assert browser.sign_in(who.email).status_code == 200
    return who, browser


def a_finished_deposit(who):
    a_float()
    deposit = a_stored_deposit(S.COMPLETED, user=who.id)
    Transaction.objects.filter(pk=deposit.id).update(next_step_at=None)
    at = timezone.now()
    request = MpesaRequest(
        id=new_id(), transaction_id=deposit.id, leg="stk_push", attempt=1, reference=new_id().hex, amount=130000,
        currency="KES", phone=who.phone.number, shortcode="174379", callback_hash=new_id().hex, status="done",
        send_before=at, created_at=at, answer="what M-Pesa said", receipt="UKM0000001",
    )  # fmt: skip
    request.save()
    MpesaCallback(
        id=new_id(), request=request, kind="s", received_at=at, last_received_at=at, peer="196.201.214.200",
        sha256="0" * 64, verdict="ok", body="what M-Pesa called back",
    ).save()  # fmt: skip
    a_quote(who.id)
    IdempotencyKey.objects.create(
        scope=f"{who.id}:deposits", key="my-own-key", fingerprint="f", answer="{}", created_at=at
    )
    return deposit


def a_known_customer():
    """One with everything, beside another one who is none of theirs."""
    who, browser = somebody()
    deposit = a_finished_deposit(who)
    other = a_customer(full_name="Somebody Else Entirely")
    a_stored_deposit(S.COMPLETED, user=other.id)
    return who, deposit, other, browser


def erase(capsys, who, *more, code=0):
    return run(capsys, "erase_subject", str(who.id), "--why=DSR 18", *more, code=code)


def snapshot_of(who):
    """All rows of this customer, as stored."""
    return {
        label: [
            {field.attname: row.__dict__[field.attname] for field in row._meta.concrete_fields}
            for row in exporting.rows_of(who.id, apps.get_model(label), entry)
        ]
        for label, entry in INVENTORY.items()
        if isinstance(entry, Personal)
    }


def assert_forgotten(who):
    user, profile = User.objects.get(pk=who.id), Profile.objects.get(pk=who.id)
    assert (user.phone, user.email, profile.full_name, profile.date_of_birth) == ("", "", "", "")
    assert not Address.objects.filter(user_id=who.id).exists()
    for login in DerivLogin.objects.filter(user_id=who.id):
        assert (login.account, login.full_name, login.token, login.refresh_token) == ("", "", "", "")
