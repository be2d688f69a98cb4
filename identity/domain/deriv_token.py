"""The token of a bound Deriv login: how long it lasts, what refreshes it, and whether Deriv still takes it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

REFRESH_AHEAD = timedelta(minutes=5)  # before it runs out: a code has to arrive, and a debit to leave
REFRESH_TAKES = timedelta(seconds=60)  # longer than the call's own limits; then somebody else may try
JUST_GOT = timedelta(minutes=1)  # a token so young that is refused would be refused again, refreshed


class DerivLoginState(StrEnum):
    """Whether money may move by a login."""

    ACTIVE = "active"
    EXPIRED = "expired"  # the token has run out, and nothing refreshes it
    LOST = "lost"  # Deriv does not take it any more


def state_of(
    lost_at: datetime | None, expires_at: datetime | None, can_be_refreshed: bool, *, at: datetime
) -> DerivLoginState:
    """Of a bound login. A token without a date lasts until Deriv refuses it."""
    if lost_at is not None:
        return DerivLoginState.LOST
    over = expires_at is not None and expires_at <= at and not can_be_refreshed
    return DerivLoginState.EXPIRED if over else DerivLoginState.ACTIVE


@dataclass(kw_only=True, eq=False)
class DerivToken:
    """Of the login that is active now. `refreshing_until` is set while somebody asks Deriv for another one."""

    login_id: UUID
    bound_at: datetime
    expires_at: datetime | None
    refresh_token: str = field(repr=False, default="")
    refreshed_at: datetime | None = None
    refreshing_until: datetime | None = None
    lost_at: datetime | None = None
    renewed: str | None = field(repr=False, default=None)  # the token, if it is a new one

    @property
    def got_at(self) -> datetime:
        """Since when it is this token."""
        return self.refreshed_at or self.bound_at

    def is_due(self, *, at: datetime) -> bool:
        """Whether it is to be refreshed before it is used."""
        soon = self.expires_at is not None and self.expires_at - at <= REFRESH_AHEAD
        return soon and bool(self.refresh_token) and self.lost_at is None

    def renew(self, token: str, refresh_token: str, *, expires_at: datetime, at: datetime) -> None:
        """Deriv gave another one; without a new refresh token the old one stays."""
        self.renewed, self.refresh_token = token, refresh_token or self.refresh_token
        self.expires_at, self.refreshed_at, self.refreshing_until = expires_at, at, None

    def lose(self, *, at: datetime) -> None:
        """Deriv does not take it any more: the customer has to bind anew. The token stays for what is on its way."""
        self.lost_at, self.refresh_token, self.refreshing_until = at, "", None

    def refused(self, *, sent_at: datetime, at: datetime) -> bool:
        """Deriv refused what went with the token at `sent_at`. Whether it is lost by that.

        A refusal of an older token says nothing. One that can be refreshed is refreshed before its next use instead.
        """
        if self.got_at > sent_at or self.lost_at is not None:
            return False
        if self.refresh_token and at - self.got_at > JUST_GOT:
            self.expires_at = at
            return False
        self.lose(at=at)
        return True
