"""The watch over the providers' balances: asked all day, stored, and held against the ledger's float accounts.

The ledger and what is in flight are read before the provider is asked; what was sent until it answered is added. So the
provider's balance lies between the ledger's less what is going and plus what is coming, unless something moved that we
know nothing of. A drift that two looks in a row find raises one alert, and one more line says when it is over. M-Pesa
answers by callback: what it has told by then is taken at the next run.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from payments.application.mpesa_payment import CONFIRMED
from payments.application.withdrawal import FEE_RESERVE
from payments.domain.balances import DRIFTS_AFTER, M_PESAS, BalanceBook, Drift, Look, Seen, names_of, together
from payments.domain.orphan import Provider
from payments.domain.reconciliation import FloatAccountKind
from shared_kernel.domain.budgets import MPESA_LANE, Budgets, Lane, deriv_lane
from shared_kernel.domain.identifiers import RequestId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Outcome, Unreadable
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork

log = logging.getLogger(__name__)

AWAITED = timedelta(hours=1)  # an answer that comes later says nothing about now
CHARGED_WITHIN = timedelta(hours=26)  # by then a payout's charge was told with its confirmation


class MpesaBalances(Protocol):
    """M-Pesa's Account Balance, and our attempts."""

    def ask_balance(self, shortcode: str, *, id: RequestId | None = None) -> Outcome:
        """Calls out; opens its own units of work. Answered by callback."""

    def told(self, questions: Sequence[UUID]) -> Mapping[UUID, tuple[Mapping[str, Money], datetime]]:
        """What was answered to these questions, by M-Pesa's name of the account, and when."""

    def in_flight(self, shortcode: str, *, made_since: datetime | None = None) -> tuple[int, int]:
        """Cents coming and going by attempts that are open, or by all made since then."""

    def charged_later(self, shortcode: str, confirmed: str, since: datetime) -> int:
        """How many payouts sent since then have charges that M-Pesa has not told."""


class DerivBalances(Protocol):
    """The agents' balances, and our attempts."""

    def agent_names(self) -> Sequence[str]: ...

    def balance(self, agent: str) -> Money | Unreadable:
        """Calls out."""

    def in_flight(self, agent: str, *, made_since: datetime | None = None) -> tuple[int, int]:
        """Cents coming and going by attempts that are open, or by all made since then."""


