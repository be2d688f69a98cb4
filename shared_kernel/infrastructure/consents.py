"""Consents over Django: a table of a kind of them has a column for each field, with the field's name."""

from dataclasses import dataclass, fields
from typing import Generic
from uuid import UUID

from shared_kernel.domain.four_eyes import C, ConsentNotFound
from shared_kernel.infrastructure.rows import same
from shared_kernel.models import Consented

MAY_CHANGE = ("approved_by", "approved_at", "used_at")
OF_DRAFTS = ("by", *MAY_CHANGE)  # `by` once, from a draft on


@dataclass(frozen=True)
class DjangoConsents(Generic[C]):
    """Joins the caller's unit of work."""

    model: type[Consented]
    kind: type[C]

    def add(self, consent: C) -> None:
        self.model(**same(consent, self._names)).save(force_insert=True)

    def get(self, id: UUID) -> C:
        row = self.model._default_manager.select_for_update().filter(pk=id).first()
        if row is None:
            raise ConsentNotFound(f"nobody asked for {id}")
        return self._consent(row)

    def newest(self, **about: object) -> C | None:
        row = self.model._default_manager.filter(**about).order_by("-at", "-pk").first()
        return None if row is None else self._consent(row)

    def used(self, **about: object) -> list[C]:
        rows = self.model._default_manager.filter(used_at__isnull=False, **about).order_by("at", "pk")
        return [self._consent(row) for row in rows]

    def save(self, consent: C) -> None:
        changed = OF_DRAFTS if "drafted_by" in self._names else MAY_CHANGE
        self.model._default_manager.filter(pk=consent.id).update(**same(consent, changed))

    @property
    def _names(self) -> list[str]:
        return [field.name for field in fields(self.kind)]

    def _consent(self, row: Consented) -> C:
        return self.kind(**same(row, self._names))
