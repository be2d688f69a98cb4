"""What the database refuses of the ledger by itself, whatever code is above it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction

from shared_kernel.infrastructure import append_only
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.tests.users import by_owner
from wallet.facade import entries_of, ledger, verify_ledger
from wallet.infrastructure.guards import GUARDS
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerEntry
from wallet.tests.factories import AT, DERIV, SUSPENSE, a_received_deposit, kes, post, send

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = [str(field.column) for field in LedgerEntry._meta.concrete_fields if field.column != "seq"]


@pytest.fixture
def posted(db):
    """Some entries, the first of them as column: value."""
    forget_accounts()
    deposit, customer = a_received_deposit(kes(1300))
    post(
        lambda: send(deposit, customer, kes(1300)),
        lambda: ledger.post_opening(SUSPENSE, kes(1), reference="suspense", at=AT),
    )
    return row_of(entries_of(deposit)[0].seq)


def run(sql, *parameters):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def row_of(seq):
    return dict(
        zip(COLUMNS, run(f"SELECT {', '.join(COLUMNS)} FROM ledger_entries WHERE seq = %s", seq)[0], strict=True)
    )


def insert(row, **changed):
    row = row | {"id": new_id().bytes, "reference": str(new_id()), "provider_key": None} | changed
    marks = ", ".join(
        "_binary %s" if isinstance(v, bytes) and connection.vendor == "mysql" else "%s" for v in row.values()
    )
    return run(f"INSERT INTO ledger_entries ({', '.join(row)}) VALUES ({marks})", *row.values())


def test_an_entry_that_is_right_is_taken(posted):
    assert insert(posted) == 1


@pytest.mark.parametrize("column", [field.column for field in LedgerEntry._meta.concrete_fields])
def test_no_column_of_an_entry_can_be_changed(posted, column):
    with pytest.raises(DatabaseError):
        run(f"UPDATE ledger_entries SET {column} = {column}")


@pytest.mark.parametrize("table", ["ledger_entries", "ledger_accounts"])
def test_nothing_can_be_deleted(posted, table):
    with pytest.raises(DatabaseError):
        run(f"DELETE FROM {table}")


def test_an_account_cannot_change_its_currency(posted):
    with pytest.raises(DatabaseError):
        run("UPDATE ledger_accounts SET currency = 'USD'")


def test_an_entry_cannot_be_replaced(posted):
    with pytest.raises(DatabaseError):
        run("REPLACE INTO ledger_entries SELECT * FROM ledger_entries")


@pytest.mark.parametrize("amount", [0, -1])
def test_an_amount_that_is_not_positive_is_refused(posted, amount):
    with pytest.raises(DatabaseError):
        insert(posted, amount=amount)


def test_an_entry_within_one_account_is_refused(posted):
    with pytest.raises(DatabaseError):
        insert(posted, debit_account_id=posted["credit_account_id"])


@pytest.mark.parametrize(
    "changed",
    [
        {"currency": "USD"},
        {"currency": "EUR"},
        {"debit_account_id": DERIV.id.bytes},
        {"credit_account_id": DERIV.id.bytes},
        {"debit_account_id": bytes(16)},
    ],
)
def test_accounts_of_another_currency_or_none_are_refused(posted, changed):
    with pytest.raises(DatabaseError):
        insert(posted, **changed)


def test_a_reference_is_in_the_ledger_once(posted):
    with pytest.raises(DatabaseError):
        insert(posted, reference=posted["reference"])


def test_a_provider_key_is_in_the_ledger_once(posted):
    with pytest.raises(DatabaseError):
        insert(posted, provider_key=posted["provider_key"])


def mirror(row):
    return {"debit_account_id": row["credit_account_id"], "credit_account_id": row["debit_account_id"]}


def test_an_entry_is_reversed_once_and_must_exist(posted):
    assert insert(posted, reverses=posted["id"], **mirror(posted)) == 1
    with pytest.raises(DatabaseError):
        insert(posted, reverses=posted["id"], **mirror(posted))
    with pytest.raises(DatabaseError):
        insert(posted, reverses=new_id().bytes, **mirror(posted))


@pytest.mark.parametrize(
    "changed",
    [
        lambda row: {},
        lambda row: mirror(row) | {"amount": row["amount"] - 1},
        lambda row: mirror(row) | {"amount": row["amount"] + 1},
        lambda row: mirror(row) | {"credit_account_id": SUSPENSE.id.bytes},
        lambda row: mirror(row) | {"debit_account_id": SUSPENSE.id.bytes},
    ],
    ids=["the same way round", "of less", "of more", "from another account", "to another account"],
)
def test_a_reversal_that_does_not_mirror_its_entry_is_refused(posted, changed):
    with pytest.raises(DatabaseError, match="mirrors"):
        insert(posted, reverses=posted["id"], **changed(posted))


def test_an_entry_does_not_reverse_itself(posted):
    itself = new_id().bytes
    with pytest.raises(DatabaseError):
        insert(posted, id=itself, reverses=itself)


@pytest.mark.parametrize("sql", ["UPDATE ledger_balances SET credit_balance = -1 WHERE slot = 0"])
def test_an_in_transit_balance_below_zero_is_refused(posted, sql):
    with pytest.raises(DatabaseError):
        run(sql)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
@pytest.mark.django_db(transaction=True)
def test_each_refusal_that_is_missing_is_reported_and_put_back_by_migrate(guard):
    if guard not in active():
        pytest.skip("not of this database")
    remove(guard)

    found = [(finding.check, finding.row) for finding in verify_ledger().findings]

    assert found == [("guards", guard.name)]
    append_only.install()
    assert verify_ledger().findings == []


@pytest.mark.django_db(transaction=True)
def test_a_trigger_that_was_altered_is_reported_and_put_back():
    body = "FOR EACH ROW SET NEW.amount = NEW.amount" if connection.vendor == "mysql" else "BEGIN SELECT 1; END"
    by_owner(
        "DROP TRIGGER ledger_entries_no_update",
        f"CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries {body}",
    )

    assert append_only.missing() == ["ledger_entries_no_update"]
    append_only.install()
    assert append_only.missing() == []


@pytest.mark.skipif(connection.vendor == "sqlite", reason="this is SQLite")
@pytest.mark.parametrize("names", [("refusals", "posting"), ("attacks",), ("as_of", "rebuilding")], ids=" ".join)
def test_the_same_holds_on_sqlite(tmp_path, names):
    environment = os.environ | {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'penpay.sqlite3'}",
        "MIGRATION_DATABASE_URL": "",
    }
    these = [f"wallet/tests/test_{name}.py" for name in names] + ["shared_kernel/tests/test_append_only.py"]

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *these],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]


def active():
    return [guard for guard in GUARDS if is_here(guard)]


def is_here(guard):
    if isinstance(guard, append_only.Key):
        return connection.vendor == "mysql"
    return connection.vendor in guard.body


def remove(guard):
    if isinstance(guard, append_only.Key):
        by_owner(f"ALTER TABLE {guard.table} DROP FOREIGN KEY {guard.name}")
    else:
        append_only.remove([guard])
