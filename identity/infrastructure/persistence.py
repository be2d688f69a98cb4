"""Identity's repositories over Django."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Model, Q

from identity import models
from identity.domain.contact import Address, Email
from identity.domain.device import Device
from identity.domain.kyc import Kyc, KycStatus
from identity.domain.ports import AccessClaims, SignedIn
from identity.domain.session import RefreshToken, Session, SessionEnded, SessionStanding
from identity.domain.user import AlreadyRegistered, ContactTaken, DerivBinding, DerivLoginTaken, User, UserNotFound
from shared_kernel.domain.identifiers import DeviceId, Phone, UserId
from shared_kernel.domain.ports import AuditLog, OutboxRepository
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.infrastructure.rows import same, utc


def phone_index(phone: Phone) -> str:
    """What a phone number is found by."""
    return blind_index("users.phone", phone.number)


def email_index(email: Email) -> str:
    """What an e-mail address is found by."""
    return blind_index("users.email", email.address)


def known_by(identifier: Phone | Email) -> dict[str, str]:
    """The filter that finds its user."""
    if isinstance(identifier, Phone):
        return {"phone_index": phone_index(identifier)}
    return {"email_index": email_index(identifier)}


def account_index(platform: DerivPlatform, account: str) -> str:
    """What a Deriv account is found by: nobody else can bind it."""
    return blind_index("deriv_logins.account", f"{platform}|{account.upper()}")


@dataclass(frozen=True)
class DjangoUserRepository:
    """`users`, `user_profile`, `user_address`, `user_compliance`, `devices`, `deriv_logins`."""

    outbox: OutboxRepository
    audit: AuditLog

    def get(self, id: UserId) -> User:
        row = (
            models.User.objects.select_for_update()
            .select_related("profile", "compliance", "deriv_login")
            .filter(pk=id)
            .first()
        )
        if row is None:
            raise UserNotFound("no such user")
        return to_domain(row, list(models.Device.objects.filter(user_id=id, revoked_at=None)))

    def password_of(self, identifier: Phone | Email) -> tuple[UserId, str] | None:
        customers = models.User.objects.filter(**known_by(identifier), is_active=True, is_staff=False)
        row = customers.values_list("id", "password").first()
        return None if row is None else (UserId(row[0]), row[1])

    def add(self, user: User) -> None:
        row = models.User(
            id=user.id,
            username=f"customer-{secrets.token_hex(12)}",
            password=user.password_hash,
            phone=user.phone.number if user.phone else "",
            phone_index=phone_index(user.phone) if user.phone else None,
            email=user.email.address if user.email else "",
            email_index=email_index(user.email) if user.email else None,
            created_at=user.created_at,
        )
        try:
            with transaction.atomic():  # a savepoint: the caller may still write an audit row
                row.save(force_insert=True)
        except IntegrityError:
            raise AlreadyRegistered("this phone number or e-mail address has an account: sign in instead") from None
        models.Profile(user_id=user.id, full_name=user.full_name, updated_at=user.created_at).save(force_insert=True)
        models.Compliance(user_id=user.id, kyc_status=user.kyc.status, tier=user.kyc.tier).save(force_insert=True)
        self._tell(user)

    def save(self, user: User) -> None:
        models.User.objects.filter(pk=user.id).update(
            password=user.password_hash,
            is_active=user.is_active,
            frozen_at=user.frozen_at,
            token_epoch=user.token_epoch,
            phone_verified_at=user.phone_verified_at,
            phone_changed_at=user.phone_changed_at,
            email_verified_at=user.email_verified_at,
            totp_removed_at=user.totp_removed_at,
            closed_at=user.closed_at,
            restricted_at=user.restricted_at,
            erase_after=user.erase_after,
        )
        if user.contacts_changed:
            self._save_contacts(user)
        models.Compliance.objects.filter(pk=user.id).update(
            kyc_status=user.kyc.status,
            kyc_status_at=user.kyc.status_at,
            kyc_expires_at=user.kyc.expires_at,
            tier=user.kyc.tier,
        )
        for device in sorted(user.devices, key=lambda device: device.revoked_at is None):  # freed slots first
            put(models.Device, device.id, {"user_id": user.id} | device_columns(device))
        if user.deriv_login is not None:
            save_binding(user.id, user.deriv_login)
        if user.renamed_at is not None:
            profile = models.Profile(user_id=user.id, full_name=user.full_name, updated_at=user.renamed_at)
            profile.save(force_update=True, update_fields=["full_name", "updated_at"])
        if user.moved_to is not None:
            address, since = user.moved_to
            columns = same(address, ADDRESS_COLUMNS)
            models.Address(id=new_id(), user_id=user.id, created_at=since, **columns).save(force_insert=True)
        self._tell(user)

    def address_of(self, id: UserId) -> Address | None:
        row = models.Address.objects.filter(user_id=id).order_by("-created_at", "-id").first()
        return None if row is None else Address(**same(row, ADDRESS_COLUMNS))

    def _save_contacts(self, user: User) -> None:
        """Phone and e-mail, if they are not what is stored; the row is locked."""
        row = models.User.objects.only("id", "phone_index", "email_index").get(pk=user.id)
        changed = []
        if row.phone_index != (index := phone_index(user.phone) if user.phone else None):
            row.phone, row.phone_index = user.phone.number if user.phone else "", index
            changed += ["phone", "phone_index"]
        if row.email_index != (index := email_index(user.email) if user.email else None):
            row.email, row.email_index = user.email.address if user.email else "", index
            changed += ["email", "email_index"]
        if changed:
            try:
                with transaction.atomic():
                    row.save(update_fields=changed)
            except IntegrityError:
                raise ContactTaken("this phone number or e-mail address belongs to an account") from None

    def had_devices(self, id: UserId) -> bool:
        return models.Device.objects.filter(user_id=id).exists()

    def is_device_of(self, identifier: Phone | Email | None, device: UUID, secret_hash: str) -> bool:
        columns = known_by(identifier) if identifier else {}
        named = {f"user__{column}": value for column, value in columns.items()}
        known = models.Device.objects.filter(**named, pk=device, secret_hash=secret_hash, revoked_at=None)
        return known.filter(user__is_active=True, user__is_staff=False).exists()

    def has_bound_another(self, id: UserId, platform: DerivPlatform, account: str) -> bool:
        logins = models.DerivLogin.objects.filter(user_id=id)
        return logins.exclude(account_index=account_index(platform, account)).exists()

    def holder_of(self, contact: Phone | Email) -> UserId | None:
        customers = models.User.objects.filter(**known_by(contact), is_staff=False)
        id = customers.values_list("id", flat=True).first()
        return None if id is None else UserId(id)

    def is_taken(self, contact: Phone | Email) -> bool:
        verified = "phone_verified_at" if isinstance(contact, Phone) else "email_verified_at"
        proven = Q(**{f"{verified}__isnull": False}) | Q(is_staff=True)
        return models.User.objects.filter(proven, **known_by(contact)).exists()

    def _tell(self, user: User) -> None:
        self.outbox.append(user.pull_events())
        self.audit.append(user.pull_notes())


ADDRESS_COLUMNS = ("line", "town", "county", "postal_code", "country")


def put(model: type[Model], id: UUID, columns: Mapping[str, Any]) -> None:
    """Updates the row or inserts it, under a lock that the caller holds."""
    if not model._default_manager.filter(pk=id).update(**columns):
        model._default_manager.create(pk=id, **columns)


def to_domain(row: models.User, devices: Sequence[models.Device]) -> User:
    """The aggregate, from rows loaded under the users row's lock. Staff have no profile and no standing."""
    profile, standing = getattr(row, "profile", None), getattr(row, "compliance", None)
    binding = getattr(row, "deriv_login", None)
    return User(
        id=UserId(row.id),
        phone=Phone(row.phone) if row.phone else None,
        email=Email(row.email) if row.email else None,
        full_name=profile.full_name if profile else "",
        password_hash=row.password,
        created_at=row.created_at,
        is_active=row.is_active,
        frozen_at=row.frozen_at,
        token_epoch=row.token_epoch,
        phone_verified_at=row.phone_verified_at,
        phone_changed_at=row.phone_changed_at,
        email_verified_at=row.email_verified_at,
        totp_removed_at=row.totp_removed_at,
        closed_at=row.closed_at,
        restricted_at=row.restricted_at,
        erase_after=row.erase_after,
        kyc=Kyc(KycStatus(standing.kyc_status), standing.tier, standing.kyc_status_at, standing.kyc_expires_at)
        if standing
        else Kyc(),
        devices=[device_to_domain(device) for device in devices],
        deriv_login=binding_to_domain(binding) if binding else None,
    )


