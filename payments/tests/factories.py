"""Valid things of payments, with what matters to a test: deposits in any status with their entries, quotes, rates."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from deriv_integration.facade import deriv
from payments import models
from payments.application.withdrawal import least_of
from payments.domain.deposit import Deposit
from payments.domain.transaction import FINAL, Outflow, TransactionStatus as S, TransactionType
from payments.domain.withdrawal import Withdrawal
from payments.facade import deposits, transactions, withdrawals
from shared_kernel.domain.events import Transition
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, DerivTransfer, Leg, RequestStatus
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from wallet.facade import deriv_agent, ledger

AGENT, SHORTCODE = "CR900001", "174379"
MID, RATE, SELLS = Decimal("129.50000000"), Decimal("131.96050000"), Decimal("127.03950000")
CHOSEN = {
    S.DERIV_TRANSFER_SENT: Outflow.PAYOUT,
    S.COMPLETED: Outflow.PAYOUT,
    S.REFUND_PENDING: Outflow.GIVE_BACK,
    S.REFUNDED: Outflow.GIVE_BACK,
    S.MPESA_DISBURSING: Outflow.PAYOUT,
    S.CREDIT_BACK_PENDING: Outflow.GIVE_BACK,
    S.REVERSED: Outflow.GIVE_BACK,
}
DEBITED = {S.DERIV_DEBITED, S.RATE_LOCKED, S.MPESA_DISBURSING, S.CREDIT_BACK_PENDING}
RECEIVED = {S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.REFUND_PENDING}


def kes(shillings: int) -> Money:
    return Money(shillings * 100, Currency.KES)


def usd(cents: int) -> Money:
    return Money(cents, Currency.USD)


def a_rate(*, at: datetime, holds: timedelta = timedelta(minutes=30), **over: Any) -> LockedRate:
    given: dict[str, Any] = {
        "mid": MID,
        "rate": RATE,
        "source": "test",
        "locked_at": at,
        "expires_at": at + holds,
    } | over
    return LockedRate(Currency.USD, Currency.KES, **given)


def a_deposit(*, shillings: int = 1300, at: datetime | None = None, user: UUID | None = None, **over: Any) -> Deposit:
    """A new one, not stored; `over` are attributes to change."""
    at = at or now()
    deposit = Deposit.create(
        TransactionId(over.pop("id", None) or new_id()),
        user_id=UserId(user or new_id()),
        quote_id=QuoteId(new_id()),
        amount=kes(shillings),
        rate=over.pop("rate", None) or a_rate(at=at),
        phone=Phone("254712345678"),
        login=DerivLogin(DerivPlatform.WS_V3, "CR100001"),
        agent=AGENT,
        login_checked_at=at,
        at=at,
    )
    for name, value in over.items():
        setattr(deposit, name, value)
    deposit.outflow = over.get("outflow", CHOSEN.get(deposit.status, Outflow.NONE))
    return deposit


def a_withdrawal(
    *, cents: int = 10_00, at: datetime | None = None, user: UUID | None = None, **over: Any
) -> Withdrawal:
    """A new one, not stored, with its debit that was not sent yet; `over` are attributes to change."""
    at = at or now()
    rate = over.pop("rate", None) or a_rate(at=at, rate=SELLS)
    withdrawal = Withdrawal.create(
        TransactionId(over.pop("id", None) or new_id()),
        user_id=UserId(user or new_id()),
        quote_id=QuoteId(new_id()),
        amount=usd(cents),
        rate=rate,
        min_payout=least_of(rate.sell(usd(cents))),
        phone=Phone("254712345678"),
        login=DerivLogin(DerivPlatform.WS_V3, "CR100001"),
        agent=AGENT,
        at=at,
    )
    for name, value in over.items():
        setattr(withdrawal, name, value)
    withdrawal.outflow = over.get("outflow", CHOSEN.get(withdrawal.status, Outflow.NONE))
    return withdrawal


def a_float(dollars: int = 100_000, agent: str = AGENT) -> None:
    """An opening balance on the agent account."""
    with unit_of_work():
        ledger.post_opening(deriv_agent(agent), usd(dollars * 100), reference=f"test:{new_id()}", at=now())


def a_stored_deposit(status: S = S.CREATED, **given: Any) -> Deposit:
    """Committed in that status, with the entries and the reservation that belong to it. Needs `a_float`."""
    deposit = a_deposit(**given)
    at = deposit.created_at
    with unit_of_work():
        transactions.save_many([deposit])
        deposits.reservations.reserve(deposit.agent, deposit.id, deposit.payout, at=at)
    for step in [S.MPESA_CONFIRMED, status] if status is S.COMPLETED else [status]:
        if step is not S.CREATED:
            deposit = _went_to(deposit.id, step, at)
    return deposit


def _went_to(id: TransactionId, status: S, at: datetime) -> Deposit:
    with unit_of_work():
        [deposit] = transactions.get_many([id], TransactionType.DEPOSIT)
        deposit.transitions.append(Transition(deposit.status, status, at))
        deposit.status, deposit.touched, deposit.outflow = status, True, CHOSEN.get(status, deposit.outflow)
        if status in RECEIVED:
            deposit.confirmed_at = at
            receive(deposit)
        if status is S.COMPLETED:
            deposit.deriv_transfer_id = DerivTransferId(str(new_id())[:18])
            send(deposit)
        if status in FINAL or status is S.REFUND_PENDING:
            deposit.next_step_at = None
        deposits.save([deposit], ())
    return deposit


def a_stored_withdrawal(status: S = S.CREATED, **given: Any) -> Withdrawal:
    """Committed in that status, with its debit, entries and reservation. Needs `a_float`; no payout was sent."""
    withdrawal = a_withdrawal(**given)
    at, paid = withdrawal.created_at, status in DEBITED
    account, amount = withdrawals.float_of(withdrawal)
    debit = deriv.new_transfer(
        withdrawal.id, Leg.DERIV_DEBIT, 1, withdrawal.login, withdrawal.agent, withdrawal.amount, at=at
    )
    debit.status, debit.verification_code = RequestStatus.NOT_SENT, "" if paid else "123456"
    with unit_of_work():
        transactions.save_many([withdrawal])
        deriv.record([debit])
        withdrawals.reservations.reserve(account, withdrawal.id, amount, at=at, beyond=True)
    if status is S.CREATED:
        return withdrawal
    with unit_of_work():
        [read] = transactions.get_many([withdrawal.id], TransactionType.WITHDRAWAL)
        read.transitions.append(Transition(read.status, status, at))
        read.status, read.touched, read.outflow, read.next_step_at = status, True, CHOSEN.get(status, Outflow.NONE), at
        if paid:
            _debited(read, debit, exchanged=status in {S.RATE_LOCKED, S.MPESA_DISBURSING}, at=at)
        withdrawals.save([read], ())
    stored: Withdrawal = read
    return stored


def _debited(withdrawal: Withdrawal, debit: DerivTransfer, *, exchanged: bool, at: datetime) -> None:
    entry = str(new_id().int)[:18]
    debit.status, debit.provider_transaction_id = RequestStatus.DONE, entry
    withdrawal.change(debit)
    withdrawal.confirmed_at, withdrawal.deriv_transfer_id = at, DerivTransferId(entry)
    who = (withdrawal.id, withdrawal.user_id, withdrawal.amount)
    ledger.post_withdrawal_debited(*who, agent=AGENT, provider_key=f"deriv:{AGENT}:{entry}", at=at)
    if exchanged:
        ledger.post_withdrawal_exchanged(*who, split=withdrawal.rate.split_withdrawal(withdrawal.amount), at=at)


def receive(deposit: Deposit, amount: Money | None = None) -> None:
    """Posts the received leg, in the caller's unit of work."""
    key = f"mpesa:{SHORTCODE}:{new_id()}"
    paid = amount or deposit.amount
    ledger.post_deposit_received(
        deposit.id, deposit.user_id, paid, shortcode=SHORTCODE, provider_key=key, at=deposit.created_at
    )


