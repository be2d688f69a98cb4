"""The floor of a deposit: the same rows in the same commits by hand-written SQL, and nothing else.

No HTTP, no Celery, no provider, no read, no Python objects: each of 16 connections writes one deposit after the other,
one statement a round trip. The rows are those of a real deposit, read back from the database, with new ids: the same
tables, columns and widths. Encrypted columns, blind indexes and hashes are copied, not computed. Two processes or more
run the connections, so that one interpreter is not the limit.

The commits are those of a deposit that runs alone: 1 the POST, 2 the prompt's intent, 3 its outcome, 4 the callback,
5 the proof with the transfer's intent, 6 the transfer's outcome, 7 the relay's mark on the three events.
"""

import multiprocessing
import os
import secrets
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import MySQLdb
from uuid_utils.compat import uuid7

CONNECTIONS, PROCESSES = 16, 4
Row = Mapping[str, Any]
TABLES = {  # how a deposit's rows are found
    "transactions": "id = %(id)s",
    "idempotency_keys": "result = %(id)s",
    "float_reservations": "transaction_id = %(id)s",
    "mpesa_requests": "transaction_id = %(id)s",
    "mpesa_callbacks": "request_id IN (SELECT id FROM mpesa_requests WHERE transaction_id = %(id)s)",
    "deriv_transfers": "transaction_id = %(id)s",
    "ledger_entries": "transaction_id = %(id)s",
    "domain_events": "aggregate_id = %(id)s",
    "audit_logs": "target_id = %(text)s",
}


@dataclass(frozen=True)
class Model:
    """The rows of one real deposit by table, in the order in which they were written."""

    rows: dict[str, list[dict[str, Any]]]
    in_transit: dict[str, Any]  # the customer's row of ledger_accounts
    house: dict[bytes, str] = field(default_factory=dict)  # the other accounts that it changes, and their kind


def model(connection: Any, transaction: bytes) -> Model:
    """Reads back the deposit with this id."""
    names = {"id": transaction, "text": str(_uuid(transaction))}
    cursor = connection.cursor(MySQLdb.cursors.DictCursor)
    found: dict[str, list[dict[str, Any]]] = {}
    for table, condition in TABLES.items():
        order = {"domain_events": "seq", "idempotency_keys": "id", "audit_logs": "seq", "ledger_entries": "seq"}.get(
            table, "id"
        )
        order = "transaction_id" if table == "float_reservations" else order
        cursor.execute(f"SELECT * FROM {table} WHERE {condition} ORDER BY {order}", names)
        found[table] = list(cursor.fetchall())
    entries = found["ledger_entries"]
    ids = {entry[side] for entry in entries for side in ("debit_account_id", "credit_account_id")}
    cursor.execute(f"SELECT * FROM ledger_accounts WHERE id IN ({', '.join(['%s'] * len(ids))})", list(ids))
    accounts = list(cursor.fetchall())
    own = next(account for account in accounts if account["kind"] == "customer_in_transit")
    return Model(found, own, {a["id"]: a["kind"] for a in accounts if a["id"] != own["id"]})


def _uuid(value: bytes) -> Any:
    from uuid import UUID

    return UUID(bytes=value)


