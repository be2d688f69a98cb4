"""What people make of a break: one explains it, or proposes what is posted and another one approves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from payments.application.reconciliation import MOST_OVERDUE, DerivSide, MpesaSide, told
from payments.domain.orphan import Orphan, OrphanBook, Provider
from payments.domain.ports import FloatKind, LedgerGateway
from payments.domain.reconciliation import (
    Break,
    BreakBook,
    BreakKind,
    BreakNotOpen,
    BreakStatus,
    FloatAccountKind,
    NothingToPost,
    ReasonMissing,
    Resolution,
    SamePerson,
)
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.ports import AuditLog, Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import DerivTransfer, MpesaRequest

SOON = timedelta(days=1)  # later than any attempt that has been made was to be sent
FLOATS: Mapping[FloatAccountKind, FloatKind] = {
    FloatAccountKind.MPESA_WORKING: "mpesa_working",
    FloatAccountKind.MPESA_UTILITY: "mpesa_utility",
    FloatAccountKind.DERIV_AGENT: "deriv_agent",
}


@dataclass(frozen=True)
class Breaks:
    """Nothing that a provider did not show is ever posted here."""

    breaks: BreakBook
    mpesa: MpesaSide
    deriv: DerivSide
    orphans: OrphanBook
    ledger: LedgerGateway
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource
    was_settled: Callable[[str], bool]  # whether what lay in suspense by that name lies there no longer

    def resolve(self, id: UUID, resolution: Resolution, *, by: str, why: str) -> BreakStatus:
        """`EXPLAINED` closes it; `INTO_SUSPENSE` waits for a second person.

        Raises `BreakNotFound`, `BreakNotOpen`, `NothingToPost`, `ReasonMissing`.
        """
        if not by or not why.strip():
            raise ReasonMissing("say who you are and why, for whoever approves it and for the audit")
        with self.unit_of_work():
            found, at = self.breaks.get(id), self.clock()
            if found.status is not BreakStatus.OPEN:
                raise BreakNotOpen(f"it is {found.status}")
            status = BreakStatus.RESOLVED
            if resolution is Resolution.INTO_SUSPENSE:
                self._must_be_postable(found)
                self.must_be_nobodys(found)
                status = BreakStatus.PROPOSED
            decided = replace(
                found, status=status, resolution=resolution, resolved_by=by[:64], why=why.strip()[:255],
                resolved_at=at, closed_at=at if status is BreakStatus.RESOLVED else None,
            )  # fmt: skip
            self.breaks.save([decided])
            self.audit.append([told(f"reconciliation.break_{status}", decided, at)])
        return status

    def approve(self, id: UUID, *, by: str) -> None:
        """Another person agrees: it is posted into suspense, where it ages like other orphans.

        Raises `BreakNotFound`, `BreakNotOpen`, `SamePerson`, `NothingToPost`, `ProviderKeyUsed`.
        """
        with self.unit_of_work():
            found, at = self.breaks.get(id), self.clock()
            if found.status is not BreakStatus.PROPOSED:
                raise BreakNotOpen(f"it is {found.status}: there is nothing to approve")
            if not by or by == found.resolved_by:
                raise SamePerson("somebody else has to approve what you propose")
            decided = replace(
                found, status=BreakStatus.RESOLVED, approved_by=by[:64], closed_at=at,
                provider_key=provider_key(found),
            )  # fmt: skip
            self.must_be_nobodys(found)
            self._into_suspense(found, at)
            self.breaks.save([decided])
            self.audit.append([told("reconciliation.break_approved", decided, at)])

    def reject(self, id: UUID, *, by: str, why: str) -> None:
        """A proposal is turned down: the break is open again.

        Raises `BreakNotFound`, `BreakNotOpen`, `ReasonMissing`.
        """
        if not by or not why.strip():
            raise ReasonMissing("say who you are and why, for the audit")
        with self.unit_of_work():
            found, at = self.breaks.get(id), self.clock()
            if found.status is not BreakStatus.PROPOSED:
                raise BreakNotOpen(f"it is {found.status}: there is nothing to reject")
            again = replace(found, status=BreakStatus.OPEN, resolution=None, resolved_by="", why="", resolved_at=None)
            self.breaks.save([again])
            self.audit.append([replace(told("reconciliation.break_rejected", found, at), why=why.strip()[:255])])

    def must_be_nobodys(self, found: Break) -> None:
        """An attempt that explains it, or may, posts it by its saga. Raises `NothingToPost`.

        In the caller's unit of work, without a lock on what may be behind it: M-Pesa's attempts are looked at in one
        statement, so that each is seen before or after it ended, and either way it explains the movement; and what a
        saga posts at this very moment by the provider's own id has the key that this movement has.
        """
        theirs, reference = _what_moved(found), found.reference.upper()
        whose = self.explained(found.provider, found.account, found.movement, theirs, found.at, reference)
        if whose is not None:
            raise NothingToPost(f"Transaction {whose} explains it, or may: see how that ends first")

    def explained(
        self,
        provider: Provider,
        account: str,
        movement: str,
        amount: Money,
        at: datetime,
        reference: str = "",
        *,
        other_amounts: bool = True,
    ) -> TransactionId | None:
        """The Transaction whose attempt explains a movement, or may; `amount` is signed, above zero it came in.

        Without `other_amounts` an open payout explains its own amount alone, or what M-Pesa has named to it: else
        nothing could be said of our own money while any payout is open.
        """
        attempts: list[MpesaRequest | DerivTransfer]
        if provider is Provider.MPESA:
            receipt = movement.removesuffix(":fee")
            found = self.mpesa.may_explain(account, receipt, reference, amount, at, other_amounts=other_amounts)
            attempts = [*found]
        else:
            moved = Money(abs(amount.amount), amount.currency)
            still_open = self.deriv.overdue(self.clock() + SOON, MOST_OVERDUE)
            attempts = [*self.deriv.transfers_by([reference]).values()] if reference else []
            attempts += [transfer for transfer in still_open if transfer.amount == moved]
        return attempts[0].transaction_id if attempts else None

    def _into_suspense(self, found: Break, at: datetime) -> None:
        theirs, float_kind = self._must_be_postable(found)
        orphan = Orphan(
            id=self.new_id(), provider=found.provider, account=found.account, movement=found.movement, amount=theirs,
            moved_at=found.at, found_at=at, transaction=found.transaction,
        )  # fmt: skip
        amount = Money(abs(theirs.amount), theirs.currency)
        post = self.ledger.post_suspense_in if theirs.amount > 0 else self.ledger.post_suspense_out
        post(float_kind, found.account, amount, provider_key=orphan.provider_key, at=found.at)
        self.orphans.add([orphan])

    def _must_be_postable(self, found: Break) -> tuple[Money, FloatKind]:
        """What is to be posted, and on which account. Raises `NothingToPost`.

        What took back a payment that lies in suspense settles that one; a Transaction's is its saga's, also where
        people have settled it. Where they settled what was nobody's, nothing else would ever bring the ledger to what
        the provider holds.
        """
        if found.theirs is None or found.sub_account not in FLOATS:
            raise NothingToPost("only what the provider's book shows, and our ledger lacks, goes into suspense")
        if found.kind is BreakKind.REVERTED:
            original = f"{found.provider}:{found.account}:{found.known_as.removesuffix(':reverted')}"
            if found.transaction is not None:
                raise NothingToPost(
                    f"it takes back what Transaction {found.transaction} moved, whose own steps post that when this "
                    f"book is reconciled next. If it lies in suspense, settle that by {found.movement}, as returned"
                )
            if not self.was_settled(original):
                raise NothingToPost(
                    f"it takes back what lies in suspense, or staff's: settle that by {found.movement}, or have "
                    "the treasury movement reversed"
                )
        elif found.kind is not BreakKind.MISSING_HERE:
            raise NothingToPost("only what the provider's book shows, and our ledger lacks, goes into suspense")
        return found.theirs, FLOATS[found.sub_account]


def _what_moved(found: Break) -> Money:
    """Raises `NothingToPost`."""
    if found.theirs is None:
        raise NothingToPost("the provider's book shows no such movement")
    return found.theirs


def provider_key(found: Break) -> str:
    return f"{found.provider}:{found.account}:{found.movement}"