def device_to_domain(row: models.Device) -> Device:
    return Device(id=DeviceId(row.id), **{name: getattr(row, name) for name in DEVICE_COLUMNS})


def device_columns(device: Device) -> dict[str, object]:
    return {name: getattr(device, name) for name in DEVICE_COLUMNS}


DEVICE_COLUMNS = (
    "client_id",
    "name",
    "platform",
    "secret_hash",
    "slot",
    "created_at",
    "last_seen_at",
    "revoked_at",
)


def binding_to_domain(row: models.DerivLogin) -> DerivBinding:
    """Without the token: it is stored once, and read only by what signs in with it."""
    return DerivBinding(
        id=row.id,
        platform=DerivPlatform(row.platform),
        account=row.account,
        currency=row.currency,
        full_name=row.full_name,
        name_matches=row.name_matches,
        expires_at=row.expires_at,
        bound_at=row.bound_at,
        checked_at=row.checked_at,
        revoked_at=row.revoked_at,
    )


def save_binding(user: UserId, binding: DerivBinding) -> None:
    """One active login a customer; a former one of the same customer is taken up again. Raises `DerivLoginTaken`."""
    if binding.revoked_at is not None:
        end_bindings(user, at=binding.revoked_at)
    elif binding.token is not None:
        index = account_index(binding.platform, binding.account)
        row = models.DerivLogin.objects.filter(account_index=index).first()
        if row is not None and row.user_id != user:
            raise DerivLoginTaken("this Deriv account is bound by another customer")
        end_bindings(user, at=binding.bound_at)
        row = row or models.DerivLogin(id=binding.id, user_id=user, account_index=index)
        row.active_for_id, row.revoked_at = user, None
        row.platform, row.account, row.currency = binding.platform, binding.account, binding.currency
        row.full_name, row.name_matches, row.token = binding.full_name, binding.name_matches, binding.token
        row.bound_at, row.checked_at = binding.bound_at, binding.checked_at
        row.refresh_token, row.expires_at = binding.refresh_token, binding.expires_at
        row.refreshed_at = row.refreshing_until = row.lost_at = None
        try:
            with transaction.atomic():
                row.save()
        except IntegrityError:  # both at the same moment: the unique index decides
            raise DerivLoginTaken("this Deriv account is bound by another customer") from None


