"""What the database itself refuses: append-only tables by triggers, and keys that Django's models cannot say.

A guard is a trigger or a key. `keep_installed` has an app's guards put back after every `migrate` (SQLite drops the
triggers of a table that a migration makes anew), `missing` lists those that are not there word for word as they should
be. Triggers refuse UPDATE and DELETE to everybody, REPLACE and ON DUPLICATE KEY UPDATE included. They do not see
TRUNCATE, DROP or ALTER on MySQL and MariaDB: `grants.py` sees to it that the runtime user may do neither. SQLite has no
users: whoever can open the file can drop a trigger, and a connection without `recursive_triggers` can REPLACE a row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate, pre_migrate

from shared_kernel.infrastructure.encryption import EncryptedField

BINARY_LOG_HINT = (
    "the database refuses to create triggers while its binary log is on (error 1419). As an administrator set\n"
    "    SET PERSIST log_bin_trust_function_creators = 1;        (MySQL)\n"
    "    SET GLOBAL log_bin_trust_function_creators = 1;         (MariaDB; and the same line in its option file)\n"
    "or put `log_bin_trust_function_creators = 1` below [mysqld] in the option file and restart, then migrate again."
)
TRIGGER_RIGHT_HINT = (
    "the migrating user may not create triggers. Grant it the right, then migrate again:\n"
    "    GRANT TRIGGER, REFERENCES ON <database>.* TO <the user of MIGRATION_DATABASE_URL>;"
)
UNSEEN_HINT = "triggers cannot be seen by this database user: set MIGRATION_DATABASE_URL for this command"
ACCOUNT = ("USER", "PASSWORD", "HOST", "PORT")


@dataclass(frozen=True)
class Trigger:
    """`body` is, for each vendor that needs it, what follows `CREATE TRIGGER name timing table` in its dialect."""

    name: str
    table: str
    event: str  # UPDATE, DELETE or INSERT
    body: Mapping[str, str]
    spares: tuple[str, ...] = ()  # columns that it lets be changed

    def sql(self, vendor: str) -> str:
        each_row = "FOR EACH ROW " if vendor == "mysql" else ""
        return f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table} {each_row}{self.body[vendor]}"


@dataclass(frozen=True)
class Key:
    """A foreign key over several columns, on MySQL and MariaDB; SQLite can't add one to a table that is there."""

    name: str
    table: str
    columns: tuple[str, ...]
    to_table: str
    to_columns: tuple[str, ...]

    def sql(self) -> str:
        here, there = ", ".join(self.columns), ", ".join(self.to_columns)
        return (
            f"ALTER TABLE {self.table} ADD CONSTRAINT {self.name} "
            f"FOREIGN KEY ({here}) REFERENCES {self.to_table} ({there})"
        )


Guard = Trigger | Key
_kept: list[Guard] = []


def append_only(model: type[models.Model], *, may_change: Sequence[str] = ()) -> list[Trigger]:
    """Triggers by which rows of `model` are never deleted and, but for the columns of `may_change`, never changed.

    An encrypted column keeps its text for ever, and may go from one key to another (ADR 0026): the trigger lets another
    key id with a text of the same length pass. The runtime user gets no right to it; `rotate_encryption_keys`, which
    looks whether the text is the same, works as the migrating user.
    """
    table = model._meta.db_table
    fixed = [field for field in model._meta.concrete_fields if field.column not in may_change]
    passes = bool(may_change) or any(isinstance(field, EncryptedField) for field in fixed)
    what = f"{table} is append-only"
    unchanged = {vendor: " AND ".join(_same(field, vendor) for field in fixed) for vendor in ("mysql", "sqlite")}
    changed = {vendor: f"NOT ({same})" for vendor, same in unchanged.items()} if passes else None
    return [
        Trigger(f"{table}_no_update", table, "UPDATE", refusal(what, changed), tuple(may_change)),
        Trigger(f"{table}_no_delete", table, "DELETE", refusal(what)),
    ]


