"""The directory in which other contexts look customers up."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from identity import models
from identity.domain.contact import Email, InvalidEmail
from identity.domain.customer import Customer
from identity.domain.deriv_token import state_of
from identity.domain.kyc import KycStatus
from identity.domain.user import UserNotFound
from identity.infrastructure.persistence import account_index, known_by
from shared_kernel.domain.identifiers import InvalidPhone, Phone, UserId
from shared_kernel.domain.ports import Clock
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from shared_kernel.infrastructure.encryption import decrypt
from shared_kernel.infrastructure.persistence import in_transaction
from shared_kernel.infrastructure.rows import utc

CUSTOMER = """\
SELECT u.phone, u.phone_verified_at IS NOT NULL, u.frozen_at IS NOT NULL OR NOT u.is_active, p.full_name,
       c.kyc_status, c.kyc_expires_at, c.tier,
       d.id, d.platform, d.account, d.currency, d.name_matches, d.checked_at,
       d.lost_at, d.expires_at, d.refresh_token <> ''
FROM users u JOIN user_profile p ON p.user_id = u.id JOIN user_compliance c ON c.user_id = u.id
LEFT JOIN deriv_logins d ON d.active_for_id = u.id
WHERE NOT u.is_staff AND u.id = """


@dataclass(frozen=True)
class DjangoUserDirectory:
    """The customers, for other contexts."""

    clock: Clock

    def customer(self, user: UserId) -> Customer:
        """Joins the caller's unit of work: one SELECT ... FOR UPDATE, so that what was checked stays true.

        Raises `UserNotFound`, also for staff; `RuntimeError` outside of a unit of work.
        """
        if not in_transaction():
            raise RuntimeError("a customer is read under lock: open a unit of work")
        lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
        with connection.cursor() as cursor:  # for each deposit: by the ORM it takes five times as long
            cursor.execute(f"{CUSTOMER}X'{user.hex}'{lock}")
            row = cursor.fetchone()
        if row is None:
            raise UserNotFound("no such customer")
        phone, phone_is_proven, is_frozen, full_name, status, expires_at, tier, *login, lost_at, ends_at, renewable = (
            row
        )
        expires_at = utc(expires_at)
        has_expired = status == KycStatus.VERIFIED and expires_at is not None and expires_at <= self.clock()
        binding, name_matches, checked_at = _binding(*login)
        return Customer(
            id=user,
            phone=Phone(decrypt(phone, f"users.phone|{user}")) if phone and phone_is_proven else None,
            kyc_status=str(KycStatus.EXPIRED) if has_expired else status,
            tier=tier,
            is_frozen=bool(is_frozen),
            deriv_login=binding,
            deriv_name_matches=name_matches,
            deriv_login_state=state_of(utc(lost_at), utc(ends_at), bool(renewable), at=self.clock()),
            deriv_checked_at=checked_at,
            reveal_name=lambda: decrypt(full_name, f"user_profile.full_name|{user}") if full_name else "",
        )

    def deriv_tokens(self, logins: Mapping[UserId, DerivLogin]) -> dict[UserId, str]:
        """The customers' own tokens at Deriv, for those whose bound login is this one; one SELECT."""
        rows = models.DerivLogin.objects.filter(active_for_id__in=list(logins))
        return {
            UserId(row.active_for_id): row.token
            for row in rows
            if row.active_for_id in logins
            and (row.platform, row.account)
            == (logins[UserId(row.active_for_id)].platform, logins[UserId(row.active_for_id)].account)
        }

    def frozen(self, users: Collection[UserId]) -> set[UserId]:
        """Those that are frozen or closed, all locked for the rest of the unit of work; one SELECT."""
        lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
        ids = ", ".join(f"X'{user.hex}'" for user in sorted(users))
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, frozen_at IS NOT NULL OR NOT is_active FROM users WHERE id IN ({ids}) ORDER BY id{lock}"  # noqa: S608
            )
            return {UserId(UUID(bytes=bytes(id))) for id, is_frozen in cursor.fetchall() if is_frozen}

    def tier_of(self, user: UserId) -> str:
        """The tier, not locked. Raises `UserNotFound`."""
        tier = models.Compliance.objects.filter(pk=user).values_list("tier", flat=True).first()
        if tier is None:
            raise UserNotFound("no such customer")
        return tier

    def find(self, text: str) -> UserId | None:
        """The customer with this phone number or e-mail address, not locked."""
        try:
            known = Email.parse(text) if "@" in text else Phone.parse(text)
        except (InvalidEmail, InvalidPhone):
            return None
        id = models.User.objects.filter(**known_by(known), is_staff=False).values_list("id", flat=True).first()
        return None if id is None else UserId(id)

    def known(self, text: str) -> UserId | None:
        """The customer with this id, phone number or e-mail address, not locked; nobody of staff."""
        try:
            id = UUID(text)
        except ValueError:
            return self.find(text)
        is_one = models.User.objects.filter(pk=id, is_staff=False, profile__isnull=False).exists()
        return UserId(id) if is_one else None

    def remember_deriv_check(self, user: UserId, login: DerivLogin, *, at: datetime) -> None:
        """Joins the caller's unit of work: Deriv was asked about `login` at `at`, and it is as it was bound."""
        index = account_index(login.platform, login.account)
        models.DerivLogin.objects.filter(active_for_id=user, account_index=index, checked_at__lt=at).update(
            checked_at=at
        )


def _binding(
    id: bytes | None, platform: str, account: str, currency: str, name_matches: int, checked_at: Any
) -> tuple[DerivLogin | None, bool, datetime | None]:
    if id is None:
        return None, False, None
    plain = decrypt(account, f"deriv_logins.account|{UUID(bytes=bytes(id))}")
    return DerivLogin(DerivPlatform(platform), plain, currency), bool(name_matches), utc(checked_at)
