"""What the runtime user may do, as `migrate` grants it and the database holds it to."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection
from django.test import override_settings

from shared_kernel.infrastructure.append_only import append_only_tables
from shared_kernel.infrastructure.grants import rights_of, too_wide
from shared_kernel.tests.users import TWO_USERS, by_owner, migrating

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not TWO_USERS, reason="one user does everything here"),
]
KEPT = {"audit_logs", "ledger_accounts", "ledger_entries"}
# What was decided about them can be written.
PROPOSED = {"particulars_reveals", "reveals", "suspense_settlements", "treasury_movements"}


def run(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


def mine():
    with connection.cursor() as cursor:
        schema = connection.settings_dict["NAME"]
        return {table: rights for (_, table), rights in rights_of(cursor, schema).items()}


def test_tests_run_as_a_user_that_owns_nothing():
    assert set().union(*mine().values()) <= {"SELECT", "INSERT", "UPDATE", "DELETE"} | {
        f"UPDATE (`{column}`)" for columns in append_only_tables().values() for column in columns
    }
    assert "" not in mine()
    assert too_wide() == []


def test_rows_that_are_kept_for_ever_can_be_read_and_added_and_nothing_else():
    assert set(append_only_tables()) >= KEPT | {"domain_events"}
    assert [mine()[table] for table in KEPT] == [{"SELECT", "INSERT"}] * len(KEPT)


@pytest.mark.parametrize("table", sorted({*KEPT, "domain_events", *PROPOSED}))
@pytest.mark.parametrize(
    "sql", ["TRUNCATE TABLE {}", "DROP TABLE {}", "ALTER TABLE {} ADD COLUMN x INT", "DELETE FROM {}"]
)
def test_the_runtime_user_is_refused_by_its_rights_before_any_trigger(table, sql):
    with pytest.raises(DatabaseError) as refused:
        run(sql.format(table))

    assert refused.value.args[0] == 1142


@pytest.mark.parametrize("column", ["type", "payload", "seq", "occurred_at"])
def test_of_an_event_only_what_tells_of_its_delivery_can_be_written(column):
    with pytest.raises(DatabaseError) as refused:
        run(f"UPDATE domain_events SET {column} = {column}")
    run("UPDATE domain_events SET error = error, attempts = attempts + 1")

    assert refused.value.args[0] in {1142, 1143}


@pytest.mark.parametrize("sql", ["DROP TRIGGER ledger_entries_no_delete", "CREATE TABLE mine (id INT)", "FLUSH TABLES"])
def test_neither_triggers_nor_tables_are_the_runtime_users(sql):
    with pytest.raises(DatabaseError):
        run(sql)


@pytest.mark.parametrize(
    ("grant", "told"),
    [
        ("UPDATE ON {schema}.ledger_entries", "UPDATE on ledger_entries"),
        ("DROP ON {schema}.audit_logs", "DROP on audit_logs"),
        ("UPDATE (payload) ON {schema}.domain_events", "UPDATE (`payload`) on domain_events"),
        ("DELETE ON {schema}.*", "DELETE on `{schema}`.*"),
        ("SUPER ON *.*", "SUPER on *.*"),
    ],
)
def test_a_right_too_many_is_named(account, grant, told):
    schema = connection.settings_dict["NAME"]

    by_owner(f"GRANT {grant.format(schema=schema)} TO {account}")

    assert too_wide() == [told.format(schema=schema)]


def test_migrate_takes_back_what_is_too_much_and_gives_what_is_missing(account):
    schema = connection.settings_dict["NAME"]
    by_owner(
        f"GRANT UPDATE, DELETE, DROP ON {schema}.* TO {account}",
        f"GRANT DELETE ON {schema}.ledger_entries TO {account} WITH GRANT OPTION",
        f"REVOKE UPDATE ON {schema}.transactions FROM {account}",
    )

    with migrating():
        call_command("migrate", verbosity=0)

    assert too_wide() == []
    assert mine()["transactions"] == {"SELECT", "INSERT", "UPDATE", "DELETE"}


def test_a_table_that_is_added_gets_its_rights_by_the_next_migrate(account):
    by_owner("CREATE TABLE added (id INT PRIMARY KEY)")
    try:
        with migrating():
            call_command("migrate", verbosity=0)

        assert mine()["added"] == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    finally:
        by_owner("DROP TABLE added")


def test_what_the_migrating_user_may_not_take_away_is_told_to_an_administrator(account):
    def refuse(execute, sql, params, many, context):
        if sql.startswith("REVOKE"):
            raise OperationalError(1044, "Access denied")
        return execute(sql, params, many, context)

    by_owner(f"GRANT SUPER ON *.* TO {account}")

    with migrating(), connection.execute_wrapper(refuse), pytest.raises(ImproperlyConfigured) as stopped:
        call_command("migrate", verbosity=0)

    assert f"REVOKE SUPER ON *.* FROM {account};" in str(stopped.value)


def test_a_runtime_user_that_is_not_there_is_named_with_what_to_do(settings):
    nobody = settings.RUNTIME_DATABASE | {"USER": "nobody_yet"}

    with migrating(), override_settings(RUNTIME_DATABASE=nobody), pytest.raises(ImproperlyConfigured) as stopped:
        call_command("migrate", verbosity=0)

    assert "CREATE USER 'nobody_yet'@" in str(stopped.value)
    assert nobody["PASSWORD"] not in str(stopped.value)