def written_once(model: type[models.Model], column: str, *, may_change: Sequence[str]) -> Trigger:
    """A trigger by which a text that may change (`may_change` has all that may) changes from empty alone."""
    table, field = model._meta.db_table, model._meta.get_field(column)
    old = {"mysql": f"OLD.`{column}`", "sqlite": f"OLD.{column}"}
    written = {vendor: f"{name} <> '' AND NOT ({_same(field, vendor)})" for vendor, name in old.items()}
    refused = refusal(f"{column} of {table} is written once", written)
    return Trigger(f"{table}_{column}_once", table, "UPDATE", refused, tuple(may_change))


def refusal(message: str, when: Mapping[str, str] | None = None) -> dict[str, str]:
    """A trigger's body for each vendor of `when` (default: all, always) that refuses the row with `message`."""
    bodies = {}
    for vendor, condition in (when or {"mysql": "", "sqlite": ""}).items():
        if vendor == "mysql":
            signal = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}'"
            bodies[vendor] = f"BEGIN IF {condition} THEN {signal}; END IF; END" if condition else signal
        else:
            bodies[vendor] = f"{f'WHEN {condition} ' if condition else ''}BEGIN SELECT RAISE(ABORT, '{message}'); END"
    return bodies


def keep_installed(app: AppConfig, guards: Iterable[Guard]) -> None:
    """Installs `guards` after each `migrate`. For `AppConfig.ready`; tables that are not there yet are passed over."""
    mine = [guard for guard in guards if guard not in _kept]
    _kept.extend(mine)

    def before(using: str, **_: Any) -> None:
        if connections[using].vendor == "sqlite":  # it will not rename a table that a trigger elsewhere speaks of
            remove(mine, by=connections[using])

    def after(using: str, **_: Any) -> None:
        install(mine, by=connections[using])

    if mine:
        pre_migrate.connect(before, sender=app, weak=False)
        post_migrate.connect(after, sender=app, weak=False)


def install(guards: Iterable[Guard] | None = None, *, by: BaseDatabaseWrapper | None = None) -> None:
    """Creates those of `guards` (default: all that are kept) that are missing or differ; as the owner, unless `by` is.

    Raises `ImproperlyConfigured` that says what to set when the database refuses.
    """
    with as_owner(by) as owner, owner.cursor() as cursor:
        tables = set(owner.introspection.table_names(cursor))
        for guard in [guard for guard in _absent(guards, owner) if guard.table in tables]:
            try:
                if isinstance(guard, Trigger):
                    cursor.execute(f"DROP TRIGGER IF EXISTS {guard.name}")
                    cursor.execute(guard.sql(owner.vendor))
                else:
                    cursor.execute(guard.sql())
            except DatabaseError as refused:
                hints = {1419: BINARY_LOG_HINT, 1142: TRIGGER_RIGHT_HINT, 1227: TRIGGER_RIGHT_HINT}
                if refused.args and refused.args[0] in hints:
                    raise ImproperlyConfigured(hints[refused.args[0]]) from refused
                raise


def remove(guards: Iterable[Guard] | None = None, *, by: BaseDatabaseWrapper | None = None) -> None:
    """Drops the triggers among `guards` (default: all that are kept): for migrations on SQLite, and between tests."""
    with as_owner(by) as owner, owner.cursor() as cursor:
        for guard in _kept if guards is None else guards:
            if isinstance(guard, Trigger):
                cursor.execute(f"DROP TRIGGER IF EXISTS {guard.name}")


def missing(guards: Iterable[Guard] | None = None, *, by: BaseDatabaseWrapper | None = None) -> list[str]:
    """The names of those of `guards` (default: all that are kept) that are not there, or not word for word.

    Ends with `UNSEEN_HINT` when this database user has no right to see any trigger.
    """
    with as_owner(by) as owner:
        absent = _absent(guards, owner)
        names = [guard.name for guard in absent]
        if any(isinstance(guard, Trigger) for guard in absent) and not _sees_triggers(owner):
            return [*(guard.name for guard in absent if isinstance(guard, Key)), UNSEEN_HINT]
        return names


