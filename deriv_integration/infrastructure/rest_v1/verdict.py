"""What became of a transfer, from what the status call says and what the agent's wallet shows.

The wallet wins: it is the book. Source: Deriv contract, sections 1.6, 3.3 and 6.1.
"""

from collections.abc import Sequence

from deriv_integration.infrastructure.rest_v1.answers import FAILED
from deriv_integration.infrastructure.rest_v1.wallet import Unusable, WalletEntry
from shared_kernel.domain.outcome import Absent, Dead, Found, Lookup, Pending
from shared_kernel.domain.requests import DerivTransfer, Leg

NEVER_MADE = {"failed", "cancelled", "rejected"}  # of a wallet entry


def judged(transfer: DerivTransfer, status: str, id: str, entries: Sequence[WalletEntry]) -> Lookup:
    """`entries` are the transfer's own. Raises `Unusable` where the two don't fit together yet."""
    made = [entry for entry in entries if entry.status == "complete"]
    taken_back = [entry for entry in entries if entry.status == "reverted"]
    if made or taken_back:
        shown = made or taken_back
        return Found(tuple(entry.id for entry in shown), tuple(entry.amount for entry in shown), reverted=not made)
    if any(entry.status not in NEVER_MADE for entry in entries):
        return Pending()  # and any status that we don't know: not settled
    if entries:
        return _never_made(status, entries[0].status)
    return _not_in_wallet(transfer, status, id)


def _never_made(status: str, shown: str) -> Lookup:
    if status == "complete":
        raise Unusable("wallet_contradicts_status")
    return Dead(f"wallet_{shown}")


def _not_in_wallet(transfer: DerivTransfer, status: str, id: str) -> Lookup:
    is_debit = transfer.leg is Leg.DERIV_DEBIT
    if status in FAILED:
        return Dead(status)
    if status == "complete" and not is_debit:
        if not id:
            raise Unusable("transaction_id_missing")
        return Found((id,), (transfer.amount,))
    if status in {"requested", "pending", "processing", "complete"}:
        return Pending()  # a debit counts when the agent's wallet shows it
    if status in {"not_found", ""}:
        return Absent(proven=False, repeatable=not is_debit)
    raise Unusable("status_unknown")
