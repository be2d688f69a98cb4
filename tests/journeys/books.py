"""What moved, account by account: by the providers' own books and by the ledger. Both give minor units."""

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

Account: TypeAlias = tuple[str, str]
"""The ledger's kind and owner."""

KINDS = ("mpesa_working", "mpesa_utility", "mpesa_charges_paid", "deriv_agent")
MOVED = """
SELECT a.kind, a.owner, COALESCE(SUM(CASE WHEN e.debit_account_id = a.id THEN e.amount ELSE -e.amount END), 0)
FROM ledger_accounts a JOIN ledger_entries e ON a.id IN (e.debit_account_id, e.credit_account_id)
WHERE e.purpose <> 'opening' GROUP BY 1, 2
"""


def at_providers(
    mpesa: Iterable[Mapping[str, Any]], deriv: Iterable[Mapping[str, Any]], agents: Iterable[str]
) -> dict[Account, int]:
    """What our accounts gained since they were opened. What Deriv took back again is no movement any more."""
    gained: Counter[Account] = Counter()
    own = {agent: ("deriv_agent", agent) for agent in agents}
    for movement in mpesa:
        _move(gained, movement, {place: _of_mpesa(movement[place]) for place in ("from", "to")})
    for movement in deriv:
        if movement["status"] != "reverted":
            _move(gained, movement, {place: own.get(movement[place]) for place in ("from", "to")})
    return {account: amount for account, amount in gained.items() if amount}


def in_ledger(rows: Iterable[tuple[Any, ...]]) -> dict[Account, int]:
    """The same of the ledger; `rows` are what `MOVED` answers."""
    return {(kind, owner): int(amount) for kind, owner, amount in rows if kind in KINDS and amount}


def _of_mpesa(place: str) -> Account | None:
    shortcode, _, kind = place.partition("/")
    return (f"mpesa_{kind}", shortcode) if kind else None


def _move(gained: Counter[Account], movement: Mapping[str, Any], places: Mapping[str, Account | None]) -> None:
    amount = int(Decimal(movement["amount"]).scaleb(2))
    for place, sign in (("from", -1), ("to", 1)):
        if (account := places[place]) is not None:
            gained[account] += sign * amount
