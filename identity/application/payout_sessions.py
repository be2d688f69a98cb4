"""What a session needs for money to leave, or to go elsewhere: stepped up, and neither device nor phone just new."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from identity.domain.ports import SessionRepository
from identity.domain.session import DeviceTooNew, SessionStanding, must_be_stepped_up
from shared_kernel.domain.money import Money

JUST_NEW = (
    "this device is new to your account, or its phone number was changed or its authenticator removed a short while ago"
)


@dataclass(frozen=True)
class PayoutSessions:
    """A device waits for `wait` before payouts that come to `large` (KES) and more, all of that time taken together; an
    account's very first one does not. After a change of the phone, to which payouts go, or once support took a lost
    authenticator away, every device waits.

    `ordered` gives what the customer has ordered since a moment from sessions that waited then, in KES: from whichever
    of them, for a device that is removed and enrolled anew begins another wait and no other sum. Both join the caller's
    unit of work, with one query, and hold against each other under the lock of the users row.
    """

    sessions: SessionRepository
    wait: timedelta
    large: Money

    def may_ask(self, session: UUID, amount: Money, ordered: Callable[[datetime], Money], *, at: datetime) -> None:
        """Raises `DeviceTooNew`, `SessionEnded`."""
        self._must_not_wait(self.sessions.standing(session), amount, ordered, at=at)

    def may_order(self, session: UUID, amount: Money, ordered: Callable[[datetime], Money], *, at: datetime) -> bool:
        """Whether the session waits, so that the payout counts from now on.

        Raises `DeviceTooNew`, `StepUpRequired`, `SessionEnded`.
        """
        standing = self.sessions.standing(session)
        waits = self._must_not_wait(standing, amount, ordered, at=at)
        must_be_stepped_up(standing.stepped_up_at, at=at)
        return waits

    def may_redirect(self, session: UUID, *, at: datetime) -> None:
        """Whether it may say where else the customer's deposits go, of whatever amount. Raises `DeviceTooNew`,
        `SessionEnded`.
        """
        may_at = self._waits_until(self.sessions.standing(session), at=at)
        if may_at is not None:
            when = may_at.isoformat(timespec="seconds").replace("+00:00", "Z")
            raise DeviceTooNew(f"{JUST_NEW}: another Deriv account can be bound from here after {when}", may_at=when)

    def _waits_until(self, standing: SessionStanding, *, at: datetime) -> datetime | None:
        may_at = None if standing.new_since is None else standing.new_since + self.wait
        return may_at if may_at is not None and at < may_at else None

    def _must_not_wait(
        self, standing: SessionStanding, amount: Money, ordered: Callable[[datetime], Money], *, at: datetime
    ) -> bool:
        """Whether the session waits, and the amount is one that need not. Raises `DeviceTooNew`."""
        may_at = self._waits_until(standing, at=at)
        if may_at is None:
            return False
        before = ordered(at - self.wait)
        if before + amount < self.large:
            return True
        when = may_at.isoformat(timespec="seconds").replace("+00:00", "Z")
        raise DeviceTooNew(
            f"{JUST_NEW}: payouts that come to {self.large} and more can be ordered from here after {when}, now less "
            f"than {self.large - before}",
            may_at=when,
        )
