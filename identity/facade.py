"""Identity, assembled; the only door of this context."""

from datetime import timedelta

from django.conf import settings
from django.utils.module_loading import import_string

from deriv_integration.facade import deriv
from identity import queries
from identity.application.account import Account
from identity.application.auth import Auth, SignIn, Tokens
from identity.application.codes import Codes, Messages
from identity.application.deriv_login import BindDerivLogin, DerivLogins
from identity.application.kyc import DecideKyc, KycDecisions
from identity.application.notices import Notices
from identity.application.payout_sessions import PayoutSessions
from identity.application.registration import Register, Registration
from identity.application.step_up import SecondFactor, StepUp
from identity.infrastructure.contacts import (
    DjangoNoticeRepository,
    DjangoTotpRepository,
    DjangoVerificationRepository,
)
from identity.infrastructure.directory import DjangoUserDirectory
from identity.infrastructure.email import email_sender
from identity.infrastructure.persistence import DjangoSessionRepository, DjangoUserRepository
from identity.infrastructure.sms import sms_sender
from identity.infrastructure.tokens import Argon2Passwords, JwtAccessTokens, RandomSecrets
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import (
    DjangoAuditLog,
    DjangoOutboxRepository,
    new_id,
    now,
    unit_of_work,
)

audit = DjangoAuditLog()
accounts = DjangoUserRepository(DjangoOutboxRepository(), audit)
users = DjangoUserDirectory(clock=now)
messages = Messages(sms_sender, email_sender)
codes = Codes(DjangoVerificationRepository(), RandomSecrets(), messages, new_id)
notices = Notices(DjangoNoticeRepository(), messages, unit_of_work, now, new_id)
second_factor = SecondFactor(codes, DjangoTotpRepository())
step_up = StepUp(accounts, DjangoSessionRepository(), second_factor, notices, unit_of_work, now)
payout_sessions = PayoutSessions(
    sessions=DjangoSessionRepository(),
    wait=timedelta(seconds=settings.NEW_DEVICE_WAIT_S),
    large=Money(settings.LARGE_PAYOUT_KES * 100, Currency.KES),
)
account = Account(
    users=accounts,
    sessions=DjangoSessionRepository(),
    codes=codes,
    totps=DjangoTotpRepository(),
    notices=notices,
    passwords=Argon2Passwords(),
    outbox=DjangoOutboxRepository(),
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    has_open_payments=lambda user: bool(import_string(settings.OPEN_PAYMENTS)(user)),  # it stands above this context
)
registration = Registration(
    users=accounts,
    codes=codes,
    passwords=Argon2Passwords(),
    unit_of_work=unit_of_work,
    clock=now,
    ids=new_id,
)
auth = Auth(
    users=accounts,
    sessions=DjangoSessionRepository(),
    passwords=Argon2Passwords(),
    access=JwtAccessTokens(),
    secrets=RandomSecrets(),
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    ids=new_id,
    max_devices=settings.MAX_DEVICES,
    refresh_ttl=timedelta(seconds=settings.JWT_REFRESH_TTL),
    second=second_factor,
)
kyc = KycDecisions(users=accounts, unit_of_work=unit_of_work, clock=now)
deriv_logins = DerivLogins(users=accounts, deriv=deriv, audit=audit, unit_of_work=unit_of_work, clock=now, ids=new_id)

__all__ = [
    "BindDerivLogin",
    "DecideKyc",
    "Register",
    "SignIn",
    "Tokens",
    "account",
    "auth",
    "deriv_logins",
    "kyc",
    "notices",
    "payout_sessions",
    "queries",
    "registration",
    "step_up",
    "users",
]
