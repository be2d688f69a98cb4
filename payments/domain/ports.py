"""What the sagas ask of the world. The other contexts' facades fit these; none of them knows of payments."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

from payments.domain.transaction import Transaction, TransactionType
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.identifiers import Phone, TransactionId, UserId
from shared_kernel.domain.money import DepositSplit, LockedRate, Money, WithdrawalSplit
from shared_kernel.domain.outcome import Lookup, Outcome, Unreadable
from shared_kernel.domain.requests import (
    CodeSent,
    DerivLogin,
    DerivPlatform,
    DerivTransfer,
    Leg,
    MpesaPayment,
    MpesaRequest,
)


class TransactionRepository(Protocol):
    """Transactions: `get_many` locks, `save_many` stores state, events and audit rows.

    Both join the caller's unit of work.
    """

    def get_many(self, ids: Sequence[TransactionId], type: TransactionType) -> list[Any]:
        """The Deposits, or the Withdrawals, among `ids`, locked in id order by one SELECT; without requests."""

    def save_many(self, transactions: Sequence[Transaction]) -> None:
        """State, events and audit rows, in one statement a table."""


class MpesaGateway(Protocol):
    """M-Pesa, as the sagas see it.

    What stores joins the caller's unit of work; the last three call out and must run outside of one.
    """

    def requests_of(
        self, transactions: Sequence[TransactionId], outcomes: Sequence[tuple[MpesaRequest, Outcome]] = ()
    ) -> Mapping[TransactionId, list[MpesaRequest]]:
        """All attempts of each Transaction, oldest first, with what callbacks claimed; one SELECT.

        `outcomes` are what became of sendings: applied to their attempts, and stored (raw answers encrypted).
        """

    def record(self, requests: Sequence[MpesaRequest]) -> None:
        """Stores intents: new attempts, or known ones with a higher fence. One INSERT. Raises `PromptOpen`."""

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        """Stores what the saga decided about attempts: status, code, receipt, asked_at, absences. One UPDATE."""

    def busy_phones(self, phones: Iterable[Phone]) -> set[Phone]:
        """Those with an open prompt: they must wait."""

    def new_request(
        self,
        transaction: TransactionId,
        leg: Leg,
        attempt: int,
        phone: Phone,
        amount: Money,
        *,
        at: datetime,
        about: str = "",
        shortcode: str = "",
    ) -> MpesaRequest:
        """A new attempt of `leg`, with its id, reference and `send_before`; not stored yet.

        `shortcode` is the leg's usual one where none is given; `about` as in `MpesaRequest`. Raises `InvalidAmount`.
        """

    def send(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        """Carries the attempt out, by its leg: STK push, B2C v3, reversal, status query.

        `give_up_at` is on the monotonic clock: past it nothing is written (`NotSent`). `Accepted` means queued: the end
        comes by callback. Calls with the initiator's credential are `NotSent` while a credential error stops them.
        """

    def query(self, request: MpesaRequest) -> Outcome:
        """STK query: `Done` (paid), `Accepted` (not decided yet), `Refused` (this attempt moved nothing),
        `Unknown`, `NotSent`.
        """

    def payments(self, request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        """Pull: what our shortcode received under this attempt's reference since it was made (at most 48 hours
        back).
        """


class DerivGateway(Protocol):
    """Deriv, as the sagas see it, whichever platform. The first four join the caller's unit of work."""

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        """All attempts of each Transaction, oldest first; one SELECT."""

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores intents: new attempts, or known ones with a higher fence. One INSERT."""

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]]) -> None:
        """Stores what became of calls."""

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores what the saga decided about attempts. One UPDATE."""

    def freeze(self, agent: str, why: str) -> None:
        """Stops new transfers by an agent credential until a person resumes it; with an audit row."""

    def agent_names(self) -> Sequence[str]:
        """Every agent credential there is, frozen or not."""

    def agent_for(self, platform: DerivPlatform) -> str:
        """The agent credential for a new Transaction.

        Raises `DerivUnavailable` when none is there or all are frozen.
        """

    def new_transfer(
        self,
        transaction: TransactionId,
        leg: Leg,
        attempt: int,
        login: DerivLogin,
        agent: str,
        amount: Money,
        *,
        at: datetime,
    ) -> DerivTransfer:
        """A new attempt of `leg` with its id, reference and `send_before`; not stored yet."""

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        """Asks whether `login` may be credited: `Done(full name)`, `Refused`, or nothing learnt. Moves nothing."""

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        """Moves money, by the transfer's leg: a credit from the agent, or a debit with the customer's token and code.

        `Done(reference)` of a credit carries the id of the agent's entry. A debit is never `Done`: it is `Accepted`
        once Deriv took it, and proven by `find` alone.
        """

    def find(self, transfer: DerivTransfer) -> Lookup:
        """Asks what became of a transfer: the agent's own book, and by the request's key where Deriv keeps one."""


