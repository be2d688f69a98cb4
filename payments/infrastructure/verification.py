"""The ledger and the reservations held against each Transaction's status: whatever differs is named, first row first.

The database compares and sums; what comes back is bounded. Read it inside the wallet's `snapshot`.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.db import connection

from payments.infrastructure.withdrawal_verification import DETAIL, WITHDRAWALS
from shared_kernel.models import AuditLog
from wallet.facade import Finding

_BOOKED = "purpose = 'deposit_sent' AND provider_key IS NOT NULL"
_TAKEN_BACK = "purpose = 'deposit_sent_undone' AND provider_key IS NOT NULL"
_GIVEN_BACK = "purpose IN ('deposit_refunded', 'deposit_reversed')"
# A deposit's float legs, by purpose: the entries that carry a provider's key. What was undone does not count.
_LEGS = f"""
    FROM transactions t LEFT JOIN (
        SELECT transaction_id,
            SUM(CASE WHEN purpose IN ('deposit_received', 'suspense_matched') THEN 1 ELSE 0 END) AS received,
            SUM(CASE WHEN purpose IN ('deposit_received', 'suspense_matched') THEN amount
                WHEN purpose = 'deposit_excess' THEN -amount ELSE 0 END) AS received_amount,
            SUM(CASE WHEN {_BOOKED} THEN 1 WHEN {_TAKEN_BACK} THEN -1 ELSE 0 END) AS sent,
            SUM(CASE WHEN {_BOOKED} THEN amount WHEN {_TAKEN_BACK} THEN -amount ELSE 0 END) AS sent_amount,
            SUM(CASE WHEN {_TAKEN_BACK} THEN 1 ELSE 0 END) AS taken_back,
            SUM(CASE WHEN {_GIVEN_BACK} THEN amount WHEN purpose = 'deposit_refunded_undone' THEN -amount
                ELSE 0 END) AS returned,
            SUM(CASE WHEN purpose = 'duplicate_sent' THEN 1 ELSE 0 END) AS duplicates,
            COUNT(*) AS entries
        FROM ledger_entries WHERE transaction_id IS NOT NULL GROUP BY transaction_id
    ) e ON e.transaction_id = t.id
    WHERE t.type = 'deposit' AND
"""  # noqa: S608 - our own names
_COMPLETED = f"""
    SELECT t.id, COALESCE(e.received, 0), COALESCE(e.received_amount, 0), t.amount, COALESCE(e.sent, 0),
        COALESCE(e.sent_amount, 0), t.payout_amount {_LEGS}
    t.status = 'COMPLETED' AND (COALESCE(e.received, 0) = 0 OR e.received_amount <> t.amount OR e.returned <> 0
        OR COALESCE(e.sent, 0) <> 1 OR e.sent_amount <> t.payout_amount)
    ORDER BY t.id LIMIT 1
"""
_TO_BE_SHOWN = """
    SELECT t.id, t.status, e.purpose FROM (
        SELECT DISTINCT transaction_id, purpose FROM ledger_entries
        WHERE purpose IN ('duplicate_sent', 'uncovered', 'payout_short', 'payout_over')
    ) AS e JOIN transactions t ON t.id = e.transaction_id
    WHERE t.status <> 'NEEDS_ATTENTION' ORDER BY t.id LIMIT 1000
"""
_WHAT = {
    "duplicate_sent": "booked twice",
    "uncovered": "paid out uncovered",
    "payout_short": "paid less than was due",
    "payout_over": "paid more than was due",
}
_UNPAID = f"""
    SELECT t.id, t.status, e.entries {_LEGS}
    t.status IN ('CREATED', 'UNDER_REVIEW', 'AWAITING_MPESA', 'REJECTED', 'EXPIRED', 'FAILED') AND e.entries > 0
    ORDER BY t.id LIMIT 1
