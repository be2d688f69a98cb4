"""What lists of payments are narrowed by, without reading a table for the values."""

from datetime import timedelta
from typing import Any, ClassVar

from django.contrib import admin

from payments.domain.transaction import TransactionStatus, TransactionType
from payments.facade import BANDS, BreakKind, BreakStatus, Provider, now, queries


class StatusFilter(admin.SimpleListFilter):
    """By status, without reading the table for the values."""

    title = parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(status), str(status)) for status in TransactionStatus]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(status=self.value()) if self.value() else queryset


class TypeFilter(StatusFilter):
    """By type."""

    title = parameter_name = "type"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(kind), str(kind)) for kind in TransactionType]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(type=self.value()) if self.value() else queryset


class ProviderFilter(StatusFilter):
    """By provider."""

    title = parameter_name = "provider"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(provider), str(provider)) for provider in Provider]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(provider=self.value()) if self.value() else queryset


class KindFilter(StatusFilter):
    """By kind of break."""

    title = parameter_name = "kind"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(kind), str(kind)) for kind in BreakKind]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(kind=self.value()) if self.value() else queryset


class BreakStatusFilter(StatusFilter):
    """By status of the break."""

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(status), str(status)) for status in BreakStatus]


class ReasonFilter(StatusFilter):
    """By why it stands before a person; the commonest reasons, with how many wait for each."""

    title, parameter_name = "why a person", "reason"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(reason, f"{reason} ({count})") for reason, count in queries.attention_reasons()]

    def queryset(self, request: Any, queryset: Any) -> Any:
        waits = {"status": TransactionStatus.NEEDS_ATTENTION, "failure_code": self.value()}
        return queryset.filter(**waits) if self.value() else queryset


class WaitsFilter(StatusFilter):
    """By whether a proposal was decided about."""

    title = parameter_name = "decided"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in ("waits", "approved", "rejected")]

    def queryset(self, request: Any, queryset: Any) -> Any:
        match self.value():
            case "waits":
                return queryset.filter(approved_at=None, rejected_at=None)
            case "approved":
                return queryset.filter(approved_at__isnull=False)
            case "rejected":
                return queryset.filter(rejected_at__isnull=False)
        return queryset


class AgeFilter(StatusFilter):
    """By how long it has been lying there; what is settled has no age."""

    title = parameter_name = "age"
    since: ClassVar[str] = "found_at"
    waits: ClassVar[dict[str, Any]] = {"settled_at": None}

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name, _ in BANDS]

    def queryset(self, request: Any, queryset: Any) -> Any:
        names = [name for name, _ in BANDS]
        if self.value() not in names:
            return queryset
        place = names.index(str(self.value()))
        lying, at = queryset.filter(**self.waits), now()
        if place < len(BANDS) - 1:
            lying = lying.filter(**{f"{self.since}__gt": at - timedelta(days=BANDS[place][1])})
        return lying.filter(**{f"{self.since}__lte": at - timedelta(days=BANDS[place - 1][1])}) if place else lying


class AttentionAgeFilter(AgeFilter):
    """By how long it has stood before a person as it is; a verdict, or a late answer, starts it anew."""

    title = "waits for a person"
    since, waits = "updated_at", {"status": TransactionStatus.NEEDS_ATTENTION}
