"""What lists of payments are narrowed by, without reading a table for the values."""

from datetime import timedelta
from typing import Any

from django.contrib import admin

from payments.domain.transaction import TransactionStatus, TransactionType
from payments.facade import BANDS, BreakKind, BreakStatus, Provider, now


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


class AgeFilter(StatusFilter):
    """By how long it has been lying there; what is settled has no age."""

    title = parameter_name = "age"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name, _ in BANDS]

    def queryset(self, request: Any, queryset: Any) -> Any:
        names = [name for name, _ in BANDS]
        if self.value() not in names:
            return queryset
        place = names.index(str(self.value()))
        lying = queryset.filter(settled_at=None)
        if place < len(BANDS) - 1:
            lying = lying.filter(found_at__gt=now() - timedelta(days=BANDS[place][1]))
        return lying.filter(found_at__lte=now() - timedelta(days=BANDS[place - 1][1])) if place else lying