"""
_RECEIVED = f"""
    SELECT t.id, t.status, COALESCE(e.received, 0), COALESCE(e.received_amount, 0), t.amount, COALESCE(e.sent, 0),
        COALESCE(e.returned, 0) {_LEGS}
    (t.status IN ('MPESA_CONFIRMED', 'DERIV_TRANSFER_SENT') AND (COALESCE(e.received, 0) = 0
        OR e.received_amount <> t.amount OR e.sent <> 0 OR e.returned <> 0 OR e.duplicates <> 0)
    OR t.status = 'REFUND_PENDING'
        AND (COALESCE(e.received, 0) = 0 OR e.sent <> 0 OR e.returned <> 0 OR e.duplicates <> 0)
    OR t.status = 'REFUNDED'
        AND (COALESCE(e.received, 0) = 0 OR e.sent <> 0 OR e.returned <> e.received_amount))
    ORDER BY t.id LIMIT 1
"""
_SHOWN = f"""
    SELECT t.id, COALESCE(e.received, 0), COALESCE(e.sent, 0) {_LEGS}
    t.status = 'NEEDS_ATTENTION' AND ((t.confirmed_at IS NULL) <> (COALESCE(e.received, 0) = 0)
        OR t.deriv_transfer_id = '' AND COALESCE(e.sent, 0) <> 0
        OR t.deriv_transfer_id <> '' AND COALESCE(e.sent, 0) = 0 AND COALESCE(e.taken_back, 0) = 0)
    ORDER BY t.id LIMIT 1
"""
_UNHEARD_OF = """
    SELECT t.id, t.type, t.status FROM transactions t
    WHERE t.type NOT IN ('deposit', 'withdrawal') OR t.type = 'deposit' AND t.status NOT IN (
        'CREATED', 'UNDER_REVIEW', 'AWAITING_MPESA', 'REJECTED', 'EXPIRED', 'FAILED', 'MPESA_CONFIRMED',
        'DERIV_TRANSFER_SENT', 'REFUND_PENDING', 'REFUNDED', 'COMPLETED', 'NEEDS_ATTENTION')
    ORDER BY t.id LIMIT 1
"""
_ORPHAN = """
    SELECT e.seq, e.reference FROM ledger_entries e WHERE e.seq = (
        SELECT MIN(each_one.first) FROM (
            SELECT transaction_id, MIN(seq) AS first FROM ledger_entries WHERE transaction_id IS NOT NULL
            GROUP BY transaction_id
        ) AS each_one LEFT JOIN transactions t ON t.id = each_one.transaction_id WHERE t.id IS NULL)
"""
_OPEN = """('MPESA_CONFIRMED', 'DERIV_TRANSFER_SENT', 'REFUND_PENDING', 'DERIV_DEBITED', 'RATE_LOCKED',
            'MPESA_DISBURSING', 'CREDIT_BACK_PENDING', 'NEEDS_ATTENTION')"""
_MOVED = f"""
        SELECT LOWER(HEX(t.user_id)), e.currency, 0, {{sign}}e.amount
        FROM transactions t JOIN ledger_entries e ON e.transaction_id = t.id
        JOIN ledger_accounts a ON a.id = e.{{side}}_account_id
        WHERE a.kind = 'customer_in_transit' AND t.status IN {_OPEN}
"""  # noqa: S608 - our own names
_IN_TRANSIT = f"""
    SELECT who, currency, SUM(held), SUM(expected) FROM (
        SELECT REPLACE(a.owner, '-', '') AS who, a.currency AS currency, b.credit_balance AS held, 0 AS expected
        FROM ledger_balances b JOIN ledger_accounts a ON a.id = b.account_id
        WHERE a.kind = 'customer_in_transit' AND b.credit_balance <> 0
        UNION ALL {_MOVED.format(side="credit", sign="")} UNION ALL {_MOVED.format(side="debit", sign="-")}
    ) AS sums GROUP BY who, currency HAVING SUM(held) <> SUM(expected) ORDER BY who, currency LIMIT 1
