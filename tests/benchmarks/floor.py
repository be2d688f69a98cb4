"""What the floors share: the same rows in the same commits by hand-written SQL, and nothing else.

No HTTP, no Celery, no provider, no read, no Python objects: each of 16 connections writes one Transaction after the
other, one statement a round trip. The rows are those of a real one, read back from the database, with new ids: the same
tables, columns and widths. Encrypted columns, blind indexes and hashes are copied, not computed. Two processes or more
run the connections, so that one interpreter is not the limit.

Which commits these are is said by `floor_deposit` and `floor_withdrawal`.
"""

import multiprocessing
import os
import secrets
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import MySQLdb
from uuid_utils.compat import uuid7

from shared_kernel.domain.money import Currency
from wallet.domain.ledger import Account, AccountKind

CONNECTIONS, PROCESSES = 16, 4
Row = dict[str, Any]
TABLES = {  # how a Transaction's rows are found, and in which order they were written
    "transactions": ("id = %(id)s", "id"),
    "idempotency_keys": ("result = %(id)s", "id"),
    "float_reservations": ("transaction_id = %(id)s", "transaction_id"),
    "mpesa_requests": ("transaction_id = %(id)s", "id"),
    "mpesa_callbacks": ("request_id IN (SELECT id FROM mpesa_requests WHERE transaction_id = %(id)s)", "id"),
    "deriv_transfers": ("transaction_id = %(id)s", "id"),
    "ledger_entries": ("transaction_id = %(id)s", "seq"),
    "domain_events": ("aggregate_id = %(id)s", "seq"),
    "audit_logs": ("target_id = %(text)s", "seq"),
}
THE_DATABASES_OWN = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() "
    "AND (extra LIKE '%%auto_increment%%' OR extra LIKE '%%GENERATED%%')"
)


@dataclass(frozen=True)
class Model:
    """The rows of one real Transaction by table, in the order in which they were written; what the database fills by
    itself is left out.
    """

    rows: dict[str, list[dict[str, Any]]]
    in_transit: dict[str, dict[str, Any]]  # the customer's rows of ledger_accounts, by currency
    house: dict[bytes, str] = field(default_factory=dict)  # the other accounts that it changes, and their kind


def model(connection: Any, transaction: bytes) -> Model:
    """Reads back the Transaction with this id."""
    names = {"id": transaction, "text": str(UUID(bytes=transaction))}
    cursor = connection.cursor(MySQLdb.cursors.DictCursor)
    cursor.execute(THE_DATABASES_OWN, {})
    own = {tuple(row.values()) for row in cursor.fetchall()}
    found: dict[str, list[dict[str, Any]]] = {}
    for table, (condition, order) in TABLES.items():
        cursor.execute(f"SELECT * FROM {table} WHERE {condition} ORDER BY {order}", names)
        found[table] = [
            {name: value for name, value in row.items() if (table, name) not in own} for row in cursor.fetchall()
        ]
    entries = found["ledger_entries"]
    ids = {entry[side] for entry in entries for side in ("debit_account_id", "credit_account_id")}
    cursor.execute(f"SELECT * FROM ledger_accounts WHERE id IN ({', '.join(['%s'] * len(ids))})", list(ids))
    accounts = list(cursor.fetchall())
    in_transit = {a["currency"]: a for a in accounts if a["kind"] == "customer_in_transit"}
    house = {a["id"]: a["kind"] for a in accounts if a["kind"] != "customer_in_transit"}
    return Model(found, in_transit, house)


def run(options: Mapping[str, Any], known: Model, writer: "type[Writer]", quotes: Sequence[tuple[bytes, str]]) -> float:
    """Seconds for one Transaction for each quote (its id and its user's), over `CONNECTIONS` connections.

    Raises `AssertionError` if they wrote other rows than as many real ones do; nobody else may write meanwhile.
    """
    before = counts(options)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES + 1)
    each = [
        context.Process(
            target=_process, args=(dict(options), known, writer, list(quotes[n::PROCESSES]), barrier, n), daemon=True
        )
        for n in range(PROCESSES)
    ]
    for process in each:
        process.start()
    barrier.wait(60)
    began = time.perf_counter()
    for process in each:
        process.join()
    took = time.perf_counter() - began
    assert all(process.exitcode == 0 for process in each), "the floor's processes failed"
    more = {table: count - before[table] for table, count in counts(options).items()}
    wanted = {table: len(quotes) * len(known.rows[table]) for table in TABLES}
    assert more == wanted, f"the floor wrote {more}, the real ones {wanted}"
    return took


