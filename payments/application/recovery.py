"""Orphan money: the providers' books are read for what no Transaction here explains, well inside their 48 hours.

What belongs to a Transaction wakes it, also when it has ended: its own steps take the proof. What belongs to none goes
into suspense, where a person finds it. A run is safe to repeat, and whatever could not be read is read next time.
What fails harms nothing else: the other accounts are read all the same, and the run says at its end that it failed.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from payments.application.saga import Timing
from payments.domain.orphan import Orphan, OrphanBook, Provider
from payments.domain.ports import FloatKind, LedgerGateway
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.events import Event, SuspenseExplained
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Unreadable
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import (
    AgentEntry,
    DerivTransfer,
    Leg,
    MpesaPayment,
    MpesaRequest,
    RequestStatus,
)

log = logging.getLogger(__name__)

REACH = timedelta(hours=47)
SHOWN_FOR = timedelta(hours=24)  # how long a saga is shown an entry beyond its own; then it is an orphan like others
SETTLES_IN = timedelta(seconds=Timing().settles_s)


class MpesaBook(Protocol):
    """M-Pesa's book and our attempts in it."""

    def received(self, shortcode: str, since: datetime, until: datetime) -> Sequence[MpesaPayment] | Unreadable:
        """Calls out: everything that came in."""

    def prompts_by(self, references: Sequence[str]) -> Mapping[str, MpesaRequest]:
        """By AccountReference; one SELECT in the caller's unit of work."""

    def attach_receipts(self, receipts: Mapping[RequestId, str]) -> None:
        """To prompts that were proven without one."""


class DerivBook(Protocol):
    """The agents' books and our attempts in them."""

    def agent_names(self) -> Sequence[str]:
        """Every agent credential there is."""

    def book(self, agent: str, since: datetime) -> Sequence[AgentEntry] | Unreadable:
        """Calls out: every entry since then."""

    def known_entries(self, agent: str, ids: Sequence[str]) -> set[str]:
        """Those that our attempts hold as theirs; one SELECT in the caller's unit of work."""

    def transfers_by(self, references: Sequence[str]) -> Mapping[str, DerivTransfer]:
        """By reference, the newest attempt of each; one SELECT."""


class Reopens(Protocol):
    """A saga."""

    def look_again(self, ids: Sequence[TransactionId]) -> None:
        """Those of its type ask their providers once more, whatever their status. Raises `StepsFailed` at the end."""


class RecoveryIncomplete(Exception):
    """Something of a run failed, and was left to the next one; everything else was done. `told` counts all."""

    def __init__(self, told: Mapping[str, int]) -> None:
        super().__init__(", ".join(f"{what}: {number}" for what, number in told.items()))
        self.told = told