def send(deposit: Deposit) -> None:
    """Posts the sent leg, in the caller's unit of work."""
    split = deposit.rate.split_deposit(deposit.amount)
    key = f"deriv:{AGENT}:{new_id()}"
    ledger.post_deposit_sent(
        deposit.id, deposit.user_id, split, deposit.payout, agent=AGENT, provider_key=key, at=deposit.created_at
    )


def todays_rate(**over: Any) -> models.ExchangeRate:
    """A valid row of the rate table, straight into the database."""
    at = datetime.now(UTC)
    given = {
        "mid": MID,
        "margin_bps": 190,
        "valid_from": at - timedelta(hours=1),
        "valid_until": at + timedelta(days=1),
    }
    return models.ExchangeRate.objects.create(**given | over, set_by="a", approved_by="b")


def a_quote(user: UUID, **over: Any) -> models.Quote:
    """A row of `quotes` that this customer can accept."""
    at = datetime.now(UTC)
    given: dict[str, Any] = {
        "id": new_id(), "user_id": user, "type": "deposit", "send_amount": 130000, "send_currency": "KES",
        "get_currency": "USD", "mid": MID, "rate": RATE, "rate_source": "test", "created_at": at,
        "expires_at": at + timedelta(minutes=2),
    } | over  # fmt: skip
    given.setdefault("get_amount", int(Decimal(given["send_amount"]) / RATE))
    return models.Quote.objects.create(**given)
