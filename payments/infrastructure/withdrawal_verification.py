"""What must stand in the ledger for a withdrawal in each status, as SQL that `verification.py` runs.

One pass over the withdrawals' entries: what is undone counts against what it takes back, so that only what stands is
seen. Money that a withdrawal can't be asked for (`uncovered`, `debit_owed`, fees) is no part of it.
"""

_HELD = """SUM(CASE WHEN e.currency <> '{currency}' THEN 0 WHEN c.kind = 'customer_in_transit' THEN e.amount
            WHEN d.kind = 'customer_in_transit' THEN -e.amount ELSE 0 END)"""
_STANDING = """SUM(CASE WHEN {which} AND e.purpose = '{purpose}' THEN {what}
            WHEN {undone} AND e.purpose = '{purpose}_undone' THEN -{what} ELSE 0 END)"""
_DOLLARS = {"which": "e.currency = 'USD'", "undone": "e.currency = 'USD'", "what": "e.amount"}
_SHILLINGS = {
    "which": "e.currency = 'KES' AND c.kind = 'customer_in_transit'",
    "undone": "e.currency = 'KES' AND d.kind = 'customer_in_transit'",
    "what": "e.amount",
}
_EACH = {"which": "1 = 1", "undone": "1 = 1", "what": "1"}

FACTS = f"""
    SELECT t.id, t.status, t.amount, t.payout_amount, t.confirmed_at, t.deriv_transfer_id,
        COALESCE(s.entries, 0) AS entries, COALESCE(s.debited, 0) AS debited, COALESCE(s.reverted, 0) AS reverted,
        COALESCE(s.exchanged, 0) AS exchanged, COALESCE(s.payout, 0) AS payout, COALESCE(s.payouts, 0) AS payouts,
        COALESCE(s.back, 0) AS back, COALESCE(s.usd, 0) AS usd, COALESCE(s.kes, 0) AS kes
    FROM transactions t LEFT JOIN (
        SELECT e.transaction_id, SUM(CASE WHEN e.purpose = 'uncovered' THEN 0 ELSE 1 END) AS entries,
            SUM(CASE WHEN e.currency = 'USD' AND e.purpose IN ('withdrawal_debited', 'suspense_matched') THEN e.amount
                ELSE 0 END) AS debited,
            SUM(CASE WHEN e.purpose = 'debit_reverted' THEN e.amount ELSE 0 END) AS reverted,
            {_STANDING.format(purpose="withdrawal_exchanged", **_DOLLARS)} AS exchanged,
            {_STANDING.format(purpose="withdrawal_exchanged", **_SHILLINGS)} AS payout,
            {_STANDING.format(purpose="withdrawal_paid", **_EACH)} AS payouts,
            SUM(CASE WHEN e.purpose = 'credit_back_sent' THEN e.amount ELSE 0 END) AS back,
            {_HELD.format(currency="USD")} AS usd, {_HELD.format(currency="KES")} AS kes
        FROM transactions w JOIN ledger_entries e ON e.transaction_id = w.id
        JOIN ledger_accounts d ON d.id = e.debit_account_id JOIN ledger_accounts c ON c.id = e.credit_account_id
        WHERE w.type = 'withdrawal' GROUP BY e.transaction_id
    ) s ON s.transaction_id = t.id
    WHERE t.type = 'withdrawal'
"""  # noqa: S608 - our own names
# In transit is what the legs make of it, and nothing left by any other journal; what another amount than the payout
# left is in suspense.
_WHOLE = "usd = debited - reverted - exchanged - back AND kes = CASE WHEN payouts = 0 THEN payout ELSE 0 END"
_NOTHING = "entries = 0"
_TAKEN_BACK = "debited = reverted AND exchanged = 0 AND payouts = 0 AND back = 0"
_DEBITED = "debited - reverted = amount AND exchanged = 0 AND payouts = 0 AND back = 0"
_EXCHANGED = "debited - reverted = amount AND exchanged = amount AND payout = payout_amount AND back = 0"
_TO_PAY = f"{_EXCHANGED} AND payouts = 0"
_PAID = f"{_EXCHANGED} AND payouts = 1"
_GIVEN_BACK = "debited >= amount AND debited = back + reverted AND exchanged = 0 AND payouts = 0"
_BEFORE_A_PERSON = """(confirmed_at IS NULL) = (debited = 0) AND (debited = 0 OR deriv_transfer_id <> '')
    AND usd >= 0 AND exchanged IN (0, amount) AND back IN (0, amount)
    AND (payouts = 0 OR payouts = 1 AND exchanged <> 0)"""

MUST_STAND = {
    "CREATED": _NOTHING,
    "UNDER_REVIEW": _NOTHING,
    "DERIV_DEBIT_SENT": _NOTHING,
    "REJECTED": _NOTHING,
    "EXPIRED": _NOTHING,
    "FAILED": _TAKEN_BACK,
    "DERIV_DEBITED": _DEBITED,
    "RATE_LOCKED": _TO_PAY,
    "MPESA_DISBURSING": _TO_PAY,
    "COMPLETED": _PAID,
    "CREDIT_BACK_PENDING": _DEBITED,
    "REVERSED": _GIVEN_BACK,
    "NEEDS_ATTENTION": _BEFORE_A_PERSON,
}
_SOUND = " ".join(f"WHEN '{status}' THEN {rule}" for status, rule in MUST_STAND.items())

WITHDRAWALS = f"""
    SELECT id, status, amount, payout_amount, debited - reverted, exchanged, payout, payouts, back, usd, kes FROM (
        SELECT f.*, ROW_NUMBER() OVER (PARTITION BY f.status ORDER BY f.id) AS place FROM ({FACTS}) AS f
        WHERE NOT ({_WHOLE}) OR NOT CASE f.status {_SOUND} ELSE 0 END
    ) AS wrong WHERE place = 1 ORDER BY id
"""  # noqa: S608 - our own names
DETAIL = (
    "{} of {} for {}, but debited {}, exchanged {} for {}, payouts {}, credited back {}, in transit {} USD and {} KES"
)