@dataclass(frozen=True, kw_only=True)
class Balances:
    """`look` asks all accounts, `take` what M-Pesa has answered; both are safe to repeat."""

    mpesa: MpesaBalances
    deriv: DerivBalances
    held: Callable[[FloatAccountKind, str], int]  # what the ledger says an account holds, exact
    book: BalanceBook
    audit: AuditLog
    budgets: Budgets
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource
    shortcodes: Callable[[], Sequence[str]]

    def look(self) -> dict[str, int]:
        """How many accounts were `asked`, `seen`, and how many drifts are `open`; without room in the budget of reads
        an account is `left` to the next run, and one that can't be read is told in the log.
        """
        told = {"asked": 0, "left": 0, "seen": 0, "open": 0}
        self._close_strays()
        for shortcode in self._take(told):  # since the look before: its callbacks do not come
            log.warning("balance_not_readable", extra={"account": shortcode, "code": "no_answer"})
        for shortcode in sorted(set(self.shortcodes())):
            told["asked" if self._permit(MPESA_LANE) and self._ask_mpesa(shortcode) else "left"] += 1
        for agent in self.deriv.agent_names():
            told["asked" if self._permit(deriv_lane(agent)) and self._ask_deriv(agent, told) else "left"] += 1
        self._take(told)
        return told

    def take(self) -> dict[str, int]:
        """How many accounts were `seen` by what M-Pesa has answered since, and how many of them drift (`open`)."""
        told = {"seen": 0, "open": 0}
        self._take(told)
        return told

    # --- asking -------------------------------------------------------------------------------------------------------

    def _permit(self, lane: Lane) -> bool:
        """From the share of reads, which money does not wait for."""
        with self.budgets.hand({lane: (0, 1)}, from_queue=True) as hand:
            return hand.take(lane, reads=True)

    def _ask_mpesa(self, shortcode: str) -> bool:
        id = RequestId(self.new_id())
        with self.unit_of_work():
            at = self.clock()
            coming, going = self.mpesa.in_flight(shortcode)
            charges = self.mpesa.charged_later(shortcode, CONFIRMED, at - CHARGED_WITHIN) * FEE_RESERVE.amount
            looks = [
                self._look(Provider.MPESA, shortcode, kind, Currency.KES, at, flight, id)
                for kind, flight in zip(M_PESAS, ((coming, going), (coming, going), (0, charges)), strict=True)
            ]
            self.book.add(looks)
        outcome = self.mpesa.ask_balance(shortcode, id=id)
        if isinstance(outcome, Accepted):
            return True
        code = getattr(outcome, "code", type(outcome).__name__)
        log.warning("balance_not_readable", extra={"account": shortcode, "code": code})
        return False

    def _ask_deriv(self, agent: str, told: dict[str, int]) -> bool:
        with self.unit_of_work():
            at, flight = self.clock(), self.deriv.in_flight(agent)
            look = self._look(Provider.DERIV, agent, FloatAccountKind.DERIV_AGENT, Currency.USD, at, flight)
        balance = self.deriv.balance(agent)
        if isinstance(balance, Unreadable):
            log.warning("balance_not_readable", extra={"account": agent, "code": balance.code})
            return False
        with self.unit_of_work():
            seen = self._answered(look, balance.amount, self.clock(), self.deriv.in_flight(agent, made_since=at))
            self.book.add([seen])
            self._judge([seen], told)
        return True

    def _look(
        self, provider: Provider, account: str, kind: FloatAccountKind, currency: Currency, at: datetime,
        flight: tuple[int, int], question: UUID | None = None,
    ) -> Look:  # fmt: skip
        """After `flight` was read: what is booked between the two is counted twice, and never missed."""
        held = self.held(kind, account)
        return Look(
            id=self.new_id(), provider=provider, account=account, sub_account=kind, currency=currency, asked_at=at,
            ledger=held, coming=flight[0], going=flight[1], question=question,
        )  # fmt: skip

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answered(self, look: Look, amount: int, at: datetime, since: tuple[int, int]) -> Look:
        """With what was sent since it was asked: it may have moved by the moment of the answer."""
        return replace(look, amount=amount, as_of=at, coming=look.coming + since[0], going=look.going + since[1])

    def _take(self, told: dict[str, int]) -> list[str]:
        """Every question of M-Pesa's that has an answer, the oldest first, in one unit of work; whose have none."""
        with self.unit_of_work():
            awaited = self.book.awaited(self.clock() - AWAITED)
            answers = self.mpesa.told(sorted({look.question for look in awaited if look.question}))
            for question, (accounts, at) in sorted(answers.items(), key=lambda answer: answer[1][1]):
                asked = [look for look in awaited if look.question == question]
                looks = self._told([look for look in asked if M_PESAS[look.sub_account] in accounts], accounts, at)
                self.book.answered(looks)
                self._judge(looks, told)
                if looks and len(looks) < len(asked):  # what is missing is not judged, with its whole group
                    log.warning("balance_not_readable", extra={"account": looks[0].account, "code": "incomplete"})
        return sorted({look.account for look in awaited if look.question not in answers})

    def _told(self, looks: Sequence[Look], accounts: Mapping[str, Money], at: datetime) -> list[Look]:
        """One answer: all of it is of one shortcode."""
        if not looks:
            return []
        shortcode, asked_at = looks[0].account, looks[0].asked_at
        since = self.mpesa.in_flight(shortcode, made_since=asked_at)
        charges = self.mpesa.charged_later(shortcode, CONFIRMED, asked_at) * FEE_RESERVE.amount
        own = {FloatAccountKind.MPESA_CHARGES_PAID: (0, charges)}
        return [
            self._answered(look, accounts[M_PESAS[look.sub_account]].amount, at, own.get(look.sub_account, since))
            for look in looks
        ]

    def _judge(self, looks: Sequence[Look], told: dict[str, int]) -> None:
        """In the caller's unit of work: drifts that begin, go on or are over."""
        told["seen"] += len(looks)
        for seen in together(looks):
            drift = self.book.open_drift(seen.name)
            if seen.unexplained:
                told["open"] += 1
                self._goes_on(drift, seen)
            elif drift is not None and drift.seen_at <= seen.as_of:
                self._is_over(drift, seen)

    def _goes_on(self, drift: Drift | None, seen: Seen) -> None:
        """One alert, however long it lasts."""
        if drift is None:
            first = seen.first
            drift = Drift(
                id=self.new_id(), provider=first.provider, account=first.account, sub_accounts=seen.sub_accounts,
                currency=first.currency, since=seen.as_of, looks=0, difference=0, unexplained=0, seen_at=seen.as_of,
            )  # fmt: skip
        drift = replace(
            drift, looks=drift.looks + 1, difference=seen.difference, unexplained=seen.unexplained, seen_at=seen.as_of
        )
        if drift.looks >= DRIFTS_AFTER and drift.alerted_at is None:
            drift = replace(drift, alerted_at=seen.as_of)
            self._tell("balance.drifts", drift, seen.as_of)
            log.error("balance_drift", extra=_facts(drift))
        self.book.save(drift)

    def _is_over(self, drift: Drift, seen: Seen) -> None:
        over = replace(drift, over_at=seen.as_of, seen_at=seen.as_of, difference=seen.difference, unexplained=0)
        self.book.save(over)
        if drift.alerted_at is not None:
            self._tell("balance.drift_over", over, seen.as_of)
            log.warning("balance_drift_over", extra=_facts(over))

    def _close_strays(self) -> None:
        """Drifts of accounts that are ours no longer, or that are held against the ledger in another way by now: no
        look would ever end them. What was apart stays told.
        """
        watched = [name for shortcode in self.shortcodes() for name in names_of(Provider.MPESA, shortcode)]
        watched += [name for agent in self.deriv.agent_names() for name in names_of(Provider.DERIV, agent)]
        with self.unit_of_work():
            at = self.clock()
            for drift in self.book.open_beside(watched):
                self.book.save(replace(drift, over_at=at))
                self._tell("balance.drift_over", drift, at, why="watched no longer")
                if drift.alerted_at is not None:
                    log.warning("balance_drift_over", extra=_facts(drift))

    def _tell(self, action: str, drift: Drift, at: datetime, *, why: str = "the watch over balances") -> None:
        facts = _facts(drift)
        about = facts.pop("drift")
        self.audit.append([AuditRecord(action, "balance_drift", about, at, why=why, details=facts)])


def _facts(drift: Drift) -> dict[str, str]:
    return {
        "drift": str(drift.id),
        "provider": str(drift.provider),
        "account": drift.account,
        "sub_account": drift.sub_accounts,
        "difference": str(Money(drift.difference, drift.currency)),
        "unexplained": str(Money(drift.unexplained, drift.currency)),
        "since": drift.since.isoformat(),
    }
