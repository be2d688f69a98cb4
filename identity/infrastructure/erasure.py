"""What is erased of a customer, and what of sessions and codes has outlived its retention, as rows."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from identity import models
from identity.models import kyc as kyc_rows
from shared_kernel.domain.identifiers import UserId
from shared_kernel.infrastructure.retention import Expired, rows_of


@dataclass(frozen=True)
class DjangoPersonalRecords:
    """`users` and what hangs on it."""

    def is_customer(self, user: UserId) -> bool:
        return models.User.objects.filter(pk=user, is_staff=False, profile__isnull=False).exists()

    def forget_contact(self, user: UserId) -> None:
        models.User.objects.filter(pk=user).update(email="", email_index=None, phone_index=None, last_login=None)
        models.Device.objects.filter(user_id=user).update(client_id="", name="", platform="", secret_hash="")
        models.PhoneVerification.objects.filter(user_id=user).delete()
        models.EmailVerification.objects.filter(user_id=user).delete()
        models.TotpFactor.objects.filter(pk=user).delete()
        models.Notice.objects.filter(user_id=user).delete()
        models.DerivLogin.objects.filter(user_id=user).update(token="", refresh_token="")
        models.DerivAuthorization.objects.filter(pk=user).delete()

    def forget_identity(self, user: UserId) -> None:
        models.User.objects.filter(pk=user).update(phone="", phone_index=None, phone_verified_at=None)
        models.Profile.objects.filter(pk=user).update(full_name="", date_of_birth="")
        models.Address.objects.filter(user_id=user).delete()
        for login in models.DerivLogin.objects.filter(user_id=user):  # a few; each needs a look-up of its own
            index = secrets.token_hex(32)
            models.DerivLogin.objects.filter(pk=login.pk).update(
                account="", full_name="", token="", refresh_token="", account_index=index
            )

    def count_overdue(self, at: datetime) -> int:
        return _overdue(at).exclude(HAS_DOCUMENTS).count()

    def count_waiting(self, at: datetime) -> int:
        return _overdue(at).filter(HAS_DOCUMENTS).count()

    def overdue(self, at: datetime, most: int) -> Sequence[UserId]:
        due = _overdue(at).exclude(HAS_DOCUMENTS).order_by("erase_after")
        return [UserId(id) for id in due.values_list("pk", flat=True)[:most]]

    def restricted(self) -> int:
        return models.User.objects.exclude(erase_after=None).count()


HAS_DOCUMENTS = Exists(kyc_rows.KycSnapshot.objects.filter(user_id=OuterRef("pk")))  # append-only: nothing deletes them


def _overdue(at: datetime) -> QuerySet[models.User]:
    return models.User.objects.filter(erase_after__lte=at)


def _old_codes(before: datetime) -> QuerySet[models.PhoneVerification]:
    return models.PhoneVerification.objects.filter(expires_at__lt=before)


def _old_email_codes(before: datetime) -> QuerySet[models.EmailVerification]:
    return models.EmailVerification.objects.filter(expires_at__lt=before)


def _old_notices(before: datetime) -> QuerySet[models.Notice]:
    return models.Notice.objects.filter(created_at__lt=before)


def _old_authorizations(before: datetime) -> QuerySet[models.DerivAuthorization]:
    return models.DerivAuthorization.objects.filter(expires_at__lt=before)


def _old_sessions(before: datetime) -> QuerySet[models.Session]:
    """Those that ended, or ran out: until then a spent refresh token that comes again has to be recognised."""
    return models.Session.objects.filter(Q(ended_at__lt=before) | Q(expires_at__lt=before))


def _delete_sessions(ids: Sequence[UUID]) -> None:
    models.RefreshToken.objects.filter(family_id__in=ids).delete()
    models.Session.objects.filter(pk__in=ids).delete()


EXPIRED = (
    Expired("one_time_codes", _old_codes, rows_of(models.PhoneVerification)),
    Expired("email_codes", _old_email_codes, rows_of(models.EmailVerification)),
    Expired("deriv_authorizations", _old_authorizations, rows_of(models.DerivAuthorization)),
    Expired("notices", _old_notices, rows_of(models.Notice)),
    Expired("sessions", _old_sessions, _delete_sessions),
)