def counts(options: Mapping[str, Any]) -> dict[str, int]:
    """How many rows each table has."""
    with closing(MySQLdb.connect(**options)) as connection:
        cursor, found = connection.cursor(), {}
        for table in TABLES:
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            found[table] = int(cursor.fetchone()[0])
        return found


def _process(
    options: dict[str, Any],
    known: Model,
    kind: "type[Writer]",
    quotes: list[tuple[bytes, str]],
    barrier: Any,
    number: int,
) -> None:
    threads = CONNECTIONS // PROCESSES
    writers = [kind(MySQLdb.connect(**options), known, 1 + number * threads + n) for n in range(threads)]

    def work(writer: Writer, part: Sequence[tuple[bytes, str]]) -> None:
        try:
            for quote, user in part:
                writer.write(quote, user)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)  # its open transaction would hold up all the others

    running = [threading.Thread(target=work, args=(writer, quotes[n::threads])) for n, writer in enumerate(writers)]
    barrier.wait(60)
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


class Writer(ABC):
    """One connection, and the statements of a Transaction. `slot` is its own among those of the house's balances."""

    def __init__(self, connection: Any, known: Model, slot: int) -> None:
        self.connection, self.known, self.slot = connection, known, slot
        self.cursor = connection.cursor()
        self.inserts = {table: self._insert_of(table, rows[0]) for table, rows in known.rows.items() if rows} | {
            "ledger_accounts": self._insert_of("ledger_accounts", next(iter(known.in_transit.values())))
        }

    @abstractmethod
    def write(self, quote: bytes, user: str) -> None:
        """All of one Transaction, in its commits."""

    # --- statements ---------------------------------------------------------------------------------------------------

    def _insert_of(self, table: str, row: Row) -> tuple[str, list[str]]:
        names = list(row)
        columns = ", ".join(f"`{name}`" for name in names)
        verb = "INSERT IGNORE" if table == "ledger_accounts" else "INSERT"
        return f"{verb} INTO {table} ({columns}) VALUES ", names

    def insert(self, table: str, *rows: Row) -> None:
        """Rows of one table; one statement."""
        head, names = self.inserts[table]
        places = "(" + ", ".join(["%s"] * len(names)) + ")"
        values = [row[name] for row in rows for name in names]
        self.cursor.execute(head + ", ".join([places] * len(rows)), values)

    def execute(self, sql: str, *values: Any) -> None:
        """One statement."""
        self.cursor.execute(sql, values)

    def change(self, table: str, id: bytes, **columns: Any) -> None:
        """One row by its primary key."""
        changes = ", ".join(f"{name} = %s" for name in columns)
        self.execute(f"UPDATE {table} SET {changes} WHERE id = %s", *columns.values(), id)

    # --- what every Transaction does ----------------------------------------------------------------------------------

    def audits(self, id: bytes) -> list[Row]:
        """Its audit rows."""
        return [row | {"target_id": str(UUID(bytes=id))} for row in self.known.rows["audit_logs"]]

    def events(self, id: bytes) -> list[Row]:
        """Its outbox rows, not published."""
        own: dict[str, Any] = {"aggregate_id": id, "published_at": None}
        return [row | own | {"id": uuid7().bytes} for row in self.known.rows["domain_events"]]

    def begin(self, user: str, transaction: Row, *, scope: str) -> None:
        """The POST: key, quote, Transaction, and the float that is reserved."""
        rows, id, quote = self.known.rows, transaction["id"], transaction["quote_id"]
        key: dict[str, Any] = {"scope": f"{user}:{scope}", "key": secrets.token_hex(18), "result": id}
        self.insert("idempotency_keys", rows["idempotency_keys"][0] | key)
        self.execute("UPDATE quotes SET transaction_id = %s WHERE id = %s", id, quote)
        new = {"status": "CREATED", "version": 1, "deriv_transfer_id": "", "mpesa_receipt": "", "outflow": ""}
        self.insert("transactions", transaction | new)
        reservation = rows["float_reservations"][0]
        self.insert("float_reservations", reservation | {"transaction_id": id, "released_at": None})
        self._reserve(reservation["amount"])

    def end(self, id: bytes) -> None:
        """The float is free again."""
        reservation = self.known.rows["float_reservations"][0]
        released = reservation["released_at"]
        self.execute("UPDATE float_reservations SET released_at = %s WHERE transaction_id = %s", released, id)
        self._reserve(-reservation["amount"])

    def _reserve(self, amount: int) -> None:
        account = self.known.rows["float_reservations"][0]["account"]
        self.execute("UPDATE float_accounts SET reserved = reserved + %s WHERE account = %s", amount, account)

    def move(self, id: bytes, status: str, transaction: Row, **more: Any) -> None:
        """A change of status, or of the timer."""
        final = status == "COMPLETED"
        changed: dict[str, Any] = {
            "status": status, "priority": transaction["priority"] if final else 3,
            "next_step_at": transaction["next_step_at"] if final else transaction["updated_at"],
            "confirmed_at": transaction["confirmed_at"], "updated_at": transaction["updated_at"], **more,
        }  # fmt: skip
        if status in {"DERIV_TRANSFER_SENT", "MPESA_DISBURSING", "COMPLETED"}:
            changed["outflow"] = "payout"
        self.execute(
            "UPDATE transactions SET version = version + 1, " + ", ".join(f"{name} = %s" for name in changed)
            + " WHERE id = %s", *changed.values(), id,
        )  # fmt: skip

    def called_back(self, request: bytes, receipt: str) -> None:
        """The row of M-Pesa's callback."""
        own = {"id": uuid7().bytes, "request_id": request, "receipt": receipt}
        self.insert("mpesa_callbacks", self.known.rows["mpesa_callbacks"][0] | own)

    def published(self, events: Sequence[Row]) -> None:
        """The relay's mark."""
        places = ", ".join(["%s"] * len(events))
        at = self.known.rows["domain_events"][0]["published_at"]
        sql = f"UPDATE domain_events SET published_at = %s WHERE id IN ({places})"
        self.execute(sql, at, *(event["id"] for event in events))

    # --- the ledger ---------------------------------------------------------------------------------------------------

    def open_accounts(self, user: str) -> dict[bytes, bytes]:
        """The customer's own, each one statement; by those of the model."""
        made = {
            account["id"]: Account(AccountKind.CUSTOMER_IN_TRANSIT, Currency(currency), user).id.bytes
            for currency, account in self.known.in_transit.items()
        }
        for account in self.known.in_transit.values():
            self.insert("ledger_accounts", account | {"id": made[account["id"]], "owner": user})
        return made

    def entries(self, id: bytes, own: Mapping[bytes, bytes]) -> list[Row]:
        """Its entries, between the house's accounts and the customer's own."""
        changed = []
        journals: dict[bytes, bytes] = {}
        for entry in self.known.rows["ledger_entries"]:
            journal = journals.setdefault(entry["journal_id"], uuid7().bytes)
            key = None if entry["provider_key"] is None else f"mpesa:{secrets.token_hex(22)}"
            sides = {side: own.get(entry[side], entry[side]) for side in ("debit_account_id", "credit_account_id")}
            number = entry["reference"].rpartition(":")[2]
            fresh = {"id": uuid7().bytes, "journal_id": journal, "transaction_id": id, "provider_key": key}
            reference = f"{entry['purpose']}:{UUID(bytes=id)}:{number}"
            changed.append(entry | fresh | sides | {"reference": reference})
        return changed

    def post(self, entries: Sequence[Row], own: Mapping[bytes, bytes]) -> None:
        """Entries, balances in the order of their ids, and what is taken from the guarded ones."""
        changes: dict[bytes, int] = {}
        for entry in entries:
            changes[entry["credit_account_id"]] = changes.get(entry["credit_account_id"], 0) + entry["amount"]
            changes[entry["debit_account_id"]] = changes.get(entry["debit_account_id"], 0) - entry["amount"]
        guarded = set(own.values())
        self.insert("ledger_entries", *entries)
        values: list[Any] = []
        for id, change in sorted(changes.items()):
            values += [id, 0 if id in guarded else self.slot, max(change, 0) if id in guarded else change]
        places = ", ".join(["(%s, %s, %s)"] * len(changes))
        self.execute(
            f"INSERT INTO ledger_balances (account_id, slot, credit_balance) VALUES {places} "
            "ON DUPLICATE KEY UPDATE credit_balance = credit_balance + VALUES(credit_balance)",
            *values,
        )
        for id in sorted(guarded & changes.keys()):
            if changes[id] < 0:
                self.execute(
                    "UPDATE ledger_balances SET credit_balance = credit_balance + %s WHERE account_id = %s "
                    "AND slot = 0", changes[id], id,
                )  # fmt: skip
