"""A sign-in at Deriv that a customer began and has to finish: bound to its `state`, and to the session that began it.

What Deriv's redirect brings is a code. It counts only if it came back with the right state, once; and it binds nothing
until the session that began hands the same code over itself: the code is shown to whoever signed in at Deriv, and to
nobody else, so that nobody binds an account which somebody else was lured into signing in to (ADR 0030).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from shared_kernel.domain.errors import Conflict, DomainError, Unprocessable
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.requests import DerivPlatform

TTL = timedelta(minutes=10)
TRIES = 5


class DerivAuthorizationNotOpen(Conflict):
    """None was begun, or it is over: used, too old, another one took its place, or the account was left meanwhile."""

    def __init__(self) -> None:
        super().__init__(
            "no sign-in at Deriv waits for this: begin anew with GET me/deriv-login/authorize, sign in at Deriv within "
            "ten minutes, and post the code that is shown then from the session that began"
        )


class WrongDerivCode(Unprocessable):
    """Not the code that Deriv's redirect brought; `extra["tries_left"]`."""


@dataclass(kw_only=True, eq=False)
class DerivAuthorization:
    """One customer's only one. `code_hash` is empty until the redirect came."""

    user_id: UserId
    session_id: UUID
    platform: DerivPlatform
    state_hash: str = field(repr=False)
    verifier: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    returned_at: datetime | None = None
    code_hash: str = field(repr=False, default="")
    tries: int = 0

    def came_back(self, code_hash: str, *, at: datetime) -> None:
        """Once. Raises `DerivAuthorizationNotOpen`."""
        if self.returned_at is not None or at >= self.expires_at:
            raise DerivAuthorizationNotOpen
        self.returned_at, self.code_hash = at, code_hash

    def submit(self, session: UUID, right: bool, *, at: datetime) -> DomainError | None:
        """Counts a try. The refusal, if it is refused, as a value: the try is to be stored all the same."""
        if session != self.session_id or self.returned_at is None or at >= self.expires_at or self.tries >= TRIES:
            return DerivAuthorizationNotOpen()
        self.tries += 1
        if right:
            return None
        left = TRIES - self.tries
        hint = f"{left} tries are left" if left else "begin anew"
        return WrongDerivCode(f"this is not the code that was shown after signing in at Deriv: {hint}", tries_left=left)
