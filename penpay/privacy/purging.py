"""What has outlived its retention, from all contexts: never ledger, audit log, money's keys, or what the law keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.sessions.models import Session
from django.db.models import QuerySet

from identity.facade import EXPIRED, erasure
from penpay.privacy.ties import AllTies
from shared_kernel.facade import Expired, expired_counters, expired_keys, rows_of

PAGE = 500


@dataclass(frozen=True)
class Purge:
    """One reason to delete: its name, how many rows it has now, and what deletes some of them (0: none is left)."""

    name: str
    count: Callable[[], int]
    purge_some: Callable[[], int]


def purges() -> list[Purge]:
    """All of them, in the order in which they run."""
    forgetting = erasure(AllTies())
    return [
        *(
            Purge(one.name, one.count, one.purge_some)
            for one in (*EXPIRED, STAFF_SESSIONS, expired_keys, expired_counters)
        ),
        Purge("aml_records", forgetting.overdue, lambda: forgetting.finish(PAGE)),
    ]


def kept_by_law() -> int:
    """Erased customers of whom something is kept until its retention ends."""
    return erasure(AllTies()).records.restricted()


def documents_overdue() -> int:
    """Those of them whose retention has ended, but whose identity documents nothing can delete yet."""
    return erasure(AllTies()).waiting()


def _old_staff_sessions(before: datetime) -> "QuerySet[Session]":
    return Session.objects.filter(expire_date__lt=before)


STAFF_SESSIONS = Expired("staff_sessions", _old_staff_sessions, rows_of(Session))
