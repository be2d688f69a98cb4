"""Treasury movements: one person proposes, another one approves, and in that commit it is posted; then, for what goes
through cash in transit, one person sees it arrive and another one approves that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from shared_kernel.domain.events import SuspenseExplained
from shared_kernel.domain.fx import FxTurnover, result_of
from shared_kernel.domain.identifiers import JournalId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, OutboxRepository, UnitOfWork
from wallet.application.journals import mirrored
from wallet.domain.ledger import (
    Account,
    AccountKind,
    Entry,
    Journal,
    ProviderKeyUsed,
    customer_receivable,
    house,
    keys_of,
)
from wallet.domain.ports import LedgerBook, TreasuryBook
from wallet.domain.statement import KENYA
from wallet.domain.treasury import (
    OUTSIDE,
    RULES,
    AlreadyOpened,
    Booking,
    Kind,
    Leg,
    Movement,
    MovementExplained,
    MovementNotOpen,
    MovementRefused,
    OwesLess,
    RebookedTooOften,
    Status,
    Voucher,
    VoucherRefused,
    plain_key,
)
from wallet.domain.treasury_checks import checked, claimed, must_be_another, must_have_said

AUDITED = "treasury_movement"
# The Transaction that explains a movement outside, or may: by provider, our account there, the provider's own id (with
# `:fee` for a charge), the amount, above zero if it came in, and the start of the day on which it was booked there.
Explained = Callable[[str, str, str, Money, datetime], UUID | None]
OWNED = OUTSIDE - {AccountKind.BANK} | {AccountKind.CUSTOMER_RECEIVABLE}  # kinds of which there are several


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeMovement:
    """Accounts are named as in `bank`, `mpesa_utility:600992`, `deriv_agent:CR900001`, `customer_receivable:<user id>`;
    left out where the kind leaves no choice. `got` is what an FX close-out gets for `amount`.
    """

    kind: Kind
    amount: Money
    reference: str
    day: date
    why: str
    source: str = ""
    target: str = ""
    got: Money | None = None


@dataclass(frozen=True, kw_only=True)
class TreasuryMovements:
    """Proposes, approves, rejects, lets arrive, reverses. Every change has an audit row in its commit."""

    movements: TreasuryBook
    book: LedgerBook
    ours: Callable[[], Sequence[tuple[AccountKind, str]]]  # our accounts at the providers
    turnover: Callable[[], FxTurnover]
    explained: Explained
    audit: AuditLog
    outbox: OutboxRepository
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource

    def propose(self, command: ProposeMovement, *, by: str, drafted_by: str = "", dry_run: bool = False) -> Movement:
        """Posts nothing yet. Without `by` it is a draft of `drafted_by`, until somebody makes it theirs.

        Raises what `checked` raises, and what `approve` would raise for it today.
        """
        must_have_said(by or drafted_by)
        at = self.clock()
        movement = checked(self._movement(command, at, by, drafted_by), today=_today(at))
        with self.unit_of_work():
            self._must_be_possible(movement)
            if not dry_run:
                self.movements.add(movement)
                self._tell(movement, "", by or drafted_by, at, movement.why)
        return movement

    def propose_reversal(self, of: UUID, *, by: str, why: str) -> Movement:
        """All that a movement posted, mirrored. Raises `MovementNotFound`, `MovementNotOpen`, `ReasonMissing`."""
        must_have_said(by, why)
        with self.unit_of_work():
            wrong, at = self.movements.get(of), self.clock()
            _must_be_reversible(wrong)
            movement = Movement(
                id=self.new_id(), kind=Kind.REVERSAL, amount=wrong.amount, source=wrong.target, target=wrong.source,
                voucher=Voucher(wrong.voucher.reference, _today(at)), why=why.strip()[:255], at=at, got=wrong.got,
                reverses=of, by=by,
            )  # fmt: skip
            self.movements.add(movement)
            self._tell(movement, "", by, at, movement.why)
        return movement

    def adopt(self, id: UUID, *, by: str) -> None:
        """A draft becomes the proposal of whoever has looked at it. Raises `MovementNotFound`, `MovementNotOpen`."""
        must_have_said(by)
        with self.unit_of_work():
            draft, at = self.movements.get(id), self.clock()
            self._save(draft, draft.moved_to(Status.PROPOSED, by=by), by, at)

    def approve(self, id: UUID, *, by: str, as_seen: str = "") -> Status:
        """Another person agrees to what was proposed, or to its arrival: it is posted. Answers the new status.

        `as_seen` is what `preview` answered when it was looked at: what has changed since, of it or of what it
        reverses, is not approved unseen.

        Raises `MovementNotFound`, `MovementNotOpen`, `SamePerson`, `ProviderKeyUsed`, `OwesLess`, `AlreadyOpened`,
        `RebookedTooOften`, `MovementRefused`, `MovementExplained`.
        """
        with self.unit_of_work():
            self.movements.one_at_a_time()
            waiting, at = self.movements.get(id), self.clock()
            if as_seen and as_seen != self._as_seen(waiting):
                raise MovementNotOpen("it has changed since you looked at it: look at it again")
            if waiting.status is Status.ARRIVING:
                must_be_another(by, waiting.arrival_by)
                done = waiting.moved_to(Status.ARRIVED, arrival_approved_by=by, closed_at=at)
                self._post(done, Leg.ARRIVED)
            else:
                must_be_another(by, waiting.by)
                sent = waiting.in_transit
                status = Status.IN_TRANSIT if sent else Status.POSTED
                done = waiting.moved_to(status, approved_by=by, approved_at=at, closed_at=None if sent else at)
                if done.kind is Kind.REVERSAL:
                    self._reverse(done, by, at)
                else:
                    self._must_be_possible(done)
                    self._post(done, done.first_leg)
            self._save(waiting, done, by, at)
        return done.status

    def reject(self, id: UUID, *, by: str, why: str) -> Status:
        """What waits for approval is turned down: a proposal for good, an arrival until it is seen again.

        Its own proposer may. Raises `MovementNotFound`, `MovementNotOpen`, `ReasonMissing`.
        """
        must_have_said(by, why)
        with self.unit_of_work():
            waiting, at = self.movements.get(id), self.clock()
            if waiting.status is Status.ARRIVING:
                done = waiting.moved_to(Status.IN_TRANSIT, arrival=None, charge=0, lost=0, arrival_by="")
            else:
                done = waiting.moved_to(Status.REJECTED, closed_by=by, closed_why=why.strip()[:255], closed_at=at)
            self._save(waiting, done, by, at, why.strip()[:255])
        return done.status

    def arrive(
        self, id: UUID, *, reference: str, day: date, arrived: Money, charge: Money, by: str, lost: Money | None = None
    ) -> None:
        """One person has seen it on the other side, or that what is `lost` will never be there; another one has to
        approve. Raises what `claimed` raises.
        """
        with self.unit_of_work():
            sent, at = self.movements.get(id), self.clock()
            seen = claimed(sent, _voucher(reference, day), arrived, charge, lost, by=by, today=_today(at))
            self._booking(seen, Leg.ARRIVED)
            self._save(sent, seen, by, at)

    def accounts(self) -> list[str]:
        """The names of all accounts that a movement can be between; a customer's follows `customer_receivable:`."""
        kinds = {kind for rule in RULES.values() for kind in rule.gives | rule.takes}
        return [*sorted(kinds - OWNED), *sorted(f"{kind}:{owner}" for kind, owner in self.ours())]

    # --- what is posted -----------------------------------------------------------------------------------------------

    def preview(self, id: UUID) -> tuple[str, tuple[Entry, ...]]:
        """How it looks now, for `approve`, and what that would post; nothing if it waits for no approval.

        Raises `MovementNotFound`, `ProviderKeyUsed`, `RebookedTooOften`, `MovementExplained`.
        """
        with self.unit_of_work():
            movement = self.movements.get(id)
            as_seen = self._as_seen(movement)
            if movement.status not in {Status.DRAFT, Status.PROPOSED, Status.ARRIVING}:
                return as_seen, ()
            if movement.reverses is not None:
                return as_seen, self._mirrored(self.movements.get(movement.reverses))
            leg = Leg.ARRIVED if movement.status is Status.ARRIVING else movement.first_leg
            return as_seen, self._entries(movement, leg, self._booking(movement, leg))

    def _as_seen(self, movement: Movement) -> str:
        """A reversal posts what its movement has posted by then: that one is a part of how it looks."""
        if movement.reverses is None:
            return movement.as_seen
        return f"{movement.as_seen}||{self.movements.get(movement.reverses).as_seen}"

    def _entries(self, movement: Movement, leg: Leg, booking: Booking) -> tuple[Entry, ...]:
        result = None
        if movement.got is not None and leg is Leg.ARRIVED and not movement.is_lost:
            result = result_of(self.turnover(), movement.amount, movement.got)
        return movement.entries(leg, booking, result)

    def _mirrored(self, wrong: Movement) -> tuple[Entry, ...]:
        """Nothing moved outside for it: without keys of their own the mirrored legs were never there."""
        return tuple(mirrored(posted, None) for posted in self.movements.standing(wrong))

    def _post(self, movement: Movement, leg: Leg) -> None:
        voucher = movement.arrival if leg is Leg.ARRIVED and movement.arrival else movement.voucher
        booking = self._booking(movement, leg)
        self._append(movement.purpose(leg), booking.reference, self._entries(movement, leg, booking), voucher.at)
        if booking.from_suspense:
            self._explained(movement, leg)

    def _append(self, purpose: str, reference: str, entries: tuple[Entry, ...], at: datetime) -> None:
        self.book.append(Journal(JournalId(self.new_id()), purpose, reference, entries, at))

    def _explained(self, movement: Movement, leg: Leg) -> None:
        """Whoever keeps the list of what lies in suspense looks at the ledger again."""
        if key := movement.provider_key(leg):
            plain = plain_key(key)
            event = SuspenseExplained(movement_id=movement.id, provider_key=plain, occurred_at=self.clock())
            self.outbox.append([event])

    def _reverse(self, reversal: Movement, by: str, at: datetime) -> None:
        assert reversal.reverses is not None
        wrong = self.movements.get(reversal.reverses)
        _must_be_reversible(wrong)
        entries = self._mirrored(wrong)
        self._append("treasury_reversal", f"treasury:{reversal.id}:{Leg.WHOLE}", entries, at)
        if any(AccountKind.SUSPENSE in {entry.debit.kind, entry.credit.kind} for entry in entries):
            for leg in Leg:
                self._explained(wrong, leg)
        self._save(wrong, wrong.moved_to(Status.REVERSED, closed_at=at), by, at, reversal.why)

    def _booking(self, movement: Movement, leg: Leg) -> Booking:
        """Raises `ProviderKeyUsed`, `RebookedTooOften`, `MovementExplained`."""
        reference, key = f"treasury:{movement.id}:{leg}", movement.provider_key(leg)
        if key is None:
            return Booking(reference)
        if posted := self.movements.in_suspense(plain_key(key)):
            if movement.is_shown_by(posted.entry, leg):
                return Booking(self.book.settlement_of(plain_key(key)), from_suspense=True)
            if not (leg is Leg.SENT and movement.is_within and movement.is_shown_by(posted.entry, Leg.ARRIVED)):
                raise ProviderKeyUsed(f"{plain_key(key)} lies in suspense as {posted.entry.amount}, which this is not")
            key = movement.other_side(key)  # recovery saw it arrive, under the key that the sent leg has else
        keys = keys_of(key)
        if len(self.movements.undone(keys)) == len(keys):
            raise RebookedTooOften(f"{key} was undone {len(keys)} times: look for what is wrong before you go on")
        if self.book.posted([key]):
            raise ProviderKeyUsed(
                f"{key} is in the ledger already: look it up among the entries by this key. If it is wrong there, have "
                "it reversed first"
            )
        self._must_be_nobodys(movement, leg, key)
        return Booking(reference, key)

    def _must_be_nobodys(self, movement: Movement, leg: Leg, key: str) -> None:
        """A saga books M-Pesa's movements under its attempt's id where it knows no receipt: the key does not tell.

        What has a receipt's second key is the other side of what was asked about. Raises `MovementExplained`.
        """
        provider, account, outside = key.split(":", 2)
        voucher = movement.arrival if leg is Leg.ARRIVED and movement.arrival else movement.voucher
        if provider == "bank" or key != plain_key(key):
            return
        whose = self.explained(provider, account, outside, movement.moves_outside(leg), voucher.at)
        if whose is not None:
            raise MovementExplained(
                f"Transaction {whose} explains {outside}, or may: see how that ends first. If it is another payment, "
                "reconcile that day with the provider's statement file, which tells whose each receipt is"
            )

    # --- what is checked ----------------------------------------------------------------------------------------------

    def _must_be_possible(self, movement: Movement) -> None:
        """Raises `MovementRefused`, `OwesLess`, `AlreadyOpened`, `ProviderKeyUsed`, `RebookedTooOften`,
        `MovementExplained`.
        """
        for account in (movement.source, movement.target):
            if account.kind in OUTSIDE & OWNED and (account.kind, account.owner) not in self.ours():
                raise MovementRefused(f"{account.kind}:{account.owner} is none of ours: {', '.join(self.accounts())}")
        if movement.source.kind is AccountKind.CUSTOMER_RECEIVABLE:
            owed = self.book.balance(movement.source)
            if owed < movement.amount:
                raise OwesLess(f"this customer owes {owed}, and not {movement.amount}")
        if movement.kind is Kind.OPENING_BALANCE and self.movements.is_opened(movement.target):
            raise AlreadyOpened(f"{movement.target} has its opening balance: have that one reversed if it is wrong")
        self._booking(movement, movement.first_leg)

    def _movement(self, command: ProposeMovement, at: datetime, by: str, drafted_by: str) -> Movement:
        if command.kind is Kind.REVERSAL:
            raise MovementRefused("a reversal is proposed on the page of what it reverses")
        rule, got = RULES[command.kind], command.got
        return Movement(
            id=self.new_id(),
            kind=command.kind,
            amount=command.amount,
            source=_account(command.source, rule.gives, command.amount.currency, "from"),
            target=_account(command.target, rule.takes, (got or command.amount).currency, "to"),
            voucher=_voucher(command.reference, command.day),
            why=command.why.strip()[:255],
            at=at,
            got=got,
            status=Status.PROPOSED if by else Status.DRAFT,
            drafted_by=drafted_by,
            by=by,
        )

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _save(self, before: Movement, after: Movement, by: str, at: datetime, why: str = "") -> None:
        self.movements.save(after)
        self._tell(after, str(before.status), by, at, why or before.why)

    def _tell(self, movement: Movement, before: str, by: str, at: datetime, why: str) -> None:
        details = {
            "kind": str(movement.kind), "amount": str(movement.amount), "from": str(movement.source),
            "to": str(movement.target), "reference": movement.voucher.reference, "day": str(movement.voucher.day),
            "by": by, "proposed_by": movement.by, "approved_by": movement.approved_by, "got": movement.got,
            "reverses": movement.reverses, "drafted_by": movement.drafted_by,
        }  # fmt: skip
        if movement.arrival is not None:
            details |= {
                "arrival": movement.arrival.reference, "arrived_on": str(movement.arrival.day),
                "charge": str(Money(movement.charge, movement.amount.currency)), "seen_by": movement.arrival_by,
                "lost": Money(movement.lost, movement.amount.currency) if movement.lost else "",
                "arrival_approved_by": movement.arrival_approved_by,
            }  # fmt: skip
        told = {name: str(value) for name, value in details.items() if value}
        action = f"treasury.{movement.status}"
        record = AuditRecord(action, AUDITED, str(movement.id), at, before, str(movement.status), why, told)
        self.audit.append([record])


