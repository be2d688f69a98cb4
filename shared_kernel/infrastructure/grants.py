"""What the runtime user may do in MySQL and MariaDB: read and add rows everywhere, change them where rows may change.

Each right is granted on a table and never above, so that it can be left out on one: a right on the whole database
cannot be taken back for a table. Whoever migrates grants anew after each `migrate`, so that a new table is never
forgotten; which tables are append-only, `append_only.py` knows. Neither DROP, ALTER nor TRIGGER is ever granted: what
triggers do not see (TRUNCATE, DROP, a dropped trigger) the runtime user cannot do.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from shared_kernel.infrastructure.append_only import ACCOUNT, append_only_tables

GRANT_OPTION = "GRANT OPTION"
READ_ONLY = frozenset({"django_migrations"})

Place: TypeAlias = tuple[str, str]  # schema (a pattern) and table; ("", "") the whole server, (schema, "") all of it
Rights: TypeAlias = dict[Place, set[str]]  # of a column: UPDATE (`error`)

_RIGHTS = """
    SELECT '', '', privilege_type, is_grantable FROM information_schema.user_privileges WHERE grantee = %s
    UNION ALL SELECT table_schema, '', privilege_type, is_grantable
        FROM information_schema.schema_privileges WHERE grantee = %s AND %s LIKE table_schema
    UNION ALL SELECT table_schema, table_name, privilege_type, is_grantable
        FROM information_schema.table_privileges WHERE grantee = %s AND table_schema = %s
    UNION ALL SELECT table_schema, table_name, CONCAT(privilege_type, ' (`', column_name, '`)'), is_grantable
        FROM information_schema.column_privileges WHERE grantee = %s AND table_schema = %s
"""


def wanted(schema: str, tables: Iterable[str]) -> Rights:
    """What the runtime user needs on each of `tables`, and all that it may have."""
    kept = append_only_tables()
    rights: Rights = {}
    for table in tables:
        mine = {"SELECT"} if table in READ_ONLY else {"SELECT", "INSERT"}
        if table in kept:
            mine |= {f"UPDATE (`{column}`)" for column in kept[table]}
        elif table not in READ_ONLY:
            mine |= {"UPDATE", "DELETE"}
        rights[schema, table] = mine
    return rights


def too_wide(runtime: BaseDatabaseWrapper | None = None) -> list[str]:
    """Rights that `runtime` (default: the usual connection) has and must not have, as `DELETE on ledger_entries`.

    Empty on SQLite, which has no users, and in development with one user for all.
    """
    known = runtime or connection
    if known.vendor != "mysql" or not (settings.TWO_DATABASE_USERS or settings.PRODUCTION):
        return []
    schema = known.settings_dict["NAME"]
    with known.cursor() as cursor:
        needed = wanted(schema, known.introspection.table_names(cursor))
        cursor.execute("SELECT role_name FROM information_schema.applicable_roles ORDER BY role_name")
        roles = [role for (role,) in cursor.fetchall()]
        extra = _without(rights_of(cursor, schema), needed)
    return [f"all that the role {role} may do" for role in roles] + [
        f"{right} on {table or _on((schema, table))}"
        for (schema, table), rights in sorted(extra.items())
        for right in sorted(rights)
    ]


def rights_of(cursor: Any, schema: str) -> Rights:
    """What the user of this cursor may do in `schema`, at each level; USAGE, which is nothing, left out."""
    account = _account(cursor)
    cursor.execute(_RIGHTS, [account, account, schema, account, schema, account, schema])
    rights: Rights = {}
    for where, table, right, grantable in cursor.fetchall():
        mine = rights.setdefault((where, table), set())
        mine |= {right} - {"USAGE"} | ({GRANT_OPTION} if grantable == "YES" else set())
    return {place: mine for place, mine in rights.items() if mine}


def grant_runtime(owner: BaseDatabaseWrapper) -> None:
    """As `owner`, gives the user of DATABASE_URL what it needs and takes away what is more.

    Raises `ImproperlyConfigured` that says what an administrator has to do where the owner may not.
    """
    if owner.vendor != "mysql" or not settings.TWO_DATABASE_USERS:
        return
    schema = str(owner.settings_dict["NAME"])
    with owner.cursor() as cursor, _runtime(owner) as runtime:
        needed, have, account = (
            wanted(schema, owner.introspection.table_names(cursor)),
            rights_of(runtime, schema),
            _account(runtime),
        )
        for place, rights in _without(needed, have).items():
            cursor.execute(f"GRANT {_listed(rights)} ON {_on(place)} TO {account}")
        for place, rights in _without(have, needed).items():
            with suppress(DatabaseError):  # what the owner may not take away is told below
                cursor.execute(f"REVOKE {_listed(rights)} ON {_on(place)} FROM {account}")
        left = _without(rights_of(runtime, schema), needed)
    if left:
        lines = [f"    REVOKE {_listed(rights)} ON {_on(place)} FROM {account};" for place, rights in left.items()]
        raise ImproperlyConfigured(
            "the user of DATABASE_URL may do more than it must, and the migrating user cannot take it away. As an "
            "administrator:\n" + "\n".join(lines) + "\nthen migrate again."
        )


@contextmanager
def _runtime(owner: BaseDatabaseWrapper) -> Iterator[Any]:
    """A cursor of the runtime user, in no database, for it may have no right to one yet."""
    known = {name: settings.RUNTIME_DATABASE[name] for name in ACCOUNT}
    runtime = type(owner)(owner.settings_dict | known | {"NAME": ""}, "runtime")
    try:
        runtime.ensure_connection()
    except DatabaseError as refused:
        raise ImproperlyConfigured(
            f"the user of DATABASE_URL, {known['USER']!r}, cannot sign in to get its rights. As an administrator\n"
            f"    CREATE USER '{known['USER']}'@'<its host>' IDENTIFIED BY '<its password>';\nthen migrate again."
        ) from refused
    try:
        with runtime.cursor() as cursor:
            yield cursor
    finally:
        runtime.close()


def _without(these: Rights, those: Rights) -> Rights:
    left = {place: rights - those.get(place, set()) for place, rights in these.items()}
    return {place: rights for place, rights in left.items() if rights}


def _account(cursor: Any) -> str:
    """Of the user whose cursor it is, as grants name it: 'penpay'@'%'."""
    cursor.execute("SELECT CURRENT_USER()")
    user, _, host = cursor.fetchone()[0].rpartition("@")
    return f"'{user}'@'{host}'"


def _listed(rights: Iterable[str]) -> str:
    return ", ".join(sorted(rights))


def _on(place: Place) -> str:
    schema, table = place
    return f"{f'`{schema}`' if schema else '*'}.{f'`{table}`' if table else '*'}"
