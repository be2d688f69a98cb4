"""The withdrawal saga, from the customer's command to the ledger, its steps in their order from top to bottom.

What a step may find, and what happens then, is in `docs/failure-tables.md`. Money comes in at
Deriv, proven by the agent's own book alone; it leaves by B2C, and where that is proven dead by the recipient's fault it
goes back to the login that it came from.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from functools import cache, partial
from typing import Any, ClassVar, assert_never
from uuid import UUID

from payments.application.deriv_credit import AskDeriv, CreditLeg, SendCredit, ready_for_credit
from payments.application.mpesa_payment import PaymentLeg, Rest, blame_of, movement_of, payment_step
from payments.application.quotes import Quotes, WrongCurrency
from payments.application.saga import AtDeriv, Question, Timing, TransactionSaga, own, send_again, sender_gone
from payments.application.taken_back import TakenBack
from payments.domain.eligibility import CustomerOwes, DerivLoginMissing, PayoutPolicy, PayoutSessions, usable_login
from payments.domain.limits import Limits
from payments.domain.ports import (
    Customer,
    DerivGateway,
    LedgerGateway,
    RateSource,
    RateStale,
    WithdrawalCodes,
)
from payments.domain.quote import Quote
from payments.domain.transaction import (
    FINAL,
    OtherWayOpen,
    Outflow,
    TransactionStatus as S,
    TransactionType,
)
from payments.domain.withdrawal import Withdrawal
from shared_kernel.application.runner import Answer, Step
from shared_kernel.domain.errors import Unavailable, Unprocessable
from shared_kernel.domain.events import DerivTokenWasRefused
from shared_kernel.domain.identifiers import DerivTransferId, IdempotencyKey, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Dead,
    Done,
    Found,
    Lookup,
    NotSent,
    Outcome,
    Pending,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.ports import IdempotencyKeys
from shared_kernel.domain.requests import (
    Blame,
    CodeSent,
    DerivLogin,
    DerivTransfer,
    Leg,
    MpesaClaim,
    MpesaRequest,
    RequestStatus,
)

LEAST_OF_QUOTE = Decimal("0.99")  # what a customer accepts who does not say: the quote less one per cent
TOKEN_REFUSED = frozenset({"http_401", "authorize:InvalidToken", "login_moved"})  # Deriv's words for a dead token
SCOPE_MISSING = "http_403"  # it lives, and may not do this
FEE_RESERVE = Money(20_00, Currency.KES)  # above every B2C charge; what is charged comes from M-Pesa's own word


class MinPayoutTooHigh(Unprocessable):
    """More than the quote gives."""


# --- step 2: the debit, sent once, proven by the agent's own book -----------------------------------------------------


@dataclass(frozen=True)
class DebitDeriv(Step[Withdrawal, DerivTransfer, Outcome]):
    """CREATED to DERIV_DEBIT_SENT: with the customer's token and one-time code, which whatever happens uses up."""

    deriv: DerivGateway
    timing: Timing
    sends_money = True

    def intend(self, transaction: Withdrawal, *, at: datetime) -> DerivTransfer | None:
        debit = transaction.debit
        if debit is None or not debit.verification_code:
            transaction.code_expired(at=at)
            return None
        if not transaction.token:
            debit.status = RequestStatus.CLOSED
            transaction.change(debit)
            transaction.login_unbound(at=at)
            return None
        debit.token = transaction.token
        send_again(debit, at=at)
        transaction.send_debit(debit, until=debit.send_before + self.timing.of(self.timing.answer_s), at=at)
        return debit

    def call(self, request: DerivTransfer, *, give_up_at: float) -> Outcome:
        return self.deriv.send(request, give_up_at=give_up_at)

    def conclude(self, transaction: Withdrawal, request: DerivTransfer, outcome: Outcome, *, at: datetime) -> None:
        debit = own(transaction.transfers, request.id)
        if transaction.status is not S.DERIV_DEBIT_SENT:
            return
        match outcome:
            case Done() | Accepted() | Unknown():  # even Deriv's yes is proven by the agent's own book alone
                transaction.wait(at, at=at)
            case NotSent(retry_after_s=retry_after_s):
                retry = self.timing.nth(self.timing.retries_s, transaction.attempts)
                transaction.wait(at + max(retry, self.timing.of(retry_after_s)), at=at)
            case Refused(code, reason):
                if code in TOKEN_REFUSED:  # what became of the money is another matter, and judged below
                    transaction.record(
                        DerivTokenWasRefused(user_id=transaction.user_id, sent_at=debit.created_at, occurred_at=at)
                    )
                if debit.status.is_dead:
                    transaction.fail(code, reason or "Deriv refused the withdrawal. Nothing was debited.", at=at)
                else:
                    transaction.wait(at, at=at)
            case _:
                assert_never(outcome)


