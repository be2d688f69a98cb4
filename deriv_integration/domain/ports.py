"""What the Deriv context asks of the world: its rows, its agents, and an adapter for each of Deriv's platforms."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from deriv_integration.domain.transfer import DerivAccount
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Lookup, Outcome
from shared_kernel.domain.requests import DerivLogin, DerivTransfer


class TransferRepository(Protocol):
    """`deriv_transfers`. Everything joins the caller's unit of work, which holds the lock on the Transactions."""

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        """All attempts of each Transaction, oldest first; one SELECT."""

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores intents: new attempts in one INSERT, known ones (`fence` above 1) in one UPDATE."""

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]], *, at: datetime) -> None:
        """Stores what became of calls in one UPDATE.

        `NotSent` and `Refused` count only from the newest sender (`fence`), `Done` and `Unknown` from any. What is done
        stays so; what was proven absent is changed by `Done` alone.
        """

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores what was decided about attempts, in one UPDATE; what is done stays so."""


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
        """Sends money; past `give_up_at` (monotonic) nothing is written. `Done` carries Deriv's transaction id."""

    def find(self, transfer: DerivTransfer) -> Lookup:
        """Looks into the agent's own book for the transfer."""

    def identify(self, token: str) -> DerivAccount:
        """Whose token it is. Raises `DerivTokenRefused`, `DerivUnavailable`. The token is neither kept nor logged."""
