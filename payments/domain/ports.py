"""What the sagas ask of the world. The other contexts' facades fit these; none of them knows of payments."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from payments.domain.transaction import Transaction, TransactionType
from shared_kernel.domain.identifiers import Phone, TransactionId, UserId
from shared_kernel.domain.money import DepositSplit, LockedRate, Money
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

    def get_many(self, ids: Sequence[TransactionId], type: TransactionType) -> list[Transaction]:
        """Those of `ids` that are of that type, locked in id order by one SELECT; requests are not attached."""

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


class LedgerGateway(Protocol):
    """The ledger. Posting joins the caller's unit of work; each float leg carries a unique provider key."""

    def post_deposit_received(
        self, deposit: TransactionId, customer: UserId, paid: Money, *, shortcode: str, provider_key: str, at: datetime
    ) -> None:
        """Dr M-Pesa account / Cr customer in-transit, KES, for what was proven."""

    def post_excess(self, deposit: TransactionId, customer: UserId, excess: Money, *, at: datetime) -> None:
        """Dr customer in-transit / Cr suspense: proven money that this deposit has no claim to."""

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

    def deriv_balance(self, agent: str) -> Money:
        """What the ledger says the agent account holds, in USD."""


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
    def deriv_checked_at(self) -> datetime | None:
        """When Deriv was last asked about the login."""


class UserDirectory(Protocol):
    """The customers, by identity."""

    def customer(self, user: UserId) -> Customer:
        """Locked for the rest of the unit of work, so that limits hold under concurrent commands.

        Raises `UserNotFound`.
        """


class RateSource(Protocol):
    """Today's rate for a customer."""

    def lock(self, *, at: datetime) -> LockedRate:
        """USD in KES, with its margin. Raises `RateStale` when the newest rate is no longer valid."""


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
