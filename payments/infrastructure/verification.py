"""The ledger and the reservations held against each Transaction's status: whatever differs is named, first row first.

The database compares and sums; what comes back is bounded. Read it inside the wallet's `snapshot`.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.db import connection

from shared_kernel.models import AuditLog
from wallet.facade import Finding

# A Transaction's float legs, by purpose: the entries that carry a provider's key.
_LEGS = """
    FROM transactions t LEFT JOIN (
        SELECT transaction_id,
            SUM(CASE WHEN purpose = 'deposit_received' THEN 1 ELSE 0 END) AS received,
            SUM(CASE WHEN purpose = 'deposit_received' THEN amount ELSE 0 END) AS received_amount,
            SUM(CASE WHEN purpose = 'deposit_sent' AND provider_key IS NOT NULL THEN 1 ELSE 0 END) AS sent,
            SUM(CASE WHEN purpose = 'deposit_sent' AND provider_key IS NOT NULL THEN amount ELSE 0 END) AS sent_amount,
            SUM(CASE WHEN purpose = 'duplicate_sent' THEN 1 ELSE 0 END) AS duplicates,
            COUNT(*) AS entries
        FROM ledger_entries WHERE transaction_id IS NOT NULL GROUP BY transaction_id
    ) e ON e.transaction_id = t.id
    WHERE t.type = 'deposit' AND
"""
_COMPLETED = f"""
    SELECT t.id, COALESCE(e.received, 0), COALESCE(e.received_amount, 0), t.amount, COALESCE(e.sent, 0),
        COALESCE(e.sent_amount, 0), t.payout_amount {_LEGS}
    t.status = 'COMPLETED' AND (COALESCE(e.received, 0) <> 1 OR e.received_amount <> t.amount
        OR COALESCE(e.sent, 0) <> 1 OR e.sent_amount <> t.payout_amount)
    ORDER BY t.id LIMIT 1
"""
_TWICE = """
    SELECT DISTINCT t.id, t.status FROM ledger_entries e JOIN transactions t ON t.id = e.transaction_id
    WHERE e.purpose = 'duplicate_sent' AND t.status <> 'NEEDS_ATTENTION' ORDER BY t.id LIMIT 1000
"""
_UNPAID = f"""
    SELECT t.id, t.status, e.entries {_LEGS}
    t.status IN ('CREATED', 'UNDER_REVIEW', 'AWAITING_MPESA', 'REJECTED', 'EXPIRED', 'FAILED') AND e.entries > 0
    ORDER BY t.id LIMIT 1
"""
_RECEIVED = f"""
    SELECT t.id, t.status, COALESCE(e.received, 0), COALESCE(e.received_amount, 0), t.amount, e.entries {_LEGS}
    (t.status IN ('MPESA_CONFIRMED', 'DERIV_TRANSFER_SENT')
        AND (COALESCE(e.received, 0) <> 1 OR e.received_amount <> t.amount OR e.entries <> 1)
    OR t.status = 'REFUND_PENDING' AND (COALESCE(e.received, 0) = 0 OR e.sent <> 0 OR e.duplicates <> 0))
    ORDER BY t.id LIMIT 1
"""
_SHOWN = f"""
    SELECT t.id, COALESCE(e.received, 0), COALESCE(e.sent, 0) {_LEGS}
    t.status = 'NEEDS_ATTENTION' AND ((t.confirmed_at IS NULL) <> (COALESCE(e.received, 0) = 0)
        OR (t.deriv_transfer_id = '') <> (COALESCE(e.sent, 0) = 0))
    ORDER BY t.id LIMIT 1
"""
_ORPHAN = """
    SELECT e.seq, e.reference FROM ledger_entries e LEFT JOIN transactions t ON t.id = e.transaction_id
    WHERE e.transaction_id IS NOT NULL AND t.id IS NULL ORDER BY e.seq LIMIT 1
