"""Reconciliation: a provider's book of one account is held against our ledger; each difference is a break.

The providers are read with nothing open; then one commit holds the breaks, what closed, the report and their audit
rows. So a run that dies leaves nothing half done, and running again goes on where it was. A movement that no
Transaction explains is `Recovery`'s to put into suspense within the hour; what it posted is matched here, and what it
could not read or reach is a break.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any, Protocol

from payments.application.recovery import SETTLES_IN
from payments.domain.orphan import Provider
from payments.domain.reconciliation import (
    EAT,
    EXPECTED_WITHIN,
    REVERSED_WITHIN,
    SKEW,
    AccountUnknown,
    Book,
    BookUnreadable,
    Break,
    BreakBook,
    BreakKind,
    BreakStatus,
    FloatAccountKind,
    FloatLegs,
    Item,
    Leg,
    Movement,
    PeriodNotOver,
    Report,
    Result,
    counted,
    differences,
    matched,
)
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Unreadable
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import (
    AgentEntry,
    DerivTransfer,
    Leg as RequestLeg,
    MpesaPayment,
    MpesaRequest,
)

log = logging.getLogger(__name__)

TOO_LONG = "too_long"  # how the codes of a book end that is longer than is read
PULL_REACH = timedelta(hours=48)
WATCHES = (REVERSED_WITHIN, timedelta(days=7), timedelta(days=2))  # a book that is too long is read less far
MOST_OVERDUE = 10_000


class MpesaSide(Protocol):
    """M-Pesa's book by API, and our attempts behind its movements."""

    def received(self, shortcode: str, since: datetime, until: datetime) -> Sequence[MpesaPayment] | Unreadable:
        """Calls out: everything that came in."""

    def prompts_by(self, references: Sequence[str]) -> Mapping[str, MpesaRequest]:
        """By AccountReference; one SELECT."""

    def behind(self, ids: Sequence[RequestId], receipts: Sequence[str]) -> Sequence[MpesaRequest]:
        """The attempts with these ids or these receipts, and the reversals of their Transactions."""

    def may_explain(
        self,
        shortcode: str,
        receipt: str,
        reference: str,
        amount: Money,
        moved_at: datetime,
        *,
        other_amounts: bool = True,
    ) -> Sequence[MpesaRequest]:
        """The attempts that a movement may be the effect of; one SELECT."""

    def overdue(self, before: datetime, most: int) -> Sequence[MpesaRequest]:
        """The oldest attempts made before then whose outcome is open."""


class DerivSide(Protocol):
    """The agents' books by API, and our attempts."""

    def agent_names(self) -> Sequence[str]: ...

    def book(self, agent: str, since: datetime) -> Sequence[AgentEntry] | Unreadable:
        """Calls out: every entry since then."""

    def transfers_by(self, references: Sequence[str]) -> Mapping[str, DerivTransfer]:
        """The newest attempt of each reference; one SELECT."""

    def overdue(self, before: datetime, most: int) -> Sequence[DerivTransfer]:
        """The oldest attempts made before then whose outcome is open."""


class Deposits(Protocol):
    """The saga that posts what a provider took back of a deposit; without effect a second time."""

    def reverted(self, id: TransactionId, entry: str) -> None: ...

    def payment_reversed(self, id: TransactionId, receipt: str, amount: Money, movement: str = ...) -> None: ...


