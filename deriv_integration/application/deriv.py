"""Deriv as the sagas see it: one gateway over the platforms' adapters, the transfers' rows and the agents' register."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deriv_integration.domain.ports import AgentRegistry, DerivApi, TransferRepository
from deriv_integration.domain.transfer import DerivAccount, DerivPlatformUnsupported, DerivUnavailable, reference_on
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Lookup, NotSent, Outcome, Unreadable
from shared_kernel.domain.ports import Clock, IdSource
from shared_kernel.domain.requests import AgentEntry, CodeSent, DerivLogin, DerivPlatform, DerivTransfer, Leg

FROZEN_RETRY_S = 300


@dataclass(frozen=True)
class Deriv:
    """Rows and agents join the caller's unit of work; what calls out (`check_login` and below) must run outside."""

    transfers: TransferRepository
    agents: AgentRegistry
    platforms: Mapping[DerivPlatform, DerivApi]
    clock: Clock
    ids: IdSource
    send_window: timedelta = timedelta(seconds=60)  # from the intent to the last moment at which a sender may write

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        """All attempts of each Transaction, oldest first; one SELECT."""
        return self.transfers.transfers_of(transactions)

    def known_entries(self, agent: str, ids: Sequence[str]) -> set[str]:
        """Those entries of the agent's book that attempts hold as theirs; one SELECT."""
        return self.transfers.known_entries(agent, ids)

    def transfers_by(self, references: Sequence[str]) -> Mapping[str, DerivTransfer]:
        """The newest attempt of each reference; one SELECT."""
        return self.transfers.transfers_by(references)

    def overdue(self, before: datetime, most: int) -> Sequence[DerivTransfer]:
        """The oldest attempts made before then whose outcome is open; one SELECT."""
        return self.transfers.overdue(before, most)

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

    def wipe_codes(self, before: datetime) -> int:
        """Wipes the one-time codes of debits made before then, which have expired; how many there were.

        Joins the caller's unit of work.
        """
        return self.transfers.wipe_codes(before)

    def freeze(self, agent: str, why: str) -> None:
        """Stops new transfers by an agent credential until a person resumes it; with an audit row."""
        self.agents.freeze(agent, why, at=self.clock())

    def agent_names(self) -> Sequence[str]:
        """Every agent credential there is, frozen or not."""
        return [agent for platform in self.platforms.values() for agent in platform.agents]

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
        """A new attempt with its id, reference and `send_before`; not stored yet. A debit's code is the caller's."""
        return DerivTransfer(
            id=RequestId(self.ids()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=reference_on(login.platform, transaction, leg, attempt),
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
        """Moves money by the transfer's leg; by a frozen agent nothing moves.

        `Done(reference)` of a credit carries the id of the agent's entry; a debit is `Accepted` at best.
        """
        if transfer.login.platform not in self.platforms:
            return NotSent("platform_unsupported", FROZEN_RETRY_S, alert=True)
        if transfer.agent in self.agents.frozen_lately():
            return NotSent("agent_frozen", FROZEN_RETRY_S, alert=True)
        return self.platforms[transfer.login.platform].send(transfer, give_up_at=give_up_at)

    def find(self, transfer: DerivTransfer) -> Lookup:
        """Asks what became of a transfer that may have been made; a frozen agent's book can be read."""
        if transfer.login.platform not in self.platforms:
            return Unreadable("platform_unsupported")
        return self.platforms[transfer.login.platform].find(transfer)

    def book(self, agent: str, since: datetime) -> Sequence[AgentEntry] | Unreadable:
        """Every entry of an agent's own book since then, newest first: orphans, and what was taken back."""
        for platform in self.platforms.values():
            if agent in platform.agents:
                return platform.book(agent, since)
        return Unreadable("agent_unknown")

    def balance(self, agent: str) -> Money | Unreadable:
        """What the agent's own account at Deriv holds now; calls out."""
        for platform in self.platforms.values():
            if agent in platform.agents:
                return platform.balance(agent)
        return Unreadable("agent_unknown")

    def in_flight(self, agent: str, *, made_since: datetime | None = None) -> tuple[int, int]:
        """Cents that may be coming to an agent's account and going from it and are not booked here: by attempts whose
        outcome is open, or, with `made_since`, by all sent since then. One SELECT in the caller's unit of work.
        """
        return self.transfers.in_flight(agent, made_since)

    def request_code(self, login: DerivLogin, token: str, agent: str, amount: Money) -> CodeSent:
        """Has Deriv send the customer the one-time code of a withdrawal to `agent`, by the customer's own `token`.

        Raises `DerivTokenRefused`, `DerivUnavailable`, `WithdrawalRefused` (Deriv's reason), `CodeTooSoon`,
        `DerivPlatformUnsupported`. The token is neither kept nor logged.
        """
        api = self._api(login.platform)
        if agent in self.agents.frozen_lately():
            raise DerivUnavailable("Deriv transfers are stopped at the moment: try again later")
        return api.request_code(login, token, agent, amount)

    def identify(self, platform: DerivPlatform, token: str) -> DerivAccount:
        """Whose token it is, for a customer's binding; the token is neither kept nor logged.

        Raises `DerivTokenRefused`, `DerivUnavailable`, `DerivPlatformUnsupported`.
        """
        return self._api(platform).identify(token)

    def _api(self, platform: DerivPlatform) -> DerivApi:
        if platform not in self.platforms:
            raise DerivPlatformUnsupported(f"Deriv logins on {platform} are not supported")
        return self.platforms[platform]
