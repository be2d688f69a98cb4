"""The initiators over Django: who is stopped, seen by each process when it stores an intent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection

from mpesa_integration import models
from shared_kernel.domain.ports import AuditLog, AuditRecord


@dataclass(frozen=True)
class DjangoInitiators:
    """Rows of `mpesa_initiators`: one without a row was never stopped. `name` is the one that the settings name."""

    audit: AuditLog
    name: Callable[[], str]
    seen: list[frozenset[str]] = field(default_factory=lambda: [frozenset()])

    def is_stopped(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM mpesa_initiators WHERE stopped_at IS NOT NULL")
            self.seen[0] = frozenset(name for (name,) in cursor.fetchall())
        return self.was_stopped()

    def was_stopped(self) -> bool:
        return self.name() in self.seen[0]

    def stop(self, why: str, *, at: datetime) -> None:
        row, _ = models.MpesaInitiator.objects.select_for_update().get_or_create(name=self.name())
        if row.stopped_at is None:
            row.stopped_at, row.why = at, why[:255]
            row.save(update_fields=["stopped_at", "why"])
            self._tell("stopped", row.name, "in use", why, at)
        self.seen[0] |= {row.name}

    def resume(self, why: str, *, at: datetime) -> bool:
        row = models.MpesaInitiator.objects.select_for_update().filter(name=self.name()).first()
        if row is None or row.stopped_at is None:
            return False
        row.stopped_at, row.why = None, ""
        row.save(update_fields=["stopped_at", "why"])
        self._tell("resumed", row.name, "stopped", why, at)
        self.seen[0] -= {row.name}
        return True

    def _tell(self, what: str, name: str, before: str, why: str, at: datetime) -> None:
        after = "stopped" if what == "stopped" else "in use"
        self.audit.append([AuditRecord(f"mpesa_initiator.{what}", "mpesa_initiator", name, at, before, after, why)])