def append_only_tables() -> dict[str, tuple[str, ...]]:
    """The one list of the tables whose rows are kept for ever, each with the columns of it that may change.

    A table gets on it by `keep_installed(app, append_only(model))`; triggers, grants and tests go by it.
    """
    deleting = {guard.table for guard in _kept if isinstance(guard, Trigger) and guard.event == "DELETE"}
    updating = [guard for guard in _kept if isinstance(guard, Trigger) and guard.event == "UPDATE"]
    return {guard.table: guard.spares for guard in updating if guard.table in deleting}


@contextmanager
def as_owner(known: BaseDatabaseWrapper | None = None) -> Iterator[BaseDatabaseWrapper]:
    """`known`, or a connection of its own as the migrating user; where there is one user only, the usual one."""
    if known is not None or connection.vendor != "mysql" or not settings.TWO_DATABASE_USERS:
        yield known or connection
        return
    account = {name: settings.MIGRATION_DATABASE[name] for name in ACCOUNT}
    owner = type(connections[connection.alias])(connection.settings_dict | account, "owner")
    try:
        yield owner
    finally:
        owner.close()


def _same(field: Any, vendor: str) -> str:
    """The condition that a column is unchanged; texts by their bytes, for a collation may hold `a` and `A` equal."""
    if vendor == "sqlite":
        old, new = f"OLD.{field.column}", f"NEW.{field.column}"
        same = f"{old} IS {new}"
    else:
        old, new = f"OLD.`{field.column}`", f"NEW.`{field.column}`"
        text = isinstance(field, models.CharField | models.TextField)
        same = f"HEX({old}) <=> HEX({new})" if text else f"{old} <=> {new}"
    return f"({same} OR {_rekeyed(old, new)})" if isinstance(field, EncryptedField) else same


def _rekeyed(old: str, new: str) -> str:
    """The condition that both are ciphertexts of one length, under two keys; true or false, never NULL."""
    keys = [f"SUBSTR({value}, 4, INSTR(SUBSTR({value}, 4), '.'))" for value in (old, new)]
    bodies = [f"LENGTH({value}) - INSTR(SUBSTR({value}, 4), '.')" for value in (old, new)]
    sealed = [f"SUBSTR({value}, 1, 3) = 'v1.' AND INSTR(SUBSTR({value}, 4), '.') > 1" for value in (old, new)]
    both = f"{' AND '.join(sealed)} AND HEX({keys[0]}) <> HEX({keys[1]}) AND {bodies[0]} = {bodies[1]}"
    return f"COALESCE({both}, 0)"


def _absent(guards: Iterable[Guard] | None, owner: BaseDatabaseWrapper) -> list[Guard]:
    vendor = owner.vendor
    wanted = list(_kept if guards is None else guards)
    triggers, keys = _triggers_there(owner), _keys_there(owner)

    def is_there(guard: Guard) -> bool:
        if isinstance(guard, Key):
            return vendor != "mysql" or (guard.table, guard.name) in keys
        if vendor not in guard.body:
            return True
        if vendor == "sqlite":
            return triggers.get(guard.name) == guard.sql(vendor)
        return triggers.get(guard.name) == f"BEFORE {guard.event} {guard.table} {guard.body[vendor]}"

    return [guard for guard in wanted if not is_there(guard)]


def _triggers_there(owner: BaseDatabaseWrapper) -> dict[str, str]:
    with owner.cursor() as cursor:
        if owner.vendor == "sqlite":
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        else:
            cursor.execute(
                "SELECT trigger_name, CONCAT(action_timing, ' ', event_manipulation, ' ', event_object_table, ' ', "
                "action_statement) FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
            )
        return dict(cursor.fetchall())


def _keys_there(owner: BaseDatabaseWrapper) -> set[tuple[str, str]]:
    if owner.vendor == "sqlite":
        return set()
    with owner.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, constraint_name FROM information_schema.table_constraints "
            "WHERE constraint_schema = DATABASE() AND constraint_type = 'FOREIGN KEY'"
        )
        return set(cursor.fetchall())


def _sees_triggers(owner: BaseDatabaseWrapper) -> bool:
    if owner.vendor == "sqlite":
        return True
    with owner.cursor() as cursor:
        cursor.execute("SHOW GRANTS")
        grants = " ".join(row[0] for row in cursor.fetchall())
    return "TRIGGER" in grants or "ALL PRIVILEGES" in grants
