"""What payments asks of the session that orders a payout: stepped up, and on a device that is no stranger."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from identity.domain.ports import SessionRepository
from identity.domain.session import DeviceTooNew, SessionStanding, must_be_stepped_up
from shared_kernel.domain.money import Money


@dataclass(frozen=True)
class PayoutSessions:
    """A device waits for `wait` before payouts of `large` (KES) and more; an account's very first one does not.

    Both join the caller's unit of work, with one query.
    """

    sessions: SessionRepository
    wait: timedelta
    large: Money

    def may_ask(self, session: UUID, amount: Money, *, at: datetime) -> None:
        """Raises `DeviceTooNew`, `SessionEnded`."""
        self._must_be_known(self.sessions.standing(session), amount, at=at)

    def may_order(self, session: UUID, amount: Money, *, at: datetime) -> None:
        """Raises `DeviceTooNew`, `StepUpRequired`, `SessionEnded`."""
        standing = self.sessions.standing(session)
        self._must_be_known(standing, amount, at=at)
        must_be_stepped_up(standing.stepped_up_at, at=at)

    def _must_be_known(self, standing: SessionStanding, amount: Money, *, at: datetime) -> None:
        if standing.new_since is None or amount < self.large:
            return
        may_at = standing.new_since + self.wait
        if at < may_at:
            when = may_at.isoformat(timespec="seconds").replace("+00:00", "Z")
            raise DeviceTooNew(
                f"this device is new: payouts of {self.large} and more can be ordered from it after {when}, "
                "smaller ones and those from a device that you had before can be ordered now",
                may_at=when,
            )