@dataclass(frozen=True)
class AskDebit(AtDeriv, Step[Withdrawal, Question, Lookup | Unknown]):
    """DERIV_DEBIT_SENT to DERIV_DEBITED: the agent's book shows it, or Deriv itself says that it was not made."""

    deriv: DerivGateway
    ledger: LedgerGateway
    timing: Timing
    calls = 2  # as for a credit

    def intend(self, transaction: Withdrawal, *, at: datetime) -> Question:
        debit = transaction.debit
        assert debit is not None
        if debit.status is RequestStatus.SENDING:
            sender_gone(transaction, debit)
            transaction.wait(at + self.timing.of(self.timing.answer_s), at=at)
        debit.token = transaction.token  # for Deriv's status call, while it lives
        return Question(debit, at)

    def call(self, request: Question, *, give_up_at: float) -> Lookup:
        return self.deriv.find(request.request)

    def conclude(self, transaction: Withdrawal, request: Question, outcome: Lookup | Unknown, *, at: datetime) -> None:
        debit = own(transaction.transfers, request.request.id)
        if transaction.is_paid:  # meanwhile, by another worker
            return
        if isinstance(outcome, Found) and not outcome.reverted:
            take_debit(self.ledger, transaction, debit, outcome.references, at=at)
            return
        if transaction.status is not S.DERIV_DEBIT_SENT or not debit.status.may_take_effect:
            if transaction.status in FINAL:
                transaction.rest(at=at)  # it was looked at once more, and nothing was found
            return
        transaction.asked(debit, asked_at=request.asked_at, at=at)
        settled_at = debit.send_before + self.timing.of(self.timing.answer_s + self.timing.late_commit_s)
        match outcome:
            case Dead(code):
                self._closed(transaction, debit, code, at=at)
            case Found():
                self._closed(transaction, debit, "reverted", at=at)
            case Absent(proven=True) if request.asked_at >= settled_at:
                debit.absences += 1
                self._closed(transaction, debit, "deriv_not_debited", at=at)
            case Absent() | Pending() | Unreadable() | Unknown():
                if at - debit.created_at > self.timing.of(self.timing.deriv_until_s):
                    transaction.need_attention("debit_unknown", at=at)
                else:
                    transaction.wait(at + self.timing.nth(self.timing.deriv_asks_s, transaction.attempts), at=at)
            case _:
                assert_never(outcome)

    def _closed(self, transaction: Withdrawal, debit: DerivTransfer, code: str, *, at: datetime) -> None:
        debit.status = RequestStatus.CLOSED
        transaction.fail(code, "Deriv did not make the withdrawal. Nothing was debited. Ask for a new code.", at=at)


def take_debit(
    ledger: LedgerGateway,
    transaction: Withdrawal,
    debit: DerivTransfer,
    references: Sequence[str],
    *,
    at: datetime,
    suspense: str = "",
) -> None:
    """What proof of a debit does: posted, or taken from `suspense`, where it lies by that name. One that had ended goes
    back; a second entry goes before a person.
    """
    late = transaction.was_final
    debit.status, debit.provider_transaction_id = RequestStatus.DONE, references[0]
    transaction.change(debit)
    who = (transaction.id, transaction.user_id, transaction.amount)
    if suspense:
        ledger.post_suspense_matched(*who, orphan=suspense, at=at)
    else:
        key = f"deriv:{debit.agent}:{references[0]}"
        ledger.post_withdrawal_debited(*who, agent=debit.agent, provider_key=key, at=at)
    transaction.debited(DerivTransferId(references[0]), at=at)
    for second in references[1:]:
        key = f"deriv:{debit.agent}:{second}"
        ledger.post_suspense_in("deriv_agent", debit.agent, transaction.amount, provider_key=key, at=at)
    if late:
        transaction.credit_back("debited_late", "Deriv debited the withdrawal too late. It goes back to you.", at=at)
    if len(references) > 1:
        transaction.need_attention("debited_twice", at=at)


