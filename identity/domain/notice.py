"""What a customer is told of, on the channels of before a change, so that no thief makes it in silence."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from identity.domain.verification import Target
from shared_kernel.domain.identifiers import UserId


class NoticeKind(StrEnum):
    """What was changed."""

    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - no password
    PASSWORD_RESET = "password_reset"  # noqa: S105 - no password
    PHONE_CHANGED = "phone_changed"
    EMAIL_CHANGED = "email_changed"
    ACCOUNT_CLOSED = "account_closed"
    TOTP_ADDED = "totp_added"
    TOTP_REMOVED = "totp_removed"
    DERIV_LOGIN_LOST = "deriv_login_lost"


SAYS = {
    NoticeKind.PASSWORD_CHANGED: "Your PenPay password was changed.",
    NoticeKind.PASSWORD_RESET: "Your PenPay password was set anew by a code.",
    NoticeKind.PHONE_CHANGED: "The phone number of your PenPay account was changed.",
    NoticeKind.EMAIL_CHANGED: "The e-mail address of your PenPay account was changed.",
    NoticeKind.ACCOUNT_CLOSED: "Your PenPay account was closed.",
    NoticeKind.TOTP_ADDED: "An authenticator app was added to your PenPay account.",
    NoticeKind.TOTP_REMOVED: "The authenticator app was removed from your PenPay account.",
    NoticeKind.DERIV_LOGIN_LOST: "Deriv no longer lets PenPay use your Deriv account. Bind it again in PenPay to pay.",
}
"""A notice holds nothing that is secret or personal."""


@dataclass(kw_only=True, eq=False)
class Notice:
    """One text to one channel; `target` is forgotten once it was sent."""

    id: UUID
    user_id: UserId
    kind: NoticeKind
    target: Target = field(repr=False)
    created_at: datetime

    @property
    def text(self) -> str:
        """As it is sent."""
        return f"{SAYS[self.kind]} If it was not you, contact PenPay's support at once."
