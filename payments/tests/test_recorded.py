"""Deposits in flight survive a deploy: rows as an older version's code wrote them, brought to their ends by this one.

`recorded/step_version_N.json` holds, for each state, the rows of one Transaction and its requests as they were written
under that version of the step table (with the test keys, so that they can be read). A new version adds its own file
and changes none.
"""

import importlib
import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.apps import apps
from django.db import connection

from payments import models
from payments.domain.transaction import FINAL, UNPAID, TransactionStatus as S, TransactionType
from payments.facade import deposits, transactions
from payments.tests.factories import a_float, receive, send
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.infrastructure.persistence import now, unit_of_work
from shared_kernel.infrastructure.rows import binary_mark

pytestmark = pytest.mark.django_db(transaction=True)
RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
STORIES = [(file, name) for file in RECORDED for name in json.loads(file.read_text())]
MIGRATION = importlib.import_module("payments.migrations.0003_withdrawals")
TIMES = ("_at", "_before", "expected_by")


def restored(file: Path, name: str) -> TransactionId:
    """The rows of one story, as if they had been written a moment ago and migrated since."""
    story = json.loads(file.read_text())[name]
    shift = now().replace(tzinfo=None) - _time(story["transactions"][0]["updated_at"])
    for table, rows in story.items():
        for row in rows:
            _insert(table, {column: _value(column, value, shift) for column, value in row.items()})
    return TransactionId(models.Transaction.objects.get().id)


def _time(text):
    return datetime.fromisoformat(text).replace(tzinfo=None)


def _value(column, value, shift):
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    if value is not None and column.endswith(TIMES):
        return str(_time(value) + shift)
    return value


def _insert(table, row):
    """In today's table: columns that are new have what the migration gives to rows that are there."""
    model = {m._meta.db_table: m for m in apps.get_models()}[table]
    new = {f.column: f.get_default() for f in model._meta.concrete_fields if f.column not in row and not f.generated}
    if table == "transactions":  # its checks are there already, as they are not yet when the migration runs
        new["outflow"] = "payout" if row["status"] in MIGRATION.PAID_OUT else ""
        new["outflow"] = "give_back" if row["status"] in MIGRATION.GIVEN_BACK else new["outflow"]
    row = row | new
    marks = [binary_mark() if isinstance(value, bytes) else "%s" for value in row.values()]
    columns = ", ".join(connection.ops.quote_name(column) for column in row)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join(marks)})", list(row.values()))


@pytest.mark.parametrize(("file", "name"), STORIES, ids=[f"{file.stem}-{name}" for file, name in STORIES])
def test_what_was_in_flight_under_an_older_version_ends_under_this_one(file, name, mpesa_simulator, deriv_at_simulator):
    a_float()
    mpesa_simulator.set_customer("254712345600")
    id = restored(file, name)
    [deposit] = _read(id)
    before = deposit.status
    with unit_of_work():
        if before not in UNPAID:
            receive(deposit)
        if before is S.COMPLETED:
            send(deposit)
        elif before not in FINAL:
            deposits.reservations.reserve(deposit.agent, deposit.id, deposit.payout, at=now(), beyond=True)

    for _ in range(4):
        models.Transaction.objects.exclude(next_step_at=None).update(next_step_at=now() - timedelta(seconds=1))
        deposits.drive([id])
        time.sleep(0.15)  # the customer types the PIN

    [after] = _read(id)
    assert after.failures == 0
    assert after.status is before or after.status is not S.NEEDS_ATTENTION
    expected = {
        "created": {S.AWAITING_MPESA, S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.COMPLETED},
        "awaiting": {S.AWAITING_MPESA},  # this M-Pesa does not know the prompt: it is asked again and again
        "confirmed": {S.COMPLETED},
        "sent_unknown": {S.DERIV_TRANSFER_SENT},  # not proven absent yet: asked, never sent again
        "refund_pending": {S.REFUND_PENDING},  # its receipt is looked for
        "completed": {S.COMPLETED},
        "failed": {S.FAILED},
    }
    assert after.status in expected[name]
    assert deriv_at_simulator.received() == ([985] if after.status is S.COMPLETED and before is not S.COMPLETED else [])


def _read(id):
    with unit_of_work():
        return transactions.get_many([id], TransactionType.DEPOSIT)