"""  # noqa: S608 - our own names
_RESERVED = """
    SELECT account, SUM(kept), SUM(promised) FROM (
        SELECT account, reserved AS kept, 0 AS promised FROM float_accounts
        UNION ALL SELECT account, 0, amount FROM float_reservations WHERE released_at IS NULL
    ) AS sums GROUP BY account HAVING SUM(kept) <> SUM(promised) ORDER BY account LIMIT 1
"""
_NOT_ON_THE_WAY = """
    SELECT r.transaction_id, COALESCE(t.status, 'no Transaction')
    FROM float_reservations r LEFT JOIN transactions t ON t.id = r.transaction_id
    WHERE r.released_at IS NULL AND (t.id IS NULL OR t.type = 'deposit' AND t.deriv_transfer_id <> '' OR t.status IN
        ('COMPLETED', 'REJECTED', 'EXPIRED', 'FAILED', 'REFUNDED', 'REFUND_PENDING', 'CREDIT_BACK_PENDING', 'REVERSED'))
    ORDER BY r.transaction_id LIMIT 1
"""
# A deposit's payout leaves the agent's float; a withdrawal's a shortcode's, with M-Pesa's fee kept beside it.
_NOT_RESERVED = """
    SELECT t.id, t.status FROM transactions t
    LEFT JOIN float_reservations r ON r.transaction_id = t.id AND r.released_at IS NULL AND (
        t.type = 'deposit' AND r.amount = t.payout_amount AND r.account = t.agent
        OR t.type = 'withdrawal' AND r.amount >= t.payout_amount AND r.account LIKE 'mpesa:%')
    WHERE r.transaction_id IS NULL AND t.status IN ('CREATED', 'UNDER_REVIEW', 'AWAITING_MPESA', 'MPESA_CONFIRMED',
        'DERIV_TRANSFER_SENT', 'DERIV_DEBIT_SENT', 'DERIV_DEBITED', 'RATE_LOCKED', 'MPESA_DISBURSING')
    ORDER BY t.id LIMIT 1
"""


def verify_statuses() -> Iterator[Finding]:
    """Each kind of difference with its first wrong row. Raises `DatabaseError`."""
    for id, received, paid, amount, sent, credited, payout in _rows(_COMPLETED):
        legs = f"{received} legs received {paid} of {amount}, {sent} sent {credited} of {payout}"
        yield _finding("statuses", id, f"COMPLETED, but {legs}")
    for id, status, purpose in _rows(_TO_BE_SHOWN):
        if not _was_shown(id):
            yield _finding("statuses", id, f"{status} and {_WHAT[purpose]}, but no person was shown it")
            break
    for id, status, entries in _rows(_UNPAID):
        yield _finding("statuses", id, f"{status} is unpaid, but has {entries} entries")
    for id, status, received, paid, amount, sent, returned in _rows(_RECEIVED):
        legs = f"{received} legs received {paid} of {amount}, {sent} sent, {returned} went back"
        yield _finding("statuses", id, f"{status}, but {legs}")
    for id, received, sent in _rows(_SHOWN):
        yield _finding("statuses", id, f"NEEDS_ATTENTION, but its row and its {received} + {sent} legs disagree")
    for id, type, status in _rows(_UNHEARD_OF):
        yield _finding("statuses", id, f"no {type} is ever {status}")
    for id, *facts in _rows(WITHDRAWALS):
        yield _finding("statuses", id, DETAIL.format(*facts))
    for seq, reference in _rows(_ORPHAN):
        yield Finding("statuses", f"ledger_entries {seq} ({reference})", "its Transaction does not exist")
    for who, currency, held, expected in _rows(_IN_TRANSIT):
        detail = f"in transit are {held} {currency}, their Transactions make {expected}"
        yield Finding("on_the_way", f"user {UUID(who)}", detail)
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