def end_bindings(user: UserId, *, at: datetime) -> None:
    """The active one, if any, stays the customer's, but no longer receives; its tokens are forgotten."""
    models.DerivLogin.objects.filter(active_for_id=user).update(
        active_for=None, revoked_at=at, token="", refresh_token="", expires_at=None, refreshing_until=None
    )


@dataclass(frozen=True)
class DjangoSessionRepository:
    """`sessions` and `refresh_tokens`."""

    def alive(self, claims: AccessClaims, *, at: datetime) -> SignedIn | None:
        with connection.cursor() as cursor:  # on each request: by the ORM it takes five times as long
            cursor.execute(
                "SELECT s.stepped_up_at FROM sessions s "  # noqa: S608 - our own names
                "JOIN users u ON u.id = s.user_id JOIN devices d ON d.id = s.device_id "
                f"WHERE s.id = X'{claims.session_id.hex}' AND s.user_id = X'{claims.user_id.hex}' "
                f"AND s.device_id = X'{claims.device_id.hex}' AND s.expires_at > %s "
                "AND s.ended_at IS NULL AND d.revoked_at IS NULL AND u.is_active AND s.token_epoch = u.token_epoch",
                [connection.ops.adapt_datetimefield_value(at)],
            )
            found = cursor.fetchone()
        if found is None:
            return None
        user, device = UserId(claims.user_id), DeviceId(claims.device_id)
        return SignedIn(user, device, claims.session_id, utc(found[0]))

    def standing(self, id: UUID) -> SessionStanding:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT s.stepped_up_at, u.phone_changed_at, u.totp_removed_at, d.created_at, "  # noqa: S608 - our own names
                "EXISTS (SELECT 1 FROM devices o WHERE o.user_id = d.user_id "
                "AND (o.created_at < d.created_at OR o.created_at = d.created_at AND o.id < d.id)) "
                "FROM sessions s JOIN devices d ON d.id = s.device_id JOIN users u ON u.id = s.user_id "
                f"WHERE s.id = X'{id.hex}' AND s.ended_at IS NULL"
            )
            found = cursor.fetchone()
        if found is None:
            raise SessionEnded("sign in again")
        stepped_up_at, changed_at, removed_at, known_since, is_new = found
        since = [utc(at) for at in (changed_at, removed_at, known_since if is_new else None) if at is not None]
        return SessionStanding(utc(stepped_up_at), max((at for at in since if at is not None), default=None))

    def owner_of_token(self, hash: str) -> UserId | None:
        owner = models.RefreshToken.objects.filter(hash=hash).values_list("family__user_id", flat=True).first()
        return None if owner is None else UserId(owner)

    def of_token(self, hash: str) -> tuple[Session, RefreshToken] | None:
        row = models.RefreshToken.objects.select_for_update().select_related("family").filter(hash=hash).first()
        if row is None:
            return None
        token = RefreshToken(id=row.id, **{name: getattr(row, name) for name in TOKEN_COLUMNS})
        session = session_to_domain(row.family)
        session.tokens.append(token)
        return session, token

    def get(self, id: UUID) -> Session | None:
        row = models.Session.objects.select_for_update().filter(pk=id).first()
        return None if row is None else session_to_domain(row)

    def save(self, session: Session) -> None:
        put(models.Session, session.id, {name: getattr(session, name) for name in SESSION_COLUMNS})
        for token in session.tokens:
            columns = {name: getattr(token, name) for name in TOKEN_COLUMNS}
            put(models.RefreshToken, token.id, {"family_id": session.id} | columns)

    def end_those_of(self, devices: Collection[DeviceId], *, at: datetime, by: str) -> None:
        models.Session.objects.filter(device_id__in=devices, ended_at=None).update(ended_at=at, ended_by=by)

    def end_all(self, user: UserId, *, but: UUID | None = None, at: datetime, by: str) -> None:
        living = models.Session.objects.filter(user_id=user, ended_at=None)
        (living.exclude(pk=but) if but else living).update(ended_at=at, ended_by=by)


SESSION_COLUMNS = (
    "user_id",
    "device_id",
    "token_epoch",
    "created_at",
    "expires_at",
    "stepped_up_at",
    "password_tries",
    "ended_at",
    "ended_by",
)
TOKEN_COLUMNS = ("hash", "created_at", "expires_at", "used_at", "replaced_by")


def session_to_domain(row: models.Session) -> Session:
    return Session(id=row.id, **{name: getattr(row, name) for name in SESSION_COLUMNS})