@dataclass(frozen=True)
class Recovery:
    """Run every hour, and by hand."""

    mpesa: MpesaBook
    deriv: DerivBook
    sagas: Sequence[Reopens]
    orphans: OrphanBook
    ledger: LedgerGateway
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource
    shortcodes: Callable[[], Sequence[str]]
    settles_in: timedelta = SETTLES_IN

    def find_orphans(self) -> dict[str, int]:
        """How many were `woken`, went into `suspense`, how many books were `unreadable`, and that none `failed`.

        Raises `RecoveryIncomplete` at the end if an account or a Transaction did.
        """
        told = {"woken": 0, "suspense": 0, "unreadable": 0, "failed": 0}
        at = self.clock()
        for shortcode in self.shortcodes():
            woken: list[TransactionId] = []
            with self._alone(told, shortcode):
                payments = self.mpesa.received(shortcode, at - REACH, at)
                if isinstance(payments, Unreadable):
                    self._unreadable(told, shortcode, payments)
                else:
                    settled = [p for p in payments if p.paid_at < at - self.settles_in]
                    told["suspense"] += self._payments(woken, shortcode, settled, at)
            self._wake(told, woken)  # also where its orphans could not be stored
        for agent in self.deriv.agent_names():
            woken = []
            with self._alone(told, agent):
                entries = self.deriv.book(agent, at - REACH)
                if isinstance(entries, Unreadable):
                    self._unreadable(told, agent, entries)
                else:
                    complete = [e for e in entries if e.status == "complete" and e.at < at - self.settles_in]
                    told["suspense"] += self._entries(woken, agent, complete, at)
            self._wake(told, woken)
        if told["failed"]:
            raise RecoveryIncomplete(told)
        return told

    @contextmanager
    def _alone(self, told: dict[str, int], what: str) -> Iterator[None]:
        """What fails in here is logged and counted."""
        try:
            yield
        except Exception:
            told["failed"] += 1
            log.exception("orphan_recovery_failed", extra={"account": what})

    def _payments(
        self, woken: list[TransactionId], shortcode: str, payments: Sequence[MpesaPayment], at: datetime
    ) -> int:
        """How many went into suspense; `woken` gets those whose money it is."""
        with self.unit_of_work():
            prompts = self.mpesa.prompts_by([payment.reference.upper() for payment in payments])
            known = self._known(Provider.MPESA, shortcode, [payment.receipt for payment in payments])
            found: list[Orphan] = []
            receipts: dict[RequestId, str] = {}
            for payment in payments:
                prompt = prompts.get(payment.reference.upper())
                if prompt is not None and prompt.status is not RequestStatus.DONE:
                    woken.append(prompt.transaction_id)
                elif prompt is not None and not prompt.receipt and prompt.amount == payment.amount:
                    receipts.setdefault(prompt.id, payment.receipt)  # it was proven by the query alone
                elif payment.receipt not in known and (prompt is None or prompt.receipt != payment.receipt):
                    found.append(self._payment(shortcode, payment, prompt, at))
            self.mpesa.attach_receipts(receipts)
            self._into_suspense(found, at)
        return len(found)

    def _entries(self, woken: list[TransactionId], agent: str, entries: Sequence[AgentEntry], at: datetime) -> int:
        with self.unit_of_work():
            ids = [entry.id for entry in entries]
            known = self.deriv.known_entries(agent, ids) | self._known(Provider.DERIV, agent, ids)
            back = self.deriv.known_entries(agent, [entry.reverses for entry in entries if entry.reverses])
            known |= {entry.id for entry in entries if entry.reverses in back}  # its saga posts it: reconciliation sees
            fresh = [entry for entry in entries if entry.id not in known]
            attempts = self.deriv.transfers_by([entry.reference for entry in fresh if entry.reference])
            found = []
            for entry in fresh:
                attempt = attempts.get(entry.reference)
                if attempt is not None and _fits(attempt, entry) and _is_for_saga(attempt, agent, entry, at):
                    woken.append(attempt.transaction_id)
                else:
                    found.append(self._entry(agent, entry, attempt, at))
            self._into_suspense(found, at)
        return len(found)

    def _known(self, provider: Provider, account: str, movements: Sequence[str]) -> set[str]:
        """Those that were found before, or are in the ledger as whatever: a double booking has no row of its own."""
        keys = {f"{provider}:{account}:{movement}": movement for movement in movements}
        posted = {keys[key] for key in self.ledger.posted(keys)}
        return posted | self.orphans.known(provider, account, movements)

    def _payment(self, shortcode: str, payment: MpesaPayment, prompt: MpesaRequest | None, at: datetime) -> Orphan:
        return Orphan(
            id=self.new_id(),
            provider=Provider.MPESA,
            account=shortcode,
            movement=payment.receipt,
            amount=payment.amount,
            moved_at=payment.paid_at,
            found_at=at,
            reference=payment.reference,
            transaction=prompt.transaction_id if prompt else None,
        )

    def _entry(self, agent: str, entry: AgentEntry, attempt: DerivTransfer | None, at: datetime) -> Orphan:
        return Orphan(
            id=self.new_id(),
            provider=Provider.DERIV,
            account=agent,
            movement=entry.id,
            amount=entry.amount,
            moved_at=entry.at,
            found_at=at,
            reference=entry.reference,
            transaction=attempt.transaction_id if attempt else None,
        )

    def _into_suspense(self, orphans: Sequence[Orphan], at: datetime) -> None:
        """In the caller's unit of work: rows, entries and audit together."""
        self.orphans.add(orphans)
        for orphan in orphans:
            kind: FloatKind = "mpesa_working" if orphan.provider is Provider.MPESA else "deriv_agent"
            amount = Money(abs(orphan.amount.amount), orphan.amount.currency)
            post = self.ledger.post_suspense_in if orphan.amount.amount > 0 else self.ledger.post_suspense_out
            post(kind, orphan.account, amount, provider_key=orphan.provider_key, at=orphan.moved_at)
            log.error("orphan_money", extra={"orphan": str(orphan.id), "provider": str(orphan.provider)})
        self.audit.append(
            AuditRecord("orphan.found", "orphan", str(o.id), at, details={"amount": str(o.amount)}) for o in orphans
        )

    def _wake(self, told: dict[str, int], woken: Sequence[TransactionId]) -> None:
        told["woken"] += len(set(woken))
        for saga in self.sagas:
            with self._alone(told, type(saga).__name__):
                try:
                    saga.look_again(sorted(set(woken)))
                except StepsFailed as failed:  # logged, one by one, by the saga
                    told["failed"] += len(failed.errors)

    def _unreadable(self, told: dict[str, int], account: str, why: Unreadable) -> None:
        told["unreadable"] += 1
        log.warning("book_not_readable", extra={"account": account, "code": why.code})


@dataclass(frozen=True)
class ExplainedOrphans:
    """Follows `SuspenseExplained`: what treasury took out of suspense waits for nobody any more, until it is reversed.

    `settled` is the ledger's word: which of these provider keys some journal that stands has settled.
    """

    orphans: OrphanBook
    settled: Callable[[Collection[str]], set[str]]
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock

    def look_again(self, events: Sequence[Event]) -> None:
        """Harmless to repeat, in whatever order: the events only say where to look."""
        keys = sorted({event.provider_key for event in events if isinstance(event, SuspenseExplained)})
        with self.unit_of_work():
            settled, at = self.settled(keys), self.clock()
            wanted = {True: [key for key in keys if key in settled], False: [key for key in keys if key not in settled]}
            for is_settled, some in wanted.items():
                action = "orphan.settled" if is_settled else "orphan.opened_again"
                changed = self.orphans.mark(dict.fromkeys(some, at if is_settled else None))
                self.audit.append(AuditRecord(action, "orphan", str(id), at) for id in changed)


def _fits(attempt: DerivTransfer, entry: AgentEntry) -> bool:
    """Whether the entry can be what the attempt moved; its own step looks closer."""
    signed = attempt.amount.amount if attempt.leg is Leg.DERIV_DEBIT else -attempt.amount.amount
    return entry.amount == Money(signed, attempt.amount.currency)


def _is_for_saga(attempt: DerivTransfer, agent: str, entry: AgentEntry, at: datetime) -> bool:
    """Its step takes what an attempt is looked for; an entry beyond those of a credit that is done is a double booking,
    which freezes the agent. A second debit is nobody's yet, and neither is what no saga took within a day.
    """
    if attempt.status is not RequestStatus.DONE:
        return True
    return attempt.leg is not Leg.DERIV_DEBIT and attempt.agent == agent and entry.at > at - SHOWN_FOR
