"""Deriv as the sagas see it: one gateway over the platforms' adapters, the transfers' rows and the agents' register."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deriv_integration.domain.ports import AgentRegistry, DerivApi, TransferRepository
from deriv_integration.domain.transfer import DerivAccount, DerivPlatformUnsupported, DerivUnavailable, reference_of
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Lookup, NotSent, Outcome, Unreadable
from shared_kernel.domain.ports import Clock, IdSource
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, DerivTransfer, Leg

FROZEN_RETRY_S = 300


@dataclass(frozen=True)
class Deriv:
    """Rows and agents join the caller's unit of work; what calls out (the last four) must run outside of one."""

    transfers: TransferRepository
    agents: AgentRegistry
    platforms: Mapping[DerivPlatform, DerivApi]
    clock: Clock
    ids: IdSource
    send_window: timedelta = timedelta(seconds=60)  # from the intent to the last moment at which a sender may write

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        """All attempts of each Transaction, oldest first; one SELECT."""
        return self.transfers.transfers_of(transactions)

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores intents, and learns which agents are frozen before any of them is sent."""
        self.transfers.record(transfers)
        self.agents.frozen()

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]]) -> None:
        """Stores what became of calls, by the fence's rule; a Deriv id that another row holds is an error."""
        self.transfers.record_outcomes(outcomes, at=self.clock())

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        """Stores what the saga decided about attempts."""
        self.transfers.save(transfers)

    def freeze(self, agent: str, why: str) -> None:
        """Stops new transfers by an agent credential until a person resumes it; with an audit row."""
        self.agents.freeze(agent, why, at=self.clock())

    def agent_for(self, platform: DerivPlatform) -> str:
        """The agent credential for a new Transaction, spread over those in use.

        Raises `DerivUnavailable`, `DerivPlatformUnsupported`.
        """
        frozen = self.agents.frozen(at_most_old_s=2.0)  # whoever sends looks again
        usable = [agent for agent in self._api(platform).agents if agent not in frozen]
        if not usable:
            raise DerivUnavailable("Deriv transfers are stopped at the moment: try again later")
        return usable[self.ids().int % len(usable)]

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
        """A new attempt with its id, reference and `send_before`; not stored yet."""
        return DerivTransfer(
            id=RequestId(self.ids()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=reference_of(transaction, leg),
            amount=amount,
            send_before=at + self.send_window,
            created_at=at,
            login=login,
            agent=agent,
        )

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        """Asks whether `login` may be credited: `Done(full name)`, `Refused`, or nothing learnt. Moves nothing."""
        if login.platform not in self.platforms:
            return NotSent("platform_unsupported", FROZEN_RETRY_S, alert=True)
        return self.platforms[login.platform].check_login(login, agent, amount)

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        """Sends money. `Done(reference)` carries Deriv's transaction id; a frozen agent sends nothing."""
        if transfer.login.platform not in self.platforms:
            return NotSent("platform_unsupported", FROZEN_RETRY_S, alert=True)
        if transfer.agent in self.agents.frozen_lately():
            return NotSent("agent_frozen", FROZEN_RETRY_S, alert=True)
        return self.platforms[transfer.login.platform].send(transfer, give_up_at=give_up_at)

    def find(self, transfer: DerivTransfer) -> Lookup:
        """Looks into the agent's own book for a transfer that may have been made; a frozen agent's book can be read."""
        if transfer.login.platform not in self.platforms:
            return Unreadable("platform_unsupported")
        return self.platforms[transfer.login.platform].find(transfer)

    def identify(self, platform: DerivPlatform, token: str) -> DerivAccount:
        """Whose token it is, for a customer's binding; the token is neither kept nor logged.

        Raises `DerivTokenRefused`, `DerivUnavailable`, `DerivPlatformUnsupported`.
        """
        return self._api(platform).identify(token)

    def _api(self, platform: DerivPlatform) -> DerivApi:
        if platform not in self.platforms:
            raise DerivPlatformUnsupported(f"Deriv logins on {platform} are not supported yet: use one on ws_v3")
        return self.platforms[platform]
