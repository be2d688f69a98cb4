"""Identity, assembled; the only door of this context."""

from datetime import timedelta

from django.conf import settings

from deriv_integration.facade import deriv
from identity import queries
from identity.application.auth import Auth, SignIn, Tokens
from identity.application.codes import Codes, Messages
from identity.application.deriv_login import BindDerivLogin, DerivLogins
from identity.application.kyc import DecideKyc, KycDecisions
from identity.application.registration import Register, Registration
from identity.infrastructure.directory import DjangoUserDirectory
from identity.infrastructure.email import email_sender
from identity.infrastructure.persistence import (
    DjangoSessionRepository,
    DjangoUserRepository,
    DjangoVerificationRepository,
)
from identity.infrastructure.sms import sms_sender
from identity.infrastructure.tokens import Argon2Passwords, JwtAccessTokens, RandomSecrets
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
codes = Codes(DjangoVerificationRepository(), RandomSecrets(), Messages(sms_sender, email_sender), new_id)
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
)
kyc = KycDecisions(users=accounts, unit_of_work=unit_of_work, clock=now)
deriv_logins = DerivLogins(users=accounts, deriv=deriv, audit=audit, unit_of_work=unit_of_work, clock=now, ids=new_id)

__all__ = [
    "BindDerivLogin",
    "DecideKyc",
    "Register",
    "SignIn",
    "Tokens",
    "auth",
    "deriv_logins",
    "kyc",
    "queries",
    "registration",
    "users",
]
