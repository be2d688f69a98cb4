"""Django system checks of staff's accounts, in production: none is a demo's, and no two share what is one person's.

With `check --deploy`, and before each `migrate`, which then stops: docker-compose starts nothing before it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import check_password
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connection

from identity import models
from identity.models import staff as staff_rows
from shared_kernel.infrastructure.encryption import DecryptionFailed

RESERVED = ("example.com", "example.org", "example.net", "example", "test", "invalid", "localhost")  # RFC 2606, 6761
TOLD = ("choose-your-own", "a long enough password")  # passwords that our own pages and tests name
MOST = 1000  # members of staff that are looked at


@register(Tags.security, deploy=True)
def before_deployment(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """For `check --deploy`."""
    return _found()


@register(Tags.database)
def before_migrating(app_configs: Any, databases: Sequence[str] | None, **_: Any) -> list[CheckMessage]:
    """For `migrate` and `check --database default`."""
    return _found() if databases and "default" in databases else []


def _found() -> list[CheckMessage]:
    if not settings.PRODUCTION:
        return []
    try:
        known = set(connection.introspection.table_names())
        if not {models.User._meta.db_table, staff_rows.StaffFactor._meta.db_table} <= known:
            return []  # nobody is there yet
        return list(_faults())
    except DatabaseError as away:
        return [
            Warning(
                f"staff's accounts can't be looked at: {type(away).__name__}",
                hint="Is DATABASE_URL right, and the database up?",
                id="identity.W001",
            )
        ]


def _faults() -> Iterator[CheckMessage]:
    staff = list(
        models.User.objects.filter(is_staff=True, is_active=True).select_related("staff_factor").order_by("pk")[:MOST]
    )
    secrets, hashes = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for row in staff:
        domain = _text(row, "email").rpartition("@")[2]
        if any(domain == reserved or domain.endswith(f".{reserved}") for reserved in RESERVED):
            yield _error(f"{row.username} is a demo's account: its e-mail address is at {domain}", "E001")
        if any(check_password(told, row.password) for told in TOLD):
            yield _error(f"{row.username} has a password that PenPay's own pages name", "E002")
        hashes[row.password].append(row.username)
        if secret := _text(getattr(row, "staff_factor", None), "secret"):
            secrets[secret].append(row.username)
    for shared, what in ((hashes, "password"), (secrets, "second factor")):
        for names in shared.values():
            if len(names) > 1:
                yield _error(f"{', '.join(names)} share one {what}", "E003")


def _text(row: Any, name: str) -> str:
    try:
        return str(getattr(row, name)) if row is not None else ""
    except DecryptionFailed:
        return ""


def _error(told: str, number: str) -> Error:
    return Error(
        told,
        hint="One person, one account: deactivate it (is_active), or have its owner enrol and choose anew.",
        id=f"identity.{number}",
    )
