"""Our money at the providers, movement by movement, as the ledger has it: what their books are held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from wallet.queries.sql import as_time, as_uuid, marks, select


@dataclass(frozen=True, slots=True)
class FloatLeg:
    """The side of an entry that is money of ours at a provider: `amount` is above zero when it came in."""

    provider_key: str
    kind: str
    owner: str
    amount: int
    currency: str
    transaction_id: UUID | None
    purpose: str
    effective_at: datetime
    recorded_at: datetime


# What was mirrored without a movement of its own had never moved. One branch for each side, so that each finds its
# account by its key; COALESCE keeps the database from starting at the account, and reading all that it ever had.
_LEGS = " UNION ALL ".join(
    f"""
    SELECT e.seq, e.provider_key, a.kind, a.owner, {sign}e.amount, e.currency, e.transaction_id, e.purpose,
        e.effective_at, e.recorded_at
    FROM ledger_entries e JOIN ledger_accounts a ON a.id = e.{side}_account_id
    LEFT JOIN ledger_entries r ON r.reverses = e.id
    WHERE e.provider_key IS NOT NULL AND (r.id IS NULL OR r.provider_key IS NOT NULL)
        AND COALESCE(a.kind, '') IN ('mpesa_working', 'mpesa_utility', 'mpesa_charges_paid', 'deriv_agent')
        AND {{condition}}
    """  # noqa: S608 - our own names
    for side, sign in (("debit", ""), ("credit", "-"))
)


def float_legs_recorded(kind: str, owner: str, since: datetime, until: datetime) -> list[FloatLeg]:
    """The legs of one account recorded from `since` to before `until`, oldest first: a range of the ids' index, for an
    entry's UUIDv7 tells when it was made, and that is a moment before it was recorded.
    """
    first, last = (f"X'{int(at.timestamp() * 1000):012x}{'0' * 20}'" for at in (since, until))
    return _legs(
        f"e.id >= {first} AND e.id < {last} AND COALESCE(a.kind, '') = %s AND COALESCE(a.owner, '') = %s", [kind, owner]
    )


def float_legs_under(provider_keys: Sequence[str]) -> list[FloatLeg]:
    """The legs with these provider keys, oldest first; a SELECT for each 1,000."""
    found: list[FloatLeg] = []
    for start in range(0, len(provider_keys), 1000):
        part = list(provider_keys[start : start + 1000])
        found += _legs(f"e.provider_key IN ({marks(part)})", part)
    return found


def _legs(condition: str, parameters: list[Any]) -> list[FloatLeg]:
    rows = select(f"{_LEGS.format(condition=condition)} ORDER BY 1", [*parameters, *parameters])
    return [
        FloatLeg(key, kind, owner, int(amount), currency, of and as_uuid(of), purpose, *map(as_time, times))
        for _, key, kind, owner, amount, currency, of, purpose, *times in rows
    ]