def stands(transaction: Withdrawal, *, at: datetime) -> bool:
    """Whether the debit stands; what Deriv took back is neither paid out nor given back: a person is shown it."""
    debit = transaction.debit
    if debit is not None and debit.status is RequestStatus.DONE:
        return True
    transaction.need_attention("debit_not_standing", at=at)
    return False


# --- step 3: the rate -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LockRate(Step[Withdrawal, None, None]):
    """DERIV_DEBITED to RATE_LOCKED: the quote's rate while it holds; else today's, if that pays what was accepted."""

    rates: RateSource
    ledger: LedgerGateway
    timing: Timing

    def intend(self, transaction: Withdrawal, *, at: datetime) -> None:
        rate = transaction.rate
        if not rate.holds(at):
            try:
                rate = self.rates.lock(TransactionType.WITHDRAWAL, at=at)
            except RateStale:
                self._without_rate(transaction, at=at)
                return
        payout = rate.sell(transaction.amount)
        assert transaction.min_payout is not None
        if payout < transaction.min_payout:
            transaction.credit_back("rate_moved", "The rate fell below what you accepted. It goes back to you.", at=at)
            return
        self.ledger.post_withdrawal_exchanged(
            transaction.id,
            transaction.user_id,
            transaction.amount,
            split=rate.split_withdrawal(transaction.amount),
            at=at,
        )
        transaction.lock_rate(rate, payout, at=at)

    def _without_rate(self, transaction: Withdrawal, *, at: datetime) -> None:
        assert transaction.confirmed_at is not None
        if at - transaction.confirmed_at > self.timing.of(self.timing.rate_until_s):
            transaction.credit_back("no_rate", "There was no exchange rate in time. It goes back to you.", at=at)
        else:
            transaction.wait(at + self.timing.of(self.timing.query_every_s), at=at)

    def call(self, request: None, *, give_up_at: float) -> None: ...

    def conclude(self, transaction: Withdrawal, request: None, outcome: None, *, at: datetime) -> None: ...


