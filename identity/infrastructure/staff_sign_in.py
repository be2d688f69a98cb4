"""What staff's sign-in asks of the database: names, factors, recovery codes, and counted tries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection

from identity import models
from identity.domain.staff_sign_in import Factor, StaffMember, Tries
from identity.models import staff as rows
from shared_kernel.domain.identifiers import UserId
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import new_id

KEPT = timedelta(days=1)  # a row of tries that nobody added to
CLEARED_AT_ONCE = 100


@dataclass(frozen=True)
class DjangoStaffDirectory:
    """`users`, staff alone."""

    def named(self, name: str) -> StaffMember | None:
        try:
            row = models.User.objects.get_by_natural_key(name)
        except models.User.DoesNotExist:
            return None
        if not row.is_active:
            return None
        return StaffMember(id=UserId(row.id), name=row.username, password_hash=row.password)


@dataclass(frozen=True)
class DjangoFactorRepository:
    """`staff_factors`, `staff_recovery_codes`."""

    def of(self, user: UserId) -> Factor | None:
        models.User.objects.select_for_update().only("pk").get(pk=user)
        row = rows.StaffFactor.objects.filter(user_id=user).first()
        if row is None:
            return None
        return Factor(
            id=row.id,
            user_id=user,
            secret=row.secret,
            created_at=row.created_at,
            confirmed_at=row.confirmed_at,
            last_step=row.last_step,
        )

    def confirmed(self, user: UserId) -> UUID | None:
        found = rows.StaffFactor.objects.filter(user_id=user, confirmed_at__isnull=False)
        id: UUID | None = found.values_list("pk", flat=True).first()
        return id

    def save(self, factor: Factor) -> None:
        rows.StaffFactor.objects.filter(pk=factor.id).update(
            confirmed_at=factor.confirmed_at, last_step=factor.last_step
        )

    def replace(self, factor: Factor) -> None:
        self.remove(factor.user_id)
        row = rows.StaffFactor(id=factor.id, user_id=factor.user_id, secret=factor.secret, created_at=factor.created_at)
        row.save(force_insert=True)

    def remove(self, user: UserId) -> None:
        rows.StaffRecoveryCode.objects.filter(factor__user_id=user).delete()
        rows.StaffFactor.objects.filter(user_id=user).delete()

    def replace_recovery_codes(self, factor: UUID, hashes: Sequence[str]) -> None:
        rows.StaffRecoveryCode.objects.filter(factor_id=factor).delete()
        rows.StaffRecoveryCode.objects.bulk_create(
            rows.StaffRecoveryCode(factor_id=factor, hash=hash) for hash in hashes
        )

    def spend_recovery_code(self, factor: UUID, hash: str, *, at: datetime) -> bool:
        left = rows.StaffRecoveryCode.objects.filter(factor_id=factor, hash=hash, used_at=None)
        return left.update(used_at=at) == 1


@dataclass(frozen=True)
class DjangoSignInTries:
    """`staff_sign_in_tries`."""

    def of(self, keys: Sequence[str], *, at: datetime) -> Mapping[str, Tries]:
        self._clear(before=at - KEPT)
        known = {_hash(key): key for key in keys}
        aimed = connection.features.supports_update_conflicts_with_target
        rows.StaffSignInTries.objects.bulk_create(  # an upsert locks what it finds at once; INSERT IGNORE would share
            [rows.StaffSignInTries(id=new_id(), key=hash, count=0, last_at=at) for hash in sorted(known)],
            update_conflicts=True,
            update_fields=["key"],
            unique_fields=["key"] if aimed else None,
        )
        found = rows.StaffSignInTries.objects.select_for_update().filter(key__in=known).order_by("key")
        return {known[row.key]: Tries(count=row.count, last_at=row.last_at) for row in found}

    def save(self, tries: Mapping[str, Tries]) -> None:
        for key, counted in tries.items():  # two at most
            rows.StaffSignInTries.objects.filter(key=_hash(key)).update(count=counted.count, last_at=counted.last_at)

    def forget(self, keys: Sequence[str]) -> None:
        rows.StaffSignInTries.objects.filter(key__in=[_hash(key) for key in keys]).delete()

    def _clear(self, *, before: datetime) -> None:
        old = rows.StaffSignInTries.objects.filter(last_at__lt=before).values_list("pk", flat=True)
        if stale := list(old[:CLEARED_AT_ONCE]):
            rows.StaffSignInTries.objects.filter(pk__in=stale, last_at__lt=before).delete()


def _hash(key: str) -> str:
    return blind_index("staff_sign_in_tries.key", key)