class WithdrawalCodes(Protocol):
    """Deriv's one-time codes for withdrawals; calls out, so that it runs outside of any unit of work."""

    def request_code(self, login: DerivLogin, token: str, agent: str, amount: Money) -> CodeSent:
        """Has Deriv send the customer the one-time code of a withdrawal to `agent`, by the customer's own `token`.

        Raises `DerivTokenRefused`, `DerivUnavailable`, `WithdrawalRefused` (Deriv's reason), `CodeTooSoon`.
        """


FloatKind: TypeAlias = Literal["mpesa_working", "mpesa_utility", "deriv_agent"]  # our money at a provider


class LedgerGateway(Protocol):
    """The ledger. Posting joins the caller's unit of work; each float leg carries a unique provider key.

    `at` is when it took effect. At the unit of work's end: `AlreadyPosted`, `ProviderKeyUsed`, `InTransitOverdrawn`.
    """

    def post_deposit_received(
        self, deposit: TransactionId, customer: UserId, paid: Money, *, shortcode: str, provider_key: str, at: datetime
    ) -> None:
        """Dr M-Pesa account / Cr customer in-transit, KES, for what was proven."""

    def post_excess(
        self, deposit: TransactionId, customer: UserId, excess: Money, *, of: str = ..., at: datetime
    ) -> None:
        """Dr customer in-transit / Cr suspense: proven money without a claim to it. A deposit may have several: `of`
        is the receipt of a payment that is one too many; without it, what the payment was more than was asked for.
        """

    def post_deposit_sent(
        self,
        deposit: TransactionId,
        customer: UserId,
        split: DepositSplit,
        sent: Money,
        *,
        agent: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit KES / Cr FX position, margin, rounding; Dr FX position USD / Cr Deriv agent account."""

    def post_duplicate_sent(
        self, deposit: TransactionId, sent: Money, *, agent: str, provider_key: str, at: datetime
    ) -> None:
        """Dr suspense USD / Cr Deriv agent account: a second booking of one transfer, by Deriv's own book."""

    def undo_deposit_sent(self, deposit: TransactionId, *, provider_key: str, at: datetime) -> None:
        """Deriv reverted the booked transfer: its journal mirrored, the Deriv leg under `provider_key`.

        Raises `NothingToUndo`.
        """

    def post_deposit_refunded(
        self,
        deposit: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        shortcode: str,
        by: Literal["reversal", "b2c"],
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit KES / Cr the account that the payment came into (reversal), or the utility account (B2C).

        One that stands for a deposit, whichever way: a second one is `post_uncovered`.
        """

    def undo_deposit_refunded(self, deposit: TransactionId, *, at: datetime) -> None:
        """A B2C refund that was booked on a claim was denied: mirrored. Raises `NothingToUndo`."""

    def post_deposit_reversed(
        self,
        deposit: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        shortcode: str,
        provider_key: str,
        covered: bool,
        at: datetime,
    ) -> None:
        """M-Pesa took a payment back by itself: Dr in-transit KES if that is `covered` by what waits there, else Dr
        customer receivable KES / Cr M-Pesa account.
        """

    def post_withdrawal_debited(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        debited: Money,
        *,
        agent: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr Deriv agent account / Cr customer in-transit, USD, by the agent's own book."""

    def post_withdrawal_exchanged(
        self, withdrawal: TransactionId, customer: UserId, debited: Money, *, split: WithdrawalSplit, at: datetime
    ) -> None:
        """Dr in-transit USD / Cr FX position USD; Dr FX position KES / Cr in-transit KES (the payout), margin,
        rounding. May happen again after `undo_exchange`.
        """

    def undo_exchange(self, withdrawal: TransactionId, *, at: datetime) -> None:
        """The standing exchange mirrored, at its own rate, margin and rounding. Raises `NothingToUndo`."""

    def post_withdrawal_paid(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        paid: Money,
        *,
        shortcode: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit KES / Cr M-Pesa utility account, for what was paid: see `post_difference`."""

    def post_difference(
        self, transaction: TransactionId, customer: UserId, *, due: Money, paid: Money, at: datetime
    ) -> None:
        """`paid`, beside `post_withdrawal_paid` or `post_deposit_refunded`, was not the `due` that waits in transit;
        nothing if it was.

        Less: what stays, Dr in-transit / Cr suspense. More: Dr suspense / Cr in-transit, which then covers it.
        """

    def undo_withdrawal_paid(self, withdrawal: TransactionId, *, at: datetime) -> None:
        """A payout that was booked on a claim was denied: mirrored, a difference with it. Raises `NothingToUndo`."""

    def post_mpesa_fee(
        self, transaction: TransactionId, fee: Money, *, shortcode: str, provider_key: str, at: datetime
    ) -> None:
        """Dr M-Pesa fees / Cr charges-paid account: an expense, also of what was given back.

        The charge is a movement of its own, so its key is another one than the payout's.
        """

    def post_credit_back_sent(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        sent: Money,
        *,
        agent: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit USD / Cr Deriv agent account. Once: a second one is `post_uncovered`."""

    def post_debit_reverted(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        agent: str,
        provider_key: str,
        covered: bool,
        at: datetime,
    ) -> None:
        """Deriv took its debit back: Dr in-transit USD if that is `covered` by what waits there, else Dr customer
        receivable USD / Cr Deriv agent account.
        """

    def post_uncovered(
        self,
        transaction: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        paid_by: FloatKind,
        owner: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr customer receivable / Cr the account that paid, whose shortcode or agent is `owner`: proven money that
        left although nothing in transit covers it, such as a payout that turned up after the give-back.
        """

    def post_suspense_in(
        self, account: FloatKind, owner: str, amount: Money, *, provider_key: str, at: datetime
    ) -> None:
        """Dr float / Cr suspense: proven money that came in and belongs to no Transaction yet."""

    def post_suspense_matched(
        self, transaction: TransactionId, customer: UserId, amount: Money, *, orphan: str, at: datetime
    ) -> None:
        """Dr suspense / Cr customer in-transit: it was this Transaction's after all."""

    def post_suspense_returned(
        self,
        account: FloatKind,
        owner: str,
        amount: Money,
        *,
        orphan: str,
        provider_key: str,
        at: datetime,
        transaction: TransactionId | None = None,
    ) -> None:
        """Dr suspense / Cr float: it went back to whom it came from, for `transaction` if it was an excess of one."""

    def post_suspense_out(
        self, account: FloatKind, owner: str, amount: Money, *, provider_key: str, at: datetime
    ) -> None:
        """Dr suspense / Cr float: proven money that left and that nothing of ours explains."""

    def post_suspense_recovered(
        self,
        account: FloatKind,
        owner: str,
        amount: Money,
        *,
        orphan: str,
        provider_key: str,
        at: datetime,
        transaction: TransactionId | None = None,
    ) -> None:
        """Dr float / Cr suspense: an unexplained outflow came back, by the movement that `provider_key` names."""

    def post_suspense_paired(self, came_in: str, left: str, amount: Money, *, at: datetime) -> None:
        """Two names in suspense, of which one is the other's return: nothing moves, and each is settled."""

    def post_suspense_written_off(
        self, amount: Money, *, orphan: str, at: datetime, transaction: TransactionId | None = None
    ) -> None:
        """Dr losses / Cr suspense: an unexplained outflow that nobody will bring back."""

    def post_suspense_loss_recovered(self, amount: Money, *, orphan: str, at: datetime) -> None:
        """Dr suspense / Cr losses: what had been written off came back, and is no loss any more."""

    def posted(self, provider_keys: Collection[str]) -> set[str]:
        """Those movements that are in the ledger already, as whatever; one SELECT in the caller's unit of work.

        Includes what this unit of work collected.
        """

    def owing(self, customers: Collection[UserId]) -> set[UserId]:
        """Those who owe us, in whatever currency; one SELECT in the caller's unit of work.

        Includes what this unit of work collected. It stays true while the caller holds their rows in `UserDirectory`.
        """

    def newly_owing(self) -> set[UserId]:
        """Those who will owe more by what this unit of work has collected so far; asks nothing."""

    def deriv_balance(self, agent: str) -> Money:
        """What the ledger says the agent account holds, in USD."""

    def mpesa_balance(self, shortcode: str) -> Money:
        """What the ledger says the shortcode's utility account, where payouts leave, holds, in KES."""


class Customer(Protocol):
    """What payments must know of a customer."""

    @property
    def id(self) -> UserId: ...
    @property
    def full_name(self) -> str: ...
    @property
    def phone(self) -> Phone | None:
        """The verified one, or None."""

    @property
    def kyc_status(self) -> str: ...
    @property
    def tier(self) -> str: ...
    @property
    def is_frozen(self) -> bool: ...
    @property
    def deriv_login(self) -> DerivLogin | None: ...
    @property
    def deriv_name_matches(self) -> bool:
        """Whether Deriv's name of the login is the KYC name."""

    @property
    def deriv_login_state(self) -> str:
        """`active`, also without a login; `expired` or `lost` while it has to be bound anew."""

    @property
    def deriv_checked_at(self) -> datetime | None:
        """When Deriv was last asked about the login."""


class UserDirectory(Protocol):
    """The customers, by identity."""

    def customer(self, user: UserId) -> Customer:
        """Locked for the rest of the unit of work, so that limits hold under concurrent commands.

        Raises `UserNotFound`.
        """

    def deriv_tokens(self, logins: Mapping[UserId, DerivLogin]) -> Mapping[UserId, str]:
        """The customers' own tokens at Deriv, for those whose bound login is this one; one SELECT."""

    def frozen(self, users: Collection[UserId]) -> set[UserId]:
        """Those that are frozen, locked for the rest of the unit of work; one SELECT."""


class RateStale(Unavailable):
    """The newest rate is no longer valid: no new quotes until staff set one."""


class RateSource(Protocol):
    """Today's rate for a customer."""

    def lock(self, type: TransactionType, *, at: datetime) -> LockedRate:
        """USD in KES, with the margin of that type. Raises `RateStale` when the newest rate is no longer valid."""


class FloatReservations(Protocol):
    """Money promised from a float account, by rows; available = ledger balance - reservations.

    Joins the caller's unit of work.
    """

    def reserve(
        self, account: str, transaction: TransactionId, amount: Money, *, at: datetime, beyond: bool = False
    ) -> None:
        """Under lock. Raises `FloatTooLow`, unless `beyond`: for money that has come in already and must go out."""

    def release(self, transactions: Sequence[TransactionId], *, at: datetime) -> None:
        """In the commit that ends the leg or proves it dead; releasing twice has no effect."""
