"""The test database belongs to the migrating user; the code under test connects as the runtime user."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection

from shared_kernel.infrastructure.append_only import ACCOUNT, as_owner

TWO_USERS = connection.vendor == "mysql" and settings.TWO_DATABASE_USERS


def become_owner() -> None:
    """From here on the usual connections are the migrating user's."""
    _become(settings.MIGRATION_DATABASE)


def become_runtime() -> None:
    """From here on the usual connections are the runtime user's."""
    _become(settings.RUNTIME_DATABASE)


@contextmanager
def migrating() -> Iterator[None]:
    """Inside, this process is one that migrates."""
    become_owner()
    try:
        yield
    finally:
        become_runtime()


def by_owner(*statements: str, off: bool = False) -> None:
    """Runs SQL as the migrating user; `off`: without foreign keys and checks, as a privileged attacker would."""
    with as_owner() as owner, owner.cursor() as cursor:
        for sql in (*SWITCHES[owner.vendor, 0], *statements, *SWITCHES[owner.vendor, 1]) if off else statements:
            cursor.execute(sql)


SWITCHES = {
    ("mysql", 0): ("SET FOREIGN_KEY_CHECKS = 0", "SET check_constraint_checks = 0"),
    ("mysql", 1): ("SET FOREIGN_KEY_CHECKS = 1", "SET check_constraint_checks = 1"),
    ("sqlite", 0): ("PRAGMA foreign_keys = 0", "PRAGMA ignore_check_constraints = 1"),
    ("sqlite", 1): ("PRAGMA foreign_keys = 1", "PRAGMA ignore_check_constraints = 0"),
}


def _become(known: dict[str, str]) -> None:
    if connection.vendor == "mysql":
        connection.close()
        connection.settings_dict.update({name: known[name] for name in ACCOUNT})