def _must_be_reversible(movement: Movement) -> None:
    """Raises `MovementNotOpen`."""
    if movement.kind is Kind.REVERSAL:
        raise MovementNotOpen("a reversal is not reversed: propose anew what it took back")
    movement.moved_to(Status.REVERSED)


def _today(at: datetime) -> date:
    return at.astimezone(KENYA).date()


def _voucher(reference: str, day: date) -> Voucher:
    """Raises `VoucherRefused` for what other alphabets would make a reference of in capitals, such as ß, ı or ﬁ."""
    if not reference.strip().isascii():
        raise VoucherRefused("give the reference in A-Z, 0-9 and /._- alone, as the provider or the document shows it")
    return Voucher(reference.strip().upper(), day)


def _account(name: str, kinds: frozenset[AccountKind], currency: Currency, side: str) -> Account:
    """`name`, or the only one that the kind leaves. Raises `MovementRefused`."""
    kind, _, owner = name.strip().partition(":")
    one_of = ", ".join(sorted(kinds))
    if not kind:
        if len(kinds) > 1 or kinds & OWNED:
            raise MovementRefused(f"say which account it goes {side}: one of {one_of}")
        return house(next(iter(kinds)), currency)
    if kind not in kinds:
        raise MovementRefused(f"{kind} is not what it goes {side}: give one of {one_of}")
    found = AccountKind(kind)
    if found is AccountKind.CUSTOMER_RECEIVABLE:
        return customer_receivable(_customer(owner), currency)
    if bool(owner) is not (found in OWNED):
        raise MovementRefused(f"{kind} {'has no owner' if owner else 'needs its owner, as in mpesa_working:174379'}")
    return Account(found, currency, owner)


def _customer(text: str) -> UserId:
    try:
        return UserId(UUID(text))
    except ValueError:
        raise MovementRefused("give whose it is: customer_receivable:<the user's id>") from None