"""
_IN_TRANSIT = """
    SELECT who, SUM(held), SUM(expected) FROM (
        SELECT REPLACE(a.owner, '-', '') AS who, b.credit_balance AS held, 0 AS expected
        FROM ledger_balances b JOIN ledger_accounts a ON a.id = b.account_id
        WHERE a.kind = 'customer_in_transit' AND a.currency = 'KES' AND b.credit_balance <> 0
        UNION ALL
        SELECT LOWER(HEX(t.user_id)), 0, CASE WHEN e.purpose = 'deposit_received' THEN e.amount ELSE -e.amount END
        FROM transactions t JOIN ledger_entries e ON e.transaction_id = t.id
        WHERE t.type = 'deposit' AND e.purpose IN ('deposit_received', 'deposit_excess') AND (
            t.status IN ('MPESA_CONFIRMED', 'DERIV_TRANSFER_SENT', 'REFUND_PENDING')
            OR t.status = 'NEEDS_ATTENTION' AND t.deriv_transfer_id = '')
    ) AS sums GROUP BY who HAVING SUM(held) <> SUM(expected) ORDER BY who LIMIT 1
"""
_RESERVED = """
    SELECT account, SUM(kept), SUM(promised) FROM (
        SELECT account, reserved AS kept, 0 AS promised FROM float_accounts
        UNION ALL SELECT account, 0, amount FROM float_reservations WHERE released_at IS NULL
    ) AS sums GROUP BY account HAVING SUM(kept) <> SUM(promised) ORDER BY account LIMIT 1
"""
_NOT_ON_THE_WAY = """
    SELECT r.transaction_id, COALESCE(t.status, 'no Transaction')
    FROM float_reservations r LEFT JOIN transactions t ON t.id = r.transaction_id
    WHERE r.released_at IS NULL AND (t.id IS NULL OR t.deriv_transfer_id <> '' OR t.status IN
        ('COMPLETED', 'REJECTED', 'EXPIRED', 'FAILED', 'REFUNDED', 'REFUND_PENDING'))
    ORDER BY r.transaction_id LIMIT 1
"""
_NOT_RESERVED = """
    SELECT t.id, t.status FROM transactions t
    LEFT JOIN float_reservations r ON r.transaction_id = t.id AND r.released_at IS NULL AND r.amount = t.payout_amount
        AND r.account = t.agent
    WHERE t.type = 'deposit' AND r.transaction_id IS NULL AND t.status IN
        ('CREATED', 'UNDER_REVIEW', 'AWAITING_MPESA', 'MPESA_CONFIRMED', 'DERIV_TRANSFER_SENT')
    ORDER BY t.id LIMIT 1
"""


def verify_statuses() -> Iterator[Finding]:
    """Each kind of difference with its first wrong row. Raises `DatabaseError`."""
    for id, received, paid, amount, sent, credited, payout in _rows(_COMPLETED):
        legs = f"{received} legs received {paid} of {amount}, {sent} sent {credited} of {payout}"
        yield _finding("statuses", id, f"COMPLETED, but {legs}")
    for id, status in _rows(_TWICE):
        if not _was_shown(id):
            yield _finding("statuses", id, f"{status} and booked twice, but no person was shown it")
            break
    for id, status, entries in _rows(_UNPAID):
        yield _finding("statuses", id, f"{status} is unpaid, but has {entries} entries")
    for id, status, received, paid, amount, entries in _rows(_RECEIVED):
        legs = f"{received} legs received {paid} of {amount}, {entries or 0} entries in all"
        yield _finding("statuses", id, f"{status}, but {legs}")
    for id, received, sent in _rows(_SHOWN):
        yield _finding("statuses", id, f"NEEDS_ATTENTION, but its row and its {received} + {sent} legs disagree")
    for seq, reference in _rows(_ORPHAN):
        yield Finding("statuses", f"ledger_entries {seq} ({reference})", "its Transaction does not exist")
    for who, held, expected in _rows(_IN_TRANSIT):
        yield Finding("on_the_way", f"user {UUID(who)}", f"in transit are {held}, their Transactions make {expected}")
    for account, kept, promised in _rows(_RESERVED):
        yield Finding("reservations", f"float_accounts {account}", f"{kept} is kept, the rows make {promised}")
    for id, status in _rows(_NOT_ON_THE_WAY):
        yield _finding("reservations", id, f"{status}, but money is still reserved for it")
    for id, status in _rows(_NOT_RESERVED):
        yield _finding("reservations", id, f"{status}, but its payout is not reserved")


def _was_shown(id: bytes) -> bool:
    target = {"target_type": "transaction", "target_id": str(UUID(bytes=bytes(id)))}
    return AuditLog.objects.filter(**target, after="NEEDS_ATTENTION").exists()


def _finding(check: str, id: bytes, detail: str) -> Finding:
    return Finding(check, f"transactions {UUID(bytes=bytes(id))}", detail)


def _rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
