"""What payments asks of the session that orders a payout: stepped up, and neither device nor phone just new."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from identity.domain.ports import SessionRepository
from identity.domain.session import DeviceTooNew, SessionStanding, must_be_stepped_up
from shared_kernel.domain.money import Money


@dataclass(frozen=True)
class PayoutSessions:
    """A device waits for `wait` before payouts of `large` (KES) and more; an account's very first one does not. After a
    change of the phone, to which payouts go, every device waits.

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
                "this device is new to your account, or its phone number was changed a short while ago: payouts of "
                f"{self.large} and more can be ordered from here after {when}, smaller ones now",
                may_at=when,
            )
