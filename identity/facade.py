"""Identity, assembled; the only door of this context."""

import os
from datetime import timedelta

from django.conf import settings
from django.utils.module_loading import import_string

from deriv_integration.facade import deriv, oauth
from identity import models, queries
from identity.application.account import Account
from identity.application.auth import Auth, SignIn, Tokens
from identity.application.codes import Codes, Messages
from identity.application.deriv_authorization import DerivAuthorizations
from identity.application.deriv_login import BindDerivLogin, DerivLogins
from identity.application.deriv_tokens import DerivTokens
from identity.application.door import Door
from identity.application.erasure import Erased, EraseSubject, Erasure
from identity.application.kyc import DecideKyc, KycDecisions, KycSubmissions, SubmitKyc
from identity.application.notices import Notices
from identity.application.particulars import Particulars
from identity.application.payout_sessions import PayoutSessions
from identity.application.profile import ChangeProfile, Profiles
from identity.application.registration import Register, Registration
from identity.application.staff_sign_in import StaffSignIn
from identity.application.step_up import SecondFactor, StepUp
from identity.application.totp_removals import TotpRemovals
from identity.application.unproven_contacts import UnprovenContacts
from identity.domain.particulars import ParticularsReveal
from identity.domain.ports import CustomerTies, Ties
from identity.domain.staff_sign_in import SECRET_BYTES, code_of, new_secret, step_at
from identity.domain.totp_removal import TotpRemoval
from identity.infrastructure.contacts import (
    DjangoNoticeRepository,
    DjangoTotpRepository,
    DjangoVerificationRepository,
)
from identity.infrastructure.deriv import DjangoDerivAuthorizations, DjangoDerivTokens
from identity.infrastructure.directory import DjangoUserDirectory
from identity.infrastructure.email import email_sender
from identity.infrastructure.erasure import EXPIRED, DjangoPersonalRecords
from identity.infrastructure.images import PillowCleaner
from identity.infrastructure.kyc import DjangoKycSnapshots
from identity.infrastructure.persistence import DjangoSessionRepository, DjangoUserRepository
from identity.infrastructure.sms import sms_sender
from identity.infrastructure.staff_sign_in import DjangoFactorRepository, DjangoSignInTries, DjangoStaffDirectory
from identity.infrastructure.tokens import Argon2Passwords, JwtAccessTokens, RandomSecrets
from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import limiter
from shared_kernel.infrastructure.consents import DjangoConsents
from shared_kernel.infrastructure.persistence import (
    DjangoAuditLog,
    DjangoOutboxRepository,
    current_context,
    new_id,
    now,
    unit_of_work,
)

KEPT = timedelta(days=settings.RETENTION_DAYS["aml_records"])
audit = DjangoAuditLog()
accounts = DjangoUserRepository(DjangoOutboxRepository(), audit)
users = DjangoUserDirectory(clock=now)
door = Door(limiter, accounts, RandomSecrets(), lambda: current_context().address)
messages = Messages(sms_sender, email_sender, limiter)
codes = Codes(DjangoVerificationRepository(), RandomSecrets(), messages, new_id, unit_of_work, now)
notices = Notices(DjangoNoticeRepository(), messages, unit_of_work, now, new_id)
unproven = UnprovenContacts(accounts, DjangoSessionRepository(), codes.verifications, notices)
second_factor = SecondFactor(codes, DjangoTotpRepository(), notices)
step_up = StepUp(accounts, DjangoSessionRepository(), second_factor, notices, unit_of_work, now, door)
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
    kept=KEPT,
    door=door,
    unproven=unproven,
    is_tied=lambda user: bool(import_string(settings.OPEN_PAYMENTS)(user)),  # it stands above this context
)
totp_removals = TotpRemovals(DjangoConsents(models.TotpRemoval, TotpRemoval), account, new_id)
registration = Registration(
    users=accounts,
    codes=codes,
    passwords=Argon2Passwords(),
    unit_of_work=unit_of_work,
    clock=now,
    ids=new_id,
    door=door,
    unproven=unproven,
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
    notices=notices,
    door=door,
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
particulars = Particulars(
    users=users,
    reveals=DjangoConsents(models.ParticularsReveal, ParticularsReveal),
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    ids=new_id,
)
deriv_logins = DerivLogins(
    users=accounts,
    authorizations=DjangoDerivAuthorizations(),
    deriv=deriv,
    sessions=payout_sessions,
    notices=notices,
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    ids=new_id,
)
deriv_authorizations = DerivAuthorizations(
    users=accounts,
    authorizations=DjangoDerivAuthorizations(),
    grants=oauth,
    logins=deriv_logins,
    secrets=RandomSecrets(),
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
)
deriv_tokens = DerivTokens(
    users=accounts,
    tokens=DjangoDerivTokens(),
    grants=oauth,
    notices=notices,
    unit_of_work=unit_of_work,
    clock=now,
)
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
        kept=KEPT,
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
    "account",
    "auth",
    "code_of",
    "deriv_authorizations",
    "deriv_logins",
    "deriv_tokens",
    "door",
    "erasure",
    "kyc",
    "kyc_submissions",
    "notices",
    "payout_sessions",
    "profiles",
    "queries",
    "registration",
    "staff_sign_in",
    "step_at",
    "step_up",
    "totp_removals",
    "users",
]
