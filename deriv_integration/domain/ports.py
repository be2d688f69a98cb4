"""What the Deriv context asks of the world: its rows, its agents, and an adapter for each of Deriv's platforms."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from deriv_integration.domain.transfer import DerivAccount
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Lookup, Outcome, Unreadable
from shared_kernel.domain.requests import AgentEntry, CodeSent, DerivLogin, DerivTransfer


class TransferRepository(Protocol):
    """`deriv_transfers`. Everything joins the caller's unit of work, which holds the lock on the Transactions."""

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        """All attempts of each Transaction, oldest first; one SELECT."""

    def known_entries(self, agent: str, ids: Sequence[str]) -> set[str]:
        """Those entries of the agent's book that attempts hold as theirs; one SELECT."""

    def transfers_by(self, references: Sequence[str]) -> Mapping[str, DerivTransfer]:
        """The newest attempt of each reference; one SELECT."""

    def overdue(self, before: datetime, most: int) -> Sequence[DerivTransfer]:
        """The oldest attempts made before then whose outcome is open; one SELECT."""

    def in_flight(self, agent: str, made_since: datetime | None) -> tuple[int, int]:
        """Cents that come to and go from an agent by attempts whose outcome is open, or by all made since then."""

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores intents: new attempts in one INSERT, known ones (`fence` above 1) in one UPDATE."""

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]], *, at: datetime) -> None:
        """Stores what became of calls in one UPDATE.

        `NotSent` and `Refused` count only from the newest sender (`fence`), `Done` and `Unknown` from any. What is done
        stays so; what was proven absent is changed by `Done` alone. A refusal after a sending without a known outcome
        leaves the attempt unknown, with the code. All but `NotSent` wipe the one-time code.
        """

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores what was decided about attempts, in one UPDATE; what is done stays so."""

    def wipe_codes(self, before: datetime) -> int:
        """Wipes one-time codes of attempts made before then; how many there were. Joins the caller's unit of work."""


class AgentRegistry(Protocol):
    """`deriv_agents`: which agent credentials are frozen."""

    def frozen(self, *, at_most_old_s: float = 0.0) -> frozenset[str]:
        """The frozen ones; joins the caller's unit of work. What this process read so lately will do."""

    def frozen_lately(self) -> frozenset[str]:
        """What `frozen` said last in this process: asks nothing, so that it may be read outside of any unit of work."""

    def freeze(self, agent: str, why: str, *, at: datetime) -> None:
        """Stops it, with an audit row, in the caller's unit of work; a frozen one stays as it is."""


class DerivApi(Protocol):
    """One of Deriv's platforms. Every call but `agents` goes out: `RuntimeError` inside a database transaction."""

    @property
    def agents(self) -> Sequence[str]:
        """Names of the agent credentials on this platform."""

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        """Asks whether `login` may be credited, moving nothing: `Done(full name)`, `Refused`, or nothing learnt."""

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        """Moves money by the transfer's leg; past `give_up_at` (monotonic) nothing is written.

        `Done` carries the id of the agent's entry; a debit is `Accepted` at best.
        """

    def find(self, transfer: DerivTransfer) -> Lookup:
        """Looks into the agent's own book for the transfer, and asks by its key where Deriv keeps one."""

    def book(self, agent: str, since: datetime) -> Sequence[AgentEntry] | Unreadable:
        """Every entry of the agent's own book since then, newest first."""

    def balance(self, agent: str) -> Money | Unreadable:
        """What the agent's own account holds now."""

    def request_code(self, login: DerivLogin, token: str, agent: str, amount: Money) -> CodeSent:
        """Has Deriv send the customer a one-time code for a withdrawal of `amount` to `agent`.

        Raises `DerivTokenRefused`, `DerivUnavailable`, `WithdrawalRefused`, `CodeTooSoon`.
        """

    def identify(self, token: str) -> DerivAccount:
        """Whose token it is. Raises `DerivTokenRefused`, `DerivUnavailable`. The token is neither kept nor logged."""
