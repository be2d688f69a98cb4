"""Whether the promises were kept: each Transaction held against what the providers' own books say moved for it.

Nothing here knows the sagas: it is told rows and movements, and says which promise is broken by which Transaction.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

# Why a Transaction may wait for a person after this run: each reason, and the fault or blow that brings it about.
# Anything else is a broken promise 9. Where a reason says that nothing moved, the books are held against it below.
ALLOWED: dict[str, str] = {
    "payment_unknown": "B2C: the sender was killed or the request lost between intent and M-Pesa; Transaction Status "
    "then answers 'not found', which proves nothing",
    "payout_denied": "B2C forged_success: booked on the claim, as the design allows, and denied by M-Pesa afterwards",
    "paid_another_amount": "B2C wrong_amount: posted as M-Pesa tells it, the difference in suspense",
    "payment_contradictory": "STK or B2C forged_success: a success is claimed that no book shows",
    "payout_refused": "B2C: the result was lost, and Transaction Status only says that it was declined, not by whose "
    "fault",
    "receipt_not_found": "reversal of a payment whose row in M-Pesa's book could not be read in time",
    "refund_refused": "reversal: its answer was lost or contradicted, and M-Pesa is said to refuse it",
    "reversal_contradictory": "reversal: claims about it contradict each other",
    "transfer_unknown": "Deriv transfer: calls and statement failed until the deadline",
    "debit_unknown": "Deriv REST: the debit's request was lost; neither RequestIDNotFound nor the wallet proves an "
    "absence, so a person decides after the deadline (v3: calls and statement failed until then)",
    "credit_back_refused": "Deriv REST rejected: Deriv itself refuses the credit-back for good, and there is no other "
    "way back",
}
UNPAID = frozenset(
    {"payment_unknown", "payout_denied", "payout_refused"}
)  # reasons which say that M-Pesa's book has no payout
OUT = {"deposit": ("transfer", "reversal", "b2c"), "withdrawal": ("b2c", "transfer")}  # payout first, then give-backs
IN = {"deposit": ("stk", "c2b"), "withdrawal": ("withdrawal",)}
NOTHING = frozenset({"FAILED", "EXPIRED", "REJECTED"})
BACK = frozenset({"REFUNDED", "REVERSED"})


@dataclass(frozen=True, slots=True)
class Row:
    """A Transaction as the database has it; `references` are all by which a provider's movement may name it."""

    id: str
    type: str
    status: str
    reason: str
    amount: int
    payout: int
    references: frozenset[str]


@dataclass
class Verdict:
    """What was found; `broken` maps a Transaction, or "" for the whole, to the promises that it breaks."""

    broken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    shown: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def breaks(self, id: str, what: str) -> None:
        """One more."""
        self.broken[id].append(what)


def judge(rows: Sequence[Row], movements: Iterable[Mapping[str, Any]]) -> Verdict:
    """Promises 1, 2 and 9, Transaction by Transaction."""
    verdict, orphans = Verdict(), list[Mapping[str, Any]]()
    of = moved(rows, movements, orphans)
    for orphan in orphans:
        verdict.breaks("", f"promise 2: a movement that no Transaction of ours names: {dict(orphan)}")
    for row in rows:
        verdict.ends[f"{row.type} {row.status}"] += 1
        _hold_against(verdict, row, of.get(row.id, []))
    return verdict


def moved(
    rows: Iterable[Row], movements: Iterable[Mapping[str, Any]], orphans: list[Mapping[str, Any]]
) -> dict[str, list[Mapping[str, Any]]]:
    """The standing movements of each Transaction. M-Pesa's charges are the house's, and left out."""
    owner = {reference: row.id for row in rows for reference in row.references}
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for movement in movements:
        if movement.get("status") == "reverted" or movement["kind"] == "fee":
            continue
        ours = [owner[word] for name in ("reference", "note", "request_id")
                for word in str(movement.get(name, "")).split() if word in owner]  # fmt: skip
        if ours:
            found[ours[0]].append(movement)
        else:
            orphans.append(movement)
    return found


def _hold_against(verdict: Verdict, row: Row, movements: Sequence[Mapping[str, Any]]) -> None:
    came = [minor(one) for one in movements if one["kind"] in IN[row.type]]
    left = {kind: [minor(one) for one in movements if one["kind"] == kind] for kind in OUT[row.type]}
    payout, *backs = left.values()
    back = [amount for amounts in backs for amount in amounts]
    if len(payout) + len(back) > 1:
        verdict.breaks(row.id, f"promise 1: money left more than once: {left}")
    expected: tuple[list[int], list[int], list[int]]
    if row.status == "COMPLETED":
        expected = [row.amount], [row.payout], []
    elif row.status in BACK:
        expected = [row.amount], [], [row.amount]
    elif row.status in NOTHING:
        expected = [], [], []
    else:
        _is_explained(verdict, row, came, payout, back)
        return
    if (came, payout, back) != expected:
        verdict.breaks(row.id, f"promise 2: {row.status}, but moved (in, out, back) {came, payout, back}")


def _is_explained(verdict: Verdict, row: Row, came: Sequence[int], payout: Sequence[int], back: Sequence[int]) -> None:
    if row.status != "NEEDS_ATTENTION":
        verdict.breaks(row.id, f"promise 9: still {row.status} after the faults were switched off")
        return
    reason = row.reason.partition(":")[0]
    verdict.shown[reason] += 1
    if reason not in ALLOWED:
        verdict.breaks(row.id, f"promise 9: before a person for {row.reason!r}, which no armed fault explains")
    elif reason in UNPAID and row.type == "withdrawal" and payout:
        verdict.breaks(row.id, f"promise 9: before a person for {row.reason!r}, but M-Pesa's book shows the payout")
    elif reason == "debit_unknown" and came:
        verdict.breaks(row.id, f"promise 9: before a person for {row.reason!r}, but Deriv's book shows the debit")
    elif reason == "credit_back_refused" and (payout or back):
        verdict.breaks(row.id, f"promise 9: before a person for {row.reason!r}, but a book shows that it left")


def minor(movement: Mapping[str, Any]) -> int:
    """The amount in minor units."""
    return int(Decimal(movement["amount"]).scaleb(2))
