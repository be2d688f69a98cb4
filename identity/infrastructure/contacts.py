"""What proves and protects a customer's contacts: one-time codes, authenticators, and notices of changes."""

from base64 import b32decode, b32encode
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from identity import models
from identity.domain.contact import Email
from identity.domain.notice import Notice, NoticeKind
from identity.domain.totp import TotpFactor, TotpTries, TotpUse
from identity.domain.verification import CHANNELS, Channel, OneTimeCode, Purpose, Target
from shared_kernel.domain.identifiers import Phone, UserId

VERIFICATION_TABLES: dict[Channel, type[models.PhoneVerification] | type[models.EmailVerification]] = {
    Channel.SMS: models.PhoneVerification,
    Channel.EMAIL: models.EmailVerification,
}


@dataclass(frozen=True)
class DjangoVerificationRepository:
    """`user_phone_verification` and `user_email_verification`: a code is in the table of its channel."""

    def open_one(self, user: UserId, purpose: Purpose, asker: str) -> OneTimeCode | None:
        for rows in _codes(user, purpose, asker):
            row = rows.filter(open=True).first()
            if row is not None:
                return code_to_domain(row)
        return None

    def made_since(self, user: UserId, purpose: Purpose, asker: str, since: datetime) -> Sequence[datetime]:
        made: list[datetime] = []
        for rows in _codes(user, purpose, asker):
            made += rows.filter(created_at__gt=since).values_list("created_at", flat=True)
        return made

    def was_sent_since(self, user: UserId, purpose: Purpose, asker: str, since: datetime) -> bool:
        made = [rows.filter(created_at__gt=since) for rows in _codes(user, purpose, asker)]
        return any(rows.filter(sent_at__isnull=False).exists() for rows in made)

    def forget_unsent(self, user: UserId, purpose: Purpose, asker: str) -> None:
        for rows in _codes(user, purpose, asker):
            rows.filter(sent_at=None).delete()

    def sent(self, id: UUID, target: Target, *, at: datetime) -> None:
        VERIFICATION_TABLES[Channel.of(target)]._default_manager.filter(pk=id).update(sent_at=at)

    def close_all(self, user: UserId) -> None:
        for table in VERIFICATION_TABLES.values():
            table._default_manager.filter(user_id=user, open=True).update(open=None)

    def save(self, code: OneTimeCode) -> None:
        columns = {name: getattr(code, name) for name in VERIFICATION_COLUMNS}
        columns["open"] = True if code.is_open else None
        table = VERIFICATION_TABLES[Channel.of(code.target)]
        if not table._default_manager.filter(pk=code.id).update(**columns):
            target = {"phone": code.target.number} if isinstance(code.target, Phone) else {"email": code.target.address}
            table(id=code.id, **target, **columns).save(force_insert=True)


def _codes(
    user: UserId, purpose: Purpose, asker: str
) -> Iterator[QuerySet[models.PhoneVerification] | QuerySet[models.EmailVerification]]:
    for channel in CHANNELS[purpose]:
        yield VERIFICATION_TABLES[channel]._default_manager.filter(user_id=user, purpose=purpose, asker=asker)


def code_to_domain(row: models.PhoneVerification | models.EmailVerification) -> OneTimeCode:
    target = Phone(row.phone) if isinstance(row, models.PhoneVerification) else Email(row.email)
    columns = {name: getattr(row, name) for name in VERIFICATION_COLUMNS}
    return OneTimeCode(id=row.id, target=target, **columns | {"purpose": Purpose(row.purpose)})


VERIFICATION_COLUMNS = (
    "user_id",
    "purpose",
    "asker",
    "code_hash",
    "created_at",
    "expires_at",
    "attempts",
    "consumed_at",
)


@dataclass(frozen=True)
class DjangoTotpRepository:
    """`totp_factors`."""

    def get(self, user: UserId) -> TotpFactor | None:
        row = models.TotpFactor.objects.filter(pk=user).first()
        if row is None:
            return None
        columns = {name: getattr(row, name) for name in TOTP_COLUMNS}
        tries = {use: TotpTries(**{name: getattr(row, f"{use}_{name}") for name in TRIES_COLUMNS}) for use in TotpUse}
        return TotpFactor(user_id=user, secret=b32decode(row.secret), tries=tries, **columns)

    def save(self, factor: TotpFactor) -> None:
        columns = {name: getattr(factor, name) for name in TOTP_COLUMNS}
        for use in TotpUse:
            tries = factor.tries.get(use, TotpTries())
            columns |= {f"{use}_{name}": getattr(tries, name) for name in TRIES_COLUMNS}
        models.TotpFactor(user_id=factor.user_id, secret=b32encode(factor.secret).decode(), **columns).save()

    def remove(self, user: UserId) -> None:
        models.TotpFactor.objects.filter(pk=user).delete()


TOTP_COLUMNS = ("created_at", "confirmed_at", "last_counter")
TRIES_COLUMNS = ("failures", "locks", "failed_at", "locked_until")  # of each `TotpUse`, behind its name


@dataclass(frozen=True)
class DjangoNoticeRepository:
    """`user_notices`."""

    def add(self, notice: Notice) -> None:
        models.Notice(
            id=notice.id,
            user_id=notice.user_id,
            kind=notice.kind,
            channel=Channel.of(notice.target),
            target=notice.target.number if isinstance(notice.target, Phone) else notice.target.address,
            created_at=notice.created_at,
        ).save(force_insert=True)

    def unsent(self, ids: Collection[UUID]) -> Sequence[Notice]:
        rows = models.Notice.objects.filter(pk__in=ids, sent_at=None).order_by("pk")
        return [notice_to_domain(row) for row in rows]

    def sent(self, notice: Notice, *, at: datetime) -> None:
        models.Notice.objects.filter(pk=notice.id).update(sent_at=at, target="")


def notice_to_domain(row: models.Notice) -> Notice:
    target: Target = Phone(row.target) if row.channel == Channel.SMS else Email(row.target)
    return Notice(
        id=row.id, user_id=UserId(row.user_id), kind=NoticeKind(row.kind), target=target, created_at=row.created_at
    )
