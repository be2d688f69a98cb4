"""Identity, assembled; the only door of this context."""

import os
from datetime import timedelta

from django.conf import settings

from deriv_integration.facade import deriv
from identity import queries
from identity.application.auth import Auth, SignIn, Tokens
from identity.application.deriv_login import BindDerivLogin, DerivLogins
from identity.application.erasure import Erased, EraseSubject, Erasure
from identity.application.kyc import DecideKyc, KycDecisions, KycSubmissions, SubmitKyc
from identity.application.profile import ChangeProfile, Profiles
from identity.application.registration import Register, Registration
from identity.application.staff_sign_in import StaffSignIn
from identity.domain.ports import CustomerTies, Ties
from identity.domain.staff_sign_in import SECRET_BYTES, code_of, new_secret, step_at
from identity.infrastructure.directory import DjangoUserDirectory
from identity.infrastructure.erasure import EXPIRED, DjangoPersonalRecords
from identity.infrastructure.images import PillowCleaner
from identity.infrastructure.kyc import DjangoKycSnapshots
from identity.infrastructure.persistence import (
    DjangoSessionRepository,
    DjangoUserRepository,
    DjangoVerificationRepository,
)
from identity.infrastructure.sms import sms_sender
from identity.infrastructure.staff_sign_in import DjangoFactorRepository, DjangoSignInTries, DjangoStaffDirectory
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
registration = Registration(
    users=accounts,
    verifications=DjangoVerificationRepository(),
    passwords=Argon2Passwords(),
    secrets=RandomSecrets(),
    sms=sms_sender,
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
kyc_submissions = KycSubmissions(
    users=accounts,
    snapshots=DjangoKycSnapshots(),
    images=PillowCleaner(),
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    ids=new_id,
)
profiles = Profiles(users=accounts, unit_of_work=unit_of_work, clock=now)
deriv_logins = DerivLogins(users=accounts, deriv=deriv, audit=audit, unit_of_work=unit_of_work, clock=now, ids=new_id)
staff_sign_in = StaffSignIn(
    staff=DjangoStaffDirectory(),
    factors=DjangoFactorRepository(),
    tries=DjangoSignInTries(),
    passwords=Argon2Passwords(),
    secrets=RandomSecrets(),
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    ids=new_id,
    new_secret=lambda: new_secret(os.urandom(SECRET_BYTES)),
)


def erasure(ties: CustomerTies) -> Erasure:
    """Forgetting customers; `ties` asks the contexts above and beside, of which identity knows none."""
    return Erasure(
        users=accounts,
        records=DjangoPersonalRecords(),
        sessions=DjangoSessionRepository(),
        ties=ties,
        audit=audit,
        unit_of_work=unit_of_work,
        clock=now,
        kept=timedelta(days=settings.RETENTION_DAYS["aml_records"]),
    )


__all__ = [
    "EXPIRED",
    "BindDerivLogin",
    "ChangeProfile",
    "DecideKyc",
    "EraseSubject",
    "Erased",
    "Erasure",
    "Register",
    "SignIn",
    "SubmitKyc",
    "Ties",
    "Tokens",
    "auth",
    "code_of",
    "deriv_logins",
    "erasure",
    "kyc",
    "kyc_submissions",
    "profiles",
    "queries",
    "registration",
    "staff_sign_in",
    "step_at",
    "users",
]