def run(options: Mapping[str, Any], known: Model, quotes: Sequence[tuple[bytes, str]]) -> float:
    """Seconds for one deposit for each quote (its id and its user's), over `CONNECTIONS` connections."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES + 1)
    each = [
        context.Process(
            target=_process, args=(dict(options), known, list(quotes[n::PROCESSES]), barrier, n), daemon=True
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
    return took


def _process(options: dict[str, Any], known: Model, quotes: list[tuple[bytes, str]], barrier: Any, number: int) -> None:
    threads = CONNECTIONS // PROCESSES
    writers = [Writer(MySQLdb.connect(**options), known, 1 + number * threads + n) for n in range(threads)]

    def work(writer: Writer, part: Sequence[tuple[bytes, str]]) -> None:
        try:
            for quote, user in part:
                writer.deposit(quote, user)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)  # its open transaction would hold up all the others

    running = [threading.Thread(target=work, args=(writer, quotes[n::threads])) for n, writer in enumerate(writers)]
    barrier.wait(60)
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


class Writer:
    """One connection, and the statements of a deposit. `slot` is its own among those of the house's balances."""

    def __init__(self, connection: Any, known: Model, slot: int) -> None:
        self.connection, self.known, self.slot = connection, known, slot
        self.cursor = connection.cursor()
        self.inserts = {table: self._insert_of(table, rows[0]) for table, rows in known.rows.items() if rows} | {
            "ledger_accounts": self._insert_of("ledger_accounts", known.in_transit)
        }

    def _insert_of(self, table: str, row: Row) -> tuple[str, list[str]]:
        own = {
            "domain_events": {"seq"},
            "audit_logs": {"seq"},
            "ledger_entries": {"seq"},
            "idempotency_keys": {"id"},
        }.get(table, set())
        names = [name for name in row if name not in own]
        columns = ", ".join(f"`{name}`" for name in names)
        verb = "INSERT IGNORE" if table == "ledger_accounts" else "INSERT"
        return f"{verb} INTO {table} ({columns}) VALUES ", names

    def insert(self, table: str, *rows: Row) -> None:
        head, names = self.inserts[table]
        places = "(" + ", ".join(["%s"] * len(names)) + ")"
        values = [row[name] for row in rows for name in names]
        self.cursor.execute(head + ", ".join([places] * len(rows)), values)

    def execute(self, sql: str, *values: Any) -> None:
        self.cursor.execute(sql, values)

    def deposit(self, quote: bytes, user: str) -> None:
        """All of it, in its seven commits."""
        rows, commit = self.known.rows, self.connection.commit
        id, request, transfer, account = (uuid7().bytes for _ in range(4))
        user_id = bytes.fromhex(user.replace("-", ""))
        transaction = rows["transactions"][0] | {"id": id, "user_id": user_id, "quote_id": quote}
        audits = [row | {"target_id": str(_uuid(id))} for row in rows["audit_logs"]]
        events = [
            row | {"id": uuid7().bytes, "aggregate_id": id, "published_at": None} for row in rows["domain_events"]
        ]
        prompt = rows["mpesa_requests"][0] | {
            "id": request, "transaction_id": id, "reference": secrets.token_hex(6),
            "callback_hash": secrets.token_hex(32), "open_phone": secrets.token_hex(32),
        }  # fmt: skip
        checkout, receipt = secrets.token_hex(32), secrets.token_hex(5)

        key = rows["idempotency_keys"][0]
        self.insert("idempotency_keys", key | {"scope": f"{user}:deposits", "key": secrets.token_hex(18), "result": id})
        self.execute("UPDATE quotes SET transaction_id = %s WHERE id = %s", id, quote)
        self.insert("transactions", transaction | {"status": "CREATED", "version": 1, "deriv_transfer_id": ""})
        self.insert("float_reservations", rows["float_reservations"][0] | {"transaction_id": id, "released_at": None})
        self.insert("domain_events", events[0])
        self.insert("audit_logs", audits[0])
        amount, agent = transaction["payout_amount"], transaction["agent"]
        self.execute("UPDATE float_accounts SET reserved = reserved + %s WHERE account = %s", amount, agent)
        commit()

        self._move(id, "AWAITING_MPESA", transaction)
        sent = {"status": "sending", "outcome_at": None, "asked_at": None, "merchant_request_id": ""}
        later = {"checkout_request_id": "", "checkout_index": None, "receipt": None, "answer": ""}
        self.insert("mpesa_requests", prompt | sent | later)
        self.insert("audit_logs", audits[1])
        commit()

        self.execute(
            "UPDATE mpesa_requests SET status = 'accepted', outcome_at = %s, merchant_request_id = %s, "
            "checkout_request_id = %s, checkout_index = %s, answer = %s WHERE id = %s",
            prompt["outcome_at"], prompt["merchant_request_id"], prompt["checkout_request_id"], checkout,
            prompt["answer"], request,
        )  # fmt: skip
        self._move(id, "AWAITING_MPESA", transaction)
        commit()

        callback = rows["mpesa_callbacks"][0]
        self.insert("mpesa_callbacks", callback | {"id": uuid7().bytes, "request_id": request, "receipt": receipt})
        self.insert("domain_events", events[1])
        commit()

        self._move(id, "DERIV_TRANSFER_SENT", transaction)
        sent = {
            "status": "sending",
            "outcome_at": None,
            "asked_at": None,
            "provider_transaction_id": None,
            "answer": "",
        }
        own = {"id": transfer, "transaction_id": id, "reference": secrets.token_hex(6)}
        moved = rows["deriv_transfers"][0]
        self.insert("deriv_transfers", moved | sent | own)
        self.execute(
            "UPDATE mpesa_requests SET status = 'done', asked_at = %s, open_phone = NULL WHERE id = %s",
            prompt["asked_at"], request,
        )  # fmt: skip
        self.insert("ledger_accounts", self.known.in_transit | {"id": account, "owner": user})
        entries = self._entries(id, account)
        self._post([entry for entry in entries if entry["purpose"] == "deposit_received"], account)
        self.insert("audit_logs", *audits[2:-1])
        commit()

        provider_id = str(secrets.randbits(40))
        self.execute(
            "UPDATE deriv_transfers SET status = 'done', outcome_at = %s, provider_transaction_id = %s, answer = %s "
            "WHERE id = %s",
            moved["outcome_at"], provider_id, moved["answer"], transfer,
        )  # fmt: skip
        self._move(id, "COMPLETED", transaction, provider_id)
        released = rows["float_reservations"][0]["released_at"]
        self.execute("UPDATE float_reservations SET released_at = %s WHERE transaction_id = %s", released, id)
        self._post([entry for entry in entries if entry["purpose"] != "deposit_received"], account)
        self.insert("domain_events", *events[2:])
        self.insert("audit_logs", *audits[-1:])
        self.execute("UPDATE float_accounts SET reserved = reserved - %s WHERE account = %s", amount, agent)
        commit()

        places = ", ".join(["%s"] * len(events))
        published = [rows["domain_events"][0]["published_at"], *(event["id"] for event in events)]
        self.execute(f"UPDATE domain_events SET published_at = %s WHERE id IN ({places})", *published)
        commit()

    def _move(self, id: bytes, status: str, transaction: Row, transfer_id: str = "") -> None:
        final = status == "COMPLETED"
        self.execute(
            "UPDATE transactions SET status = %s, version = version + 1, step_version = step_version + 1, "
            "priority = %s, next_step_at = %s, confirmed_at = %s, deriv_transfer_id = %s, updated_at = %s "
            "WHERE id = %s",
            status, 9 if final else 3, None if final else transaction["updated_at"], transaction["confirmed_at"],
            transfer_id, transaction["updated_at"], id,
        )  # fmt: skip

    def _entries(self, id: bytes, account: bytes) -> list[dict[str, Any]]:
        changed = []
        known = self.known.in_transit["id"]
        journals: dict[bytes, bytes] = {}
        for entry in self.known.rows["ledger_entries"]:
            journal = journals.setdefault(entry["journal_id"], uuid7().bytes)
            key = None if entry["provider_key"] is None else f"mpesa:{secrets.token_hex(22)}"
            sides = {
                side: account if entry[side] == known else entry[side]
                for side in ("debit_account_id", "credit_account_id")
            }
            number = entry["reference"].rpartition(":")[2]
            own = {"id": uuid7().bytes, "journal_id": journal, "transaction_id": id, "provider_key": key}
            reference = f"{entry['purpose']}:{_uuid(id)}:{number}"
            changed.append(entry | own | sides | {"reference": reference})
        return changed

    def _post(self, entries: Sequence[Row], account: bytes) -> None:
        """Entries, balances in the order of their ids, and what is taken from the guarded one."""
        changes: dict[bytes, int] = {}
        for entry in entries:
            changes[entry["credit_account_id"]] = changes.get(entry["credit_account_id"], 0) + entry["amount"]
            changes[entry["debit_account_id"]] = changes.get(entry["debit_account_id"], 0) - entry["amount"]
        self.insert("ledger_entries", *entries)
        values: list[Any] = []
        for id, change in sorted(changes.items()):
            values += [id, 0 if id == account else self.slot, max(change, 0) if id == account else change]
        places = ", ".join(["(%s, %s, %s)"] * len(changes))
        self.execute(
            f"INSERT INTO ledger_balances (account_id, slot, credit_balance) VALUES {places} "
            "ON DUPLICATE KEY UPDATE credit_balance = credit_balance + VALUES(credit_balance)",
            *values,
        )
        if changes[account] < 0:
            self.execute(
                "UPDATE ledger_balances SET credit_balance = credit_balance + %s WHERE account_id = %s AND slot = 0",
                changes[account], account,
            )  # fmt: skip