# --- steps 4 and 5: the payout ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Payout(PaymentLeg):
    """RATE_LOCKED to MPESA_DISBURSING; then COMPLETED, paid later, or credited back."""

    leg: ClassVar[Leg] = Leg.B2C_PAYOUT

    def amount(self, transaction: Withdrawal) -> Money:
        return transaction.payout

    def is_under_way(self, transaction: Withdrawal) -> bool:
        return transaction.status is S.MPESA_DISBURSING

    def may_go(self, transaction: Withdrawal, *, at: datetime) -> bool:
        if not stands(transaction, at=at):
            return False
        owes_by_now = transaction.user_id in self.ledger.newly_owing()  # by another one of this group
        why = transaction.stopped() or ("customer_owes" if owes_by_now else "")
        if why:
            transaction.need_attention(why, at=at)
        return not why

    def sent(self, transaction: Withdrawal, request: MpesaRequest, *, until: datetime, at: datetime) -> None:
        transaction.disburse(request, until=until, at=at)

    def paid(
        self, transaction: Withdrawal, attempt: MpesaRequest, claim: MpesaClaim, *, proven: bool, at: datetime
    ) -> None:
        key, paid = movement_of(attempt), claim.amount or attempt.amount
        try:
            self._choose_again(transaction, at=at)
        except OtherWayOpen:
            self.ledger.post_uncovered(
                transaction.id, transaction.user_id, paid, paid_by="mpesa_utility", owner=attempt.shortcode,
                provider_key=key, at=at,
            )  # fmt: skip
            transaction.need_attention("paid_and_credited_back", at=at)
            return
        self.ledger.post_withdrawal_paid(
            transaction.id, transaction.user_id, paid, shortcode=attempt.shortcode, provider_key=key, at=at
        )
        confirm_at = self.confirm_at(transaction, proven=proven, at=at)
        transaction.complete(claim.receipt or str(attempt.id), confirm_at=confirm_at, at=at)
        if paid != attempt.amount:
            self.ledger.post_difference(transaction.id, transaction.user_id, due=attempt.amount, paid=paid, at=at)
            transaction.need_attention("paid_another_amount", at=at)

    def _choose_again(self, transaction: Withdrawal, *, at: datetime) -> None:
        """A payout turns up after it was given up: the exchange stands again, unless the credit-back may be out."""
        if transaction.mpesa_receipt or transaction.credit_back_id:
            raise OtherWayOpen(f"{transaction.id} was paid out before, or went back")
        gives_back = transaction.outflow is Outflow.GIVE_BACK
        transaction.choose(Outflow.PAYOUT, at=at)
        if gives_back:
            self.ledger.post_withdrawal_exchanged(
                transaction.id,
                transaction.user_id,
                transaction.amount,
                split=transaction.rate.split_withdrawal(transaction.amount),
                at=at,
            )

    def dead(self, transaction: Withdrawal, attempt: MpesaRequest, code: str, *, at: datetime) -> None:
        match blame_of(attempt):
            case Blame.RECIPIENT:
                if stands(transaction, at=at):
                    reason = "M-Pesa could not pay this phone. The money goes back to your Deriv account."
                    self.ledger.undo_exchange(transaction.id, at=at)
                    transaction.credit_back(code, reason, at=at)
            case Blame.FLOAT | Blame.CREDENTIAL:
                self._pay_later(transaction, str(blame_of(attempt)), at=at)
            case Blame.OURS | Blame.NONE:
                transaction.need_attention(f"payout_refused:{code}", at=at)
            case _ as unknown:
                assert_never(unknown)

    def _pay_later(self, transaction: Withdrawal, why: str, *, at: datetime) -> None:
        if at - transaction.payouts[0].created_at > self.timing.of(self.timing.status_until_s):
            transaction.need_attention(f"payout_waits:{why}", at=at)
        else:
            wait = self.timing.nth(self.timing.status_asks_s, len(transaction.payouts))
            transaction.pay_later(at + wait, why=why, at=at)

    def denied(self, transaction: Withdrawal, attempt: MpesaRequest, *, at: datetime) -> None:
        self.ledger.undo_withdrawal_paid(transaction.id, at=at)
        transaction.deny(at=at)


# --- the way back -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CreditBack(CreditLeg):
    """CREDIT_BACK_PENDING to REVERSED: what was debited goes back to the login it came from."""

    deriv: DerivGateway
    ledger: LedgerGateway
    leg: ClassVar[Leg] = Leg.DERIV_CREDIT_BACK

    def amount(self, transaction: Withdrawal) -> Money:
        return transaction.amount

    def is_too_late(self, transaction: Withdrawal, timing: Timing, *, at: datetime) -> bool:
        """By its first attempt, for the debit may be much older; a person who resumes it has it tried once more."""
        tried = transaction.at_deriv(self.leg)
        since = tried[0].created_at if tried else at
        return transaction.attempts > 0 and at - since > timing.of(timing.give_back_after_s)

    def may_go(self, transaction: Withdrawal, *, at: datetime) -> bool:
        return stands(transaction, at=at)

    def is_under_way(self, transaction: Withdrawal) -> bool:
        return transaction.status is S.CREDIT_BACK_PENDING

    def sent(self, transaction: Withdrawal, transfer: DerivTransfer, *, until: datetime, at: datetime) -> None:
        transaction.choose(Outflow.GIVE_BACK, at=at)  # promise 1, once more, in the commit of the intent
        transaction.sends(transfer, until=until, at=at)

    def refused(self, transaction: Withdrawal, code: str, reason: str, *, at: datetime) -> None:
        transaction.need_attention(f"credit_back_refused:{code}", at=at)

    def unreachable(self, transaction: Withdrawal, *, at: datetime) -> None:
        transaction.need_attention("credit_back_not_sent", at=at)

    def booked(
        self, transaction: Withdrawal, transfer: DerivTransfer, references: Sequence[str], *, at: datetime
    ) -> None:
        known = transaction.credit_back_id
        fresh = [reference for reference in dict.fromkeys(references) if reference != known]
        if not known and fresh and transaction.outflow is Outflow.GIVE_BACK:
            reference = fresh.pop(0)
            if (transfer.status, transfer.provider_transaction_id) != (RequestStatus.DONE, reference):
                transfer.status, transfer.provider_transaction_id = RequestStatus.DONE, reference
                transaction.change(transfer)
            self.ledger.post_credit_back_sent(
                transaction.id,
                transaction.user_id,
                transaction.amount,
                agent=transfer.agent,
                provider_key=f"deriv:{transfer.agent}:{reference}",
                at=at,
            )
            transaction.credited_back(DerivTransferId(reference), at=at)
            if any(payout.status is RequestStatus.DONE for payout in transaction.payouts):
                transaction.need_attention("paid_and_credited_back", at=at)
        for second in fresh:
            self.ledger.post_uncovered(
                transaction.id, transaction.user_id, transaction.amount, paid_by="deriv_agent", owner=transfer.agent,
                provider_key=f"deriv:{transfer.agent}:{second}", at=at,
            )  # fmt: skip
        if fresh:
            self.deriv.freeze(transfer.agent, f"{transaction.id} was credited back although it was not to be")
            transaction.credit_back_id = transaction.credit_back_id or DerivTransferId(fresh[0])
            transaction.need_attention("credited_back_twice" if known else "paid_and_credited_back", at=at)


