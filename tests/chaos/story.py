"""Reads rows for the verdict, and tells the story of one Transaction: timeline, requests, callbacks, books."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from tests.chaos.verdict import Row, moved
from tests.journeys.world import World, raw

REQUESTS = """
SELECT transaction_id, reference, COALESCE(receipt, ''), about FROM mpesa_requests WHERE transaction_id IS NOT NULL
UNION ALL SELECT transaction_id, reference, '', '' FROM deriv_transfers
"""
STORY = {
    "timeline": "SELECT at, `before`, `after`, action, why, details FROM audit_logs WHERE target_id = %s ORDER BY seq",
    "at M-Pesa": "SELECT created_at, leg, attempt, reference, status, code, fence, asked_at, absences, receipt "
    "FROM mpesa_requests WHERE transaction_id = %s ORDER BY created_at",
    "callbacks": "SELECT c.received_at, r.leg, c.kind, c.verdict, c.result_code, c.fate, c.amount, c.receipt, c.times "
    "FROM mpesa_callbacks c JOIN mpesa_requests r ON r.id = c.request_id WHERE r.transaction_id = %s ORDER BY 1",
    "at Deriv": "SELECT created_at, leg, attempt, reference, status, code, fence, asked_at, absences, "
    "provider_transaction_id FROM deriv_transfers WHERE transaction_id = %s ORDER BY created_at",
    "ledger": "SELECT e.recorded_at, e.purpose, d.kind, c.kind, e.amount, e.currency, e.provider_key "
    "FROM ledger_entries e JOIN ledger_accounts d ON d.id = e.debit_account_id "
    "JOIN ledger_accounts c ON c.id = e.credit_account_id WHERE e.transaction_id = %s ORDER BY e.seq",
}


def rows_of(world: World) -> list[Row]:
    """Every Transaction."""
    references: dict[bytes, set[str]] = {}
    for id, *names in world.rows(REQUESTS):
        references.setdefault(id, set()).update(str(name) for name in names if name)
    found = world.rows("SELECT id, type, status, failure_code, amount, payout_amount FROM transactions")
    return [
        Row(str(UUID(bytes=id)), kind, status, code, int(amount), int(payout), frozenset(references.get(id, ())))
        for id, kind, status, code, amount, payout in found
    ]


def story_of(world: World, row: Row, movements: Iterable[Mapping[str, Any]]) -> str:
    """All that is known of it, oldest first in each part."""
    lines = [f"{row.type} {row.id}: {row.status} {row.reason}, {row.amount} for {row.payout} (minor units)"]
    for part, sql in STORY.items():
        lines.append(f"  {part}")
        key = row.id if part == "timeline" else raw(row.id)
        lines += ["    " + "  ".join(str(value) for value in values) for values in world.rows(sql, key)]
    lines.append("  providers' books")
    lines += [f"    {dict(movement)}" for movement in moved([row], movements, []).get(row.id, [])]
    return "\n".join(lines)