class Withdrawals(Protocol):
    """The saga that posts what Deriv took back of a withdrawal; without effect a second time."""

    def debit_reverted(self, id: TransactionId, entry: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Day:
    """What is reconciled: from `since` to before `until`."""

    since: datetime
    until: datetime


@dataclass(frozen=True)
class Reconciliation:
    """Run every night for the day before, and by hand; `by_file` takes the place of the API."""

    mpesa: MpesaSide
    deriv: DerivSide
    legs: FloatLegs
    breaks: BreakBook
    deposits: Deposits
    withdrawals: Withdrawals
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource
    paid_to: Callable[[], str]  # the shortcode that Pull knows
    shortcodes: Callable[[], Sequence[str]]  # all of ours, for which there may be files
    settles_in: timedelta = SETTLES_IN

    def day(self, date: date) -> Day:
        """A day of Nairobi; of today what has settled. Raises `PeriodNotOver`."""
        since, settled = datetime.combine(date, time(0), EAT), self.clock() - self.settles_in
        until = settled if since >= settled else min(since + timedelta(days=1), settled)
        if until <= since:
            raise PeriodNotOver(f"{date} has not begun, or nothing of it has settled yet: give a day that is over")
        return Day(since, until)

    def accounts(self, provider: Provider) -> Sequence[str]:
        """Our shortcodes, or our agents, there."""
        names = self.shortcodes() if provider is Provider.MPESA else self.deriv.agent_names()
        return sorted(set(names))

    def readable(self, provider: Provider) -> Sequence[str]:
        """Those whose book can be read by API."""
        return [self.paid_to()] if provider is Provider.MPESA else self.accounts(provider)

    def by_api(self, provider: Provider, account: str, day: Day, *, dry_run: bool = False) -> Report:
        """Deriv's book is read 30 days back, to see what was taken back since. Raises `AccountUnknown`,
        `BookUnreadable`.
        """
        self._known(provider, account)
        kind = FloatAccountKind.MPESA_WORKING if provider is Provider.MPESA else FloatAccountKind.DERIV_AGENT
        with self.unit_of_work():
            legs = self.legs.recorded(kind, account, day.since, day.until)
            waiting = self.breaks.of(provider, account, kind)
        since = self._reach(provider, day, legs, waiting)
        return self._run(self._read(provider, account, since, day), day, "api", dry_run=dry_run)

    def by_file(self, book: Book, day: Day, source: str, *, dry_run: bool = False) -> Report:
        """The very same file and day again changes nothing, and tells what it told before. Raises `AccountUnknown`."""
        self._known(book.provider, book.account)
        with self.unit_of_work():
            before = self.breaks.reported(book.provider, book.account, book.digest, day.since, day.until)
            waiting = len(self.breaks.of(book.provider, book.account, book.kind)) if before else 0
        if before is not None:
            return replace(before, repeated=True, still_open=waiting)
        return self._run(book, day, source, dry_run=dry_run)

    # --- one run ------------------------------------------------------------------------------------------------------

    def _known(self, provider: Provider, account: str) -> None:
        if account not in self.accounts(provider):
            what = "shortcode" if provider is Provider.MPESA else "agent"
            raise AccountUnknown(f"{account} is no {what} of ours: {', '.join(self.accounts(provider)) or 'none is'}")

    def _reach(self, provider: Provider, day: Day, legs: Iterable[Leg], waiting: Iterable[Break]) -> datetime:
        """How far back the book is read: whatever was recorded that day may have moved before it."""
        at = self.clock()
        limit = at - (PULL_REACH if provider is Provider.MPESA else REVERSED_WITHIN)
        if provider is Provider.MPESA and day.since < limit - timedelta(minutes=1):
            raise BookUnreadable("M-Pesa's Pull goes back 48 hours: give the statement of that day with --file")
        moved = [leg.moved_after for leg in legs]
        moved += [found.at for found in waiting if found.kind is BreakKind.MISSING_THERE]
        return max(min([day.since - SKEW, *moved]), limit)

    def _read(self, provider: Provider, account: str, since: datetime, day: Day) -> Book:
        """Calls out. Raises `BookUnreadable`."""
        shown: Sequence[Movement] | Unreadable
        if provider is Provider.MPESA:
            payments = self.mpesa.received(account, since, self.clock())
            kind = FloatAccountKind.MPESA_WORKING
            shown = payments if isinstance(payments, Unreadable) else [_came_in(payment) for payment in payments]
        else:
            since, entries = self._as_far_as_it_goes(account, since)
            kind = FloatAccountKind.DERIV_AGENT
            shown = entries if isinstance(entries, Unreadable) else movements_of(entries)
        if isinstance(shown, Unreadable):
            raise BookUnreadable(f"the book of {account} could not be read ({shown.code}): run it again later")
        return Book(provider, account, kind, since, shown, incoming_only=provider is Provider.MPESA)

    def _run(self, book: Book, day: Day, source: str, *, dry_run: bool) -> Report:
        with self.unit_of_work():
            at = self.clock()
            waiting = self.breaks.of(book.provider, book.account, book.kind)
            items, unchecked = self._compared(book, day, waiting)
            opened, closed = self._breaks(book, items, waiting, at)
            gone = {found.id for found in closed}
            report = Report(
                id=self.new_id(),
                provider=book.provider,
                account=book.account,
                sub_account=book.kind,
                since=day.since,
                until=day.until,
                read_since=book.since,
                source=source,
                digest=book.digest,
                counts=counted(items),
                opened=len(opened),
                closed=len(closed),
                still_open=len(opened) + sum(found.id not in gone for found in waiting),
                unchecked=unchecked,
                at=at,
            )
            if not dry_run:
                self._store(report, opened, closed, waiting, at)
        if not dry_run:
            self._take_back(book, (item for item in items if item.result is Result.REVERTED))
        return report

    def _compared(self, book: Book, day: Day, waiting: Sequence[Break]) -> tuple[list[Item], int]:
        """The day's movements and legs, and those of the open breaks; how many legs the book does not reach."""
        named = {movement.known_as for movement in book.movements}
        theirs = [m for m in book.movements if day.since <= m.at < day.until]
        theirs += [_remembered(b) for b in waiting if b.theirs is not None and b.known_as not in named]
        open_ones = {found.known_as for found in waiting}
        theirs += [m for m in book.movements if m.known_as in open_ones and not day.since <= m.at < day.until]
        recorded = self.legs.recorded(book.kind, book.account, day.since, day.until)
        keys = {found.provider_key for found in waiting if found.provider_key}
        keys |= self._keys_of(book, [*theirs, *book.movements])
        ours = {leg.provider_key: leg for leg in [*recorded, *self.legs.under(keys)] if leg.kind is book.kind}
        known = {leg.id for leg in ours.values()}
        rest = [m for m in [*theirs, *book.movements] if m.known_as not in known]
        by_staff = self.legs.under(key for m in rest for key in _staffs_keys(book.provider, book.account, m))
        ours |= {leg.provider_key: leg for leg in by_staff if leg.kind is book.kind}
        shown = {m.known_as for m in [*theirs, *book.movements]} | {m.id for m in book.movements}
        beyond = [leg for leg in recorded if leg.id not in shown and not leg.reference and not book.would_show(leg)]
        items = matched(book, [*theirs, *_rest(book, theirs)], ours.values())
        return _within(items, theirs, book, recorded), len(beyond)

    def _keys_of(self, book: Book, movements: Sequence[Movement]) -> set[str]:
        """The provider keys under which the ledger may hold them."""
        keys = {key for m in movements for key in _keys(book.provider, book.account, m)}
        if book.provider is Provider.MPESA:
            receipts = {part for m in movements for part in (m.id.removesuffix(":fee"), m.reverses) if part}
            attempts = [*self.mpesa.behind([], sorted(receipts))]
            references = sorted({m.reference.upper() for m in movements if m.reference})
            attempts += self.mpesa.prompts_by(references).values() if references else []
            for attempt in attempts:
                again = [f":{number}" for number in range(1, attempt.absences + 1)]
                for end in ("", *again):
                    key = f"mpesa:{attempt.shortcode}:{attempt.id}{end}"
                    keys |= {key, f"{key}:fee"}
        return keys

    def _breaks(
        self, book: Book, items: Sequence[Item], waiting: Sequence[Break], at: datetime
    ) -> tuple[list[Break], list[Break]]:
        """Those to be opened (anew), and those that are closed by this run."""
        found = [self._opened(book, item, kind, at) for item, kind in differences(items)]
        overdue = [] if book.digest else self._overdue(book, at)
        open_names = {one.name for one in waiting}
        old = {one.name: one for one in self.breaks.closed(book.provider, book.account, book.kind, [
            one.known_as for one in (*found, *overdue)
        ])}  # fmt: skip
        fresh = [
            replace(one, id=old[one.name].id) if one.name in old else one
            for one in (*found, *overdue)
            if one.name not in open_names and not _is_settled(old.get(one.name), one)
        ]
        right = {name: item.result for item in items for name in (item.id, item.provider_key) if name}
        still = None if book.digest else {one.known_as for one in overdue}
        closed = [one for one in waiting if _is_gone(one, right, still)]
        return fresh, closed

    def _opened(self, book: Book, item: Item, kind: BreakKind, at: datetime) -> Break:
        return Break(
            id=self.new_id(), kind=kind, provider=book.provider, account=book.account, sub_account=book.kind,
            known_as=item.id, movement=item.movement, at=item.at, opened_at=at, theirs=item.theirs, ours=item.ours,
            transaction=item.transaction, provider_key=item.provider_key, reference=item.reference,
        )  # fmt: skip

    def _overdue(self, book: Book, at: datetime) -> list[Break]:
        """Attempts whose outcome is open past their time: on any of our shortcodes, or by this agent."""
        soonest = at - min(EXPECTED_WITHIN.values())
        requests: Sequence[MpesaRequest | DerivTransfer]
        if book.provider is Provider.MPESA:
            requests = self.mpesa.overdue(soonest, MOST_OVERDUE)
        else:
            requests = [r for r in self.deriv.overdue(soonest, MOST_OVERDUE) if r.agent == book.account]
        return [
            Break(
                id=self.new_id(), kind=BreakKind.OVERDUE, provider=book.provider, account=book.account,
                sub_account=book.kind, known_as=f"attempt {request.id}", movement="", at=request.send_before,
                opened_at=at, ours=request.amount, transaction=request.transaction_id, owner="ops",
            )
            for request in requests
            if request.send_before + EXPECTED_WITHIN[request.leg] < at
        ]  # fmt: skip

    def _store(
        self, report: Report, opened: Sequence[Break], closed: Sequence[Break], waiting: Sequence[Break], at: datetime
    ) -> None:
        """In the caller's unit of work. A break that comes back is the old row, open again."""
        names = [found.known_as for found in opened]
        known = {b.id for b in self.breaks.closed(report.provider, report.account, report.sub_account, names)}
        self.breaks.add([found for found in opened if found.id not in known])
        done = [replace(found, status=BreakStatus.MATCHED, closed_at=at) for found in closed]
        self.breaks.save([*(found for found in opened if found.id in known), *done])
        self.breaks.report(report)
        self.audit.append([told("reconciliation.break_opened", found, at) for found in opened])
        self.audit.append([told("reconciliation.break_matched", found, at) for found in done])
        details = {**report.counts, "opened": report.opened, "closed": report.closed, "source": report.source}
        about = f"{report.provider} {report.account} {report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M}"
        record = AuditRecord("reconciliation.run", "reconciliation_run", str(report.id), at, details=details, why=about)
        self.audit.append([record])
        for found in opened:
            log.error("reconciliation_break", extra={"break": str(found.id), "kind": str(found.kind)})

    # --- what a provider took back ------------------------------------------------------------------------------------

    def _as_far_as_it_goes(self, agent: str, since: datetime) -> tuple[datetime, Sequence[AgentEntry] | Unreadable]:
        """An agent's book, and since when; a book that is too long is read less far, but from `since` on at least."""
        at = self.clock()
        for start in sorted({min(since, at - span) for span in WATCHES} | {since}):
            entries = self.deriv.book(agent, start)
            if not isinstance(entries, Unreadable) or not entries.code.endswith(TOO_LONG):
                break
        return start, entries

    def _take_back(self, book: Book, items: Iterable[Item]) -> None:
        """By their sagas; what these cannot take stays a break."""
        for item in items:
            try:
                self._taken_back(book, item)
            except DomainError as refused:
                log.warning("not_taken_back", extra={"movement": item.id, "code": refused.code})
            except Exception:
                log.exception("not_taken_back", extra={"movement": item.id})

    def _taken_back(self, book: Book, item: Item) -> None:
        """What opens a payment anew needs Deriv's own word: a file was given by somebody."""
        original, theirs = item.id.removesuffix(":reverted"), item.theirs
        if item.transaction is None or theirs is None:
            return
        match item.purpose:
            case "deposit_sent" if not book.digest:
                self.deposits.reverted(item.transaction, original)
            case "withdrawal_debited" if not book.digest:
                self.withdrawals.debit_reverted(item.transaction, original)
            case "deposit_received":  # no money leaves for it
                whose, paid = self._paid_by(original) or item.transaction, Money(-theirs.amount, theirs.currency)
                self.deposits.payment_reversed(whose, original, paid, item.movement)
            case _:
                pass  # a person decides

    def _paid_by(self, receipt: str) -> TransactionId | None:
        """The Transaction that a receipt pays by now: people may have matched it to another one than it came in for."""
        with self.unit_of_work():
            attempts = self.mpesa.behind([], [receipt])
        paid = (a.transaction_id for a in attempts if a.leg is RequestLeg.STK_PUSH and a.receipt == receipt)
        return next(paid, None)


def movements_of(entries: Iterable[AgentEntry]) -> list[Movement]:
    """Deriv's entries as movements: what was completed, and, where one was taken back, that as well.

    REST says so by the entry's status, v3 by an entry of its own.
    """
    found: list[Movement] = []
    for entry in entries:
        if entry.status not in {"complete", "reverted"}:
            continue  # nothing has moved
        found.append(Movement(entry.id, entry.amount, entry.at, entry.reference, entry.reverses))
        if entry.status == "reverted":
            back = Money(-entry.amount.amount, entry.amount.currency)
            found.append(Movement(f"{entry.id}:reverted", back, entry.at, "", entry.id))
    return found


def _came_in(payment: MpesaPayment) -> Movement:
    return Movement(payment.receipt, payment.amount, payment.paid_at, payment.reference)


def _keys(provider: Provider, account: str, movement: Movement) -> list[str]:
    """The provider keys under which the ledger may hold a movement, or what it takes back, by the provider's own id."""
    keys = [f"{provider}:{account}:{movement.id}"]
    if movement.reverses:
        original = f"{provider}:{account}:{movement.reverses}"
        keys += [original, f"{original}:reverted", f"{original}:reversed", f"{original}:reversed:excess"]
    return keys


def _staffs_keys(provider: Provider, account: str, movement: Movement) -> list[str]:
    """Those under which it, or what it takes back, may be booked beside its plain one: the arrival of a transfer within
    one shortcode, and what staff undid and anybody booked anew, as often as that is allowed
    (`wallet.domain.ledger.keys_of`).
    """
    plains = [f"{provider}:{account}:{id}" for id in (movement.id, movement.reverses) if id]
    again = ["", *(f":{number}" for number in range(2, 5))]
    return [f"{plain}{leg}{end}" for plain in plains for leg in ("", ":arrived") for end in again if leg or end]


def _rest(book: Book, theirs: Sequence[Movement]) -> list[Movement]:
    """What the book shows beside the period: a leg of the period may belong to it."""
    names = {movement.known_as for movement in theirs}
    return [movement for movement in book.movements if movement.known_as not in names]


def _within(items: Sequence[Item], theirs: Sequence[Movement], book: Book, recorded: Sequence[Leg]) -> list[Item]:
    """Those of the period, by its movements or by the legs that were recorded in it; and what was taken back since."""
    names, keys = {movement.known_as for movement in theirs}, {leg.provider_key for leg in recorded}
    waits = {movement.known_as for movement in book.movements} - names
    return [
        item
        for item in items
        if item.id not in waits
        or item.result is Result.REVERTED
        or (item.provider_key in keys and item.ours is not None)
    ]


def _remembered(found: Break) -> Movement:
    """What an earlier run saw: it is looked for again, for it may be in our ledger by now."""
    assert found.theirs is not None
    reverses = found.known_as.removesuffix(":reverted") if found.known_as.endswith(":reverted") else ""
    return Movement(found.movement or found.known_as, found.theirs, found.at, found.reference, reverses)


def _is_settled(old: Break | None, new: Break) -> bool:
    """Whether a person resolved this very difference."""
    return old is not None and old.status is BreakStatus.RESOLVED and (old.theirs, old.ours) == (new.theirs, new.ours)


def _is_gone(found: Break, right: Mapping[str, Result], overdue: set[str] | None) -> bool:
    """By what became of its movement, or of its leg, whose name may have been learnt; a file tells of no attempt."""
    if found.kind is BreakKind.OVERDUE:
        return overdue is not None and found.known_as not in overdue
    result = right.get(found.known_as, right.get(found.provider_key))
    return result is not None and result != Result(found.kind)


def told(action: str, found: Break, at: datetime) -> AuditRecord:
    details: dict[str, Any] = {"kind": str(found.kind), "provider": str(found.provider), "account": found.account}
    details |= {"movement": found.known_as}
    details |= {name: str(value) for name, value in (("theirs", found.theirs), ("ours", found.ours)) if value}
    if found.approved_by:
        details["approved_by"] = found.approved_by
    if found.resolved_by:
        details["resolved_by"] = found.resolved_by
    why = found.why
    return AuditRecord(
        action, "reconciliation_break", str(found.id), at, after=str(found.status), why=why, details=details
    )