# --- step 0 and 1: the customer's commands; and what drives the steps -------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestCode:
    """A customer asks Deriv for the one-time code of a withdrawal that they were quoted."""

    user_id: UserId
    quote_id: QuoteId
    at: datetime
    session_id: UUID


@dataclass(frozen=True, slots=True)
class CreateWithdrawal:
    """A customer accepts a quote, with the code that Deriv sent them. `intent` is what a retry repeats."""

    id: TransactionId
    user_id: UserId
    quote_id: QuoteId
    verification_code: str = field(repr=False)
    min_payout: Money | None
    key: IdempotencyKey
    at: datetime
    session_id: UUID

    @property
    def intent(self) -> dict[str, Any]:
        """The customer's intent only; not the code, which six digits of a hash would give away."""
        return {"quote_id": str(self.quote_id), "min_payout": str(self.min_payout) if self.min_payout else None}


@dataclass(frozen=True, kw_only=True)
class WithdrawalSaga(TransactionSaga[Withdrawal]):
    """Withdrawals: the commands, and the steps that bring each one to its end."""

    type: ClassVar[TransactionType] = TransactionType.WITHDRAWAL
    payments: ClassVar[frozenset[Leg]] = frozenset({Leg.B2C_PAYOUT})

    quotes: Quotes
    limits: Limits
    rates: RateSource
    policy: PayoutPolicy
    sessions: PayoutSessions
    codes: WithdrawalCodes
    keys: IdempotencyKeys
    payout_account: Callable[[], str]  # the float that payouts leave from
    # of the customer's token at Deriv; they call out, or open a unit of work of their own
    keep_fresh: Callable[[UserId], None] = lambda user: None  # before it is used
    token_refused: Callable[[UserId, datetime], None] = lambda user, sent_at: None

    def request_code(self, command: RequestCode) -> CodeSent:
        """Step 0. Reads in a unit of work, then calls Deriv outside of it; a token that Deriv refuses is remembered.

        Raises what `create` raises for the same customer and quote, but for `StepUpRequired`, and what
        `WithdrawalCodes.request_code` does.
        """
        self.keep_fresh(command.user_id)
        sent_at = self.clock()  # what was refreshed until now is what goes with the call
        with self.unit_of_work():
            customer = self.users.customer(command.user_id)
            quote = self.quotes.look_at(command.quote_id, command.user_id, self.type, at=command.at)
            _, login, _ = self._may_withdraw(customer, quote, at=command.at)
            ordered = partial(self.limits.book.ordered_while_waiting, command.user_id)
            self.sessions.may_ask(command.session_id, quote.you_get, ordered, at=command.at)
            agent = self.quotes.agent_of(quote, lambda: self.deriv.agent_for(login.platform))
            token = self.users.deriv_tokens({command.user_id: login}).get(command.user_id, "")
        if not token:
            raise DerivLoginMissing("bind your Deriv account again first: its token is gone")
        try:
            return self.codes.request_code(login, token, agent, quote.you_send)
        except Unprocessable as refused:
            if refused.code == "deriv_token_refused" and refused.extra.get("reason") != SCOPE_MISSING:
                self.token_refused(command.user_id, sent_at)
            raise

    def create(self, command: CreateWithdrawal, answer: Callable[[Withdrawal], str]) -> tuple[str, bool]:
        """Step 1. The first `answer` to this key, which commits with the effect; and whether this is a repeat of it.

        Raises `QuoteExpired`, `QuoteNotFound`, `QuoteUsed`, `LimitExceeded`, `KycRequired`, `PhoneNotVerified`,
        `DerivLoginMissing`, `AccountFrozen`, `CustomerOwes`, `FloatTooLow`, `MinPayoutTooHigh`, `WrongCurrency`,
        `IdempotencyKeyReused`, `IdempotencyInFlight`, `StepUpRequired`, `DeviceTooNew`, `DerivLoginExpired`,
        `DerivLoginLost`; what `keep_fresh` raises.
        """
        stale: Unavailable | None = None
        try:
            self.keep_fresh(command.user_id)  # the debit goes with the token
        except Unavailable as away:  # which is no reason to keep the first answer from a repeat
            stale = away
        with self.unit_of_work():
            if self.keys.claim(command.key, command.intent, result=command.id) != command.id:
                return self.keys.answer_of(command.key), True
            if stale is not None:
                raise stale
            transaction = self._accept(command)
            text = answer(transaction)
            self.transactions.save_many([transaction])
            self.deriv.record(transaction.transfers)
            self.keys.answer(command.key, text)
            account, amount = self.float_of(transaction)
            self.reservations.reserve(account, transaction.id, amount, at=command.at)
            return text, False

    def _accept(self, command: CreateWithdrawal) -> Withdrawal:
        customer = self.users.customer(command.user_id)
        quote = self.quotes.accept(command.quote_id, command.user_id, self.type, command.id, at=command.at)
        phone, login, unfinished = self._may_withdraw(customer, quote, at=command.at)
        ordered = partial(self.limits.book.ordered_while_waiting, customer.id)  # under the lock of the users row
        waits = self.sessions.may_order(command.session_id, quote.you_get, ordered, at=command.at)
        least = command.min_payout or least_of(quote.you_get)
        if least.currency is not quote.you_get.currency:
            raise WrongCurrency("min_payout is what you get at least: give it in KES")
        if quote.you_get < least:
            raise MinPayoutTooHigh(f"the quote gives {quote.you_get}: ask for no more")
        withdrawal = Withdrawal.create(
            command.id,
            user_id=command.user_id,
            quote_id=quote.id,
            amount=quote.you_send,
            rate=quote.rate,
            min_payout=least,
            phone=phone,
            login=login,
            agent=self.quotes.agent_of(quote, lambda: self.deriv.agent_for(login.platform)),
            behind=unfinished,
            ordered_while_waiting=waits,
            at=command.at,
        )
        debit = self.deriv.new_transfer(
            command.id, Leg.DERIV_DEBIT, 1, login, withdrawal.agent, withdrawal.amount, at=command.at
        )
        debit.status, debit.verification_code = RequestStatus.NOT_SENT, command.verification_code
        withdrawal.transfers.append(debit)
        return withdrawal

    def _may_withdraw(self, customer: Customer, quote: Quote, *, at: datetime) -> tuple[Phone, DerivLogin, int]:
        phone, login = self.policy.payout_phone(customer, at=at), usable_login(customer, by_token=True)
        self.must_owe_nothing(customer.id)
        moved = self.limits.check(customer.id, customer.tier, self.type, quote.you_get, at=at)
        return phone, login, moved.unfinished

    def must_owe_nothing(self, customer: UserId) -> None:
        """Raises `CustomerOwes`; one SELECT."""
        if self.ledger.owing([customer]):
            raise CustomerOwes

    # --- what Deriv's book shows later ------------------------------------------------------------------------------

    def shown(self, aggregate: Withdrawal, transfer: DerivTransfer, entries: Sequence[str], *, at: datetime) -> None:
        if transfer.leg is Leg.DERIV_CREDIT_BACK:
            CreditBack(self.deriv, self.ledger).booked(aggregate, transfer, entries, at=at)
        elif not aggregate.is_paid:
            take_debit(self.ledger, aggregate, transfer, entries, at=at)

    def debit_reverted(self, id: TransactionId, entry: str) -> None:
        """Deriv took the proven debit `entry` back. Once more: no effect.

        Raises `TransactionNotFound`, `NothingTakenBack`.
        """
        with self.unit_of_work():
            transaction = self.one(id)
            TakenBack(self.ledger).debit(transaction, entry, at=self.clock())
            self.save([transaction], ())

    # --- what the runner asks ---------------------------------------------------------------------------------------

    def float_of(self, aggregate: Withdrawal) -> tuple[str, Money]:
        return self.payout_account(), aggregate.payout + FEE_RESERVE

    def frees_float(self, aggregate: Withdrawal) -> bool:
        status = aggregate.attention_from or aggregate.status
        return status in FINAL or status is S.CREDIT_BACK_PENDING

    def attach(self, aggregates: Sequence[Withdrawal], asked: set[UUID], answers: Sequence[Answer]) -> None:
        self.attach_mpesa([t for t in aggregates if t.is_paid], answers)
        self.attach_deriv(aggregates, answers)
        self._attach_tokens([t for t in aggregates if t.status in {S.CREATED, S.DERIV_DEBIT_SENT}])
        stopped = cache(partial(self._stopped, {t.user_id for t in aggregates}))
        for transaction in aggregates:
            transaction.stopped = partial(lambda user: stopped().get(user, ""), transaction.user_id)

    def _stopped(self, customers: Collection[UserId]) -> dict[UserId, str]:
        """Whom nothing is paid now, and why: asked once for a group, when the first of its payouts is about to leave.

        Their rows stay locked, so that nobody is frozen, and nothing is posted that they owe, before it is committed.
        """
        frozen = self.users.frozen(customers)
        return dict.fromkeys(self.ledger.owing(customers), "customer_owes") | dict.fromkeys(frozen, "account_frozen")

    def _attach_tokens(self, debiting: Sequence[Withdrawal]) -> None:
        """Each login's own: a customer may have bound another one since."""
        while debiting:
            logins = {t.user_id: t.login for t in debiting}
            tokens = self.users.deriv_tokens(logins)
            for transaction in debiting:
                if transaction.login == logins[transaction.user_id]:
                    transaction.token = tokens.get(transaction.user_id, "")
            debiting = [t for t in debiting if t.login != logins[t.user_id]]

    def next_step(self, aggregate: Withdrawal, *, at: datetime) -> Step[Any, Any, Any] | None:
        transaction, timing = aggregate, self.timing
        due = transaction.next_step_at is not None and transaction.next_step_at <= at
        may_leave = transaction.hold is None
        match transaction.status:
            case S.CREATED if due or transaction.attempts == 0:
                return DebitDeriv(self.deriv, timing)
            case S.DERIV_DEBIT_SENT if due:
                debit = transaction.debit
                if debit is not None and debit.status is RequestStatus.NOT_SENT:
                    return DebitDeriv(self.deriv, timing)
                return AskDebit(self.deriv, self.ledger, timing)
            case S.FAILED | S.EXPIRED if due and transaction.debit is not None:
                return AskDebit(self.deriv, self.ledger, timing)
            case S.DERIV_DEBITED if due and may_leave:
                return LockRate(self.rates, self.ledger, timing)
        if not transaction.is_paid:
            return Rest() if due and transaction.status in FINAL | {S.NEEDS_ATTENTION} else None
        send = may_leave and transaction.status in {S.RATE_LOCKED, S.MPESA_DISBURSING}
        payout = Payout(self.ledger, timing)
        if step := payment_step(self.mpesa, payout, transaction, timing, due=due, send=send):
            return step
        if transaction.status is S.CREDIT_BACK_PENDING and due:
            back = CreditBack(self.deriv, self.ledger)
            if not ready_for_credit(transaction, Leg.DERIV_CREDIT_BACK):
                return AskDeriv(self.deriv, back, timing)
            return SendCredit(self.deriv, back, timing) if may_leave else None
        return Rest() if due and transaction.status in FINAL | {S.NEEDS_ATTENTION} else None


def least_of(quoted: Money) -> Money:
    """What is accepted where the customer does not say: whole shillings, rounded down."""
    shillings = (Decimal(quoted.amount) * LEAST_OF_QUOTE / 100).to_integral_value(ROUND_FLOOR)
    return Money(int(shillings) * 100, quoted.currency)
