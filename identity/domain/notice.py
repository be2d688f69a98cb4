"""What a customer is told of, on all verified channels (those of before a change), so that no thief acts in silence."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from identity.domain.verification import Target
from shared_kernel.domain.identifiers import UserId


class NoticeKind(StrEnum):
    """What was changed, or tried."""

    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - no password
    PASSWORD_RESET = "password_reset"  # noqa: S105 - no password
    PHONE_CHANGED = "phone_changed"
    EMAIL_CHANGED = "email_changed"
    ACCOUNT_CLOSED = "account_closed"
    TOTP_ADDED = "totp_added"
    TOTP_REMOVED = "totp_removed"
    TOTP_TAKEN_AWAY = "totp_taken_away"
    TOTP_LOCKED = "totp_locked"
    NEW_DEVICE = "new_device"
    REFRESH_REUSED = "refresh_reused"
    DERIV_LOGIN_LOST = "deriv_login_lost"
    DERIV_LOGIN_BOUND = "deriv_login_bound"
    DERIV_LOGIN_UNBOUND = "deriv_login_unbound"
    CONTACT_LOST = "contact_lost"


SAYS = {
    NoticeKind.PASSWORD_CHANGED: "Your PenPay password was changed.",
    NoticeKind.PASSWORD_RESET: "Your PenPay password was set anew by a code.",
    NoticeKind.PHONE_CHANGED: "The phone number of your PenPay account was changed.",
    NoticeKind.EMAIL_CHANGED: "The e-mail address of your PenPay account was changed.",
    NoticeKind.ACCOUNT_CLOSED: "Your PenPay account was closed.",
    NoticeKind.TOTP_ADDED: "An authenticator app was added to your PenPay account.",
    NoticeKind.TOTP_REMOVED: "The authenticator app was removed from your PenPay account.",
    NoticeKind.TOTP_TAKEN_AWAY: "PenPay's support removed the authenticator app from your account, as it was asked to.",
    NoticeKind.TOTP_LOCKED: "Too many wrong codes of your authenticator app were given for your PenPay account.",
    NoticeKind.NEW_DEVICE: "Somebody signed in to your PenPay account on a device that is new to it.",
    NoticeKind.REFRESH_REUSED: "A sign-in to your PenPay account was ended, for somebody may have copied its cookies.",
    NoticeKind.DERIV_LOGIN_LOST: "Deriv no longer lets PenPay use your Deriv account. Bind it again in PenPay to pay.",
    NoticeKind.DERIV_LOGIN_BOUND: "A Deriv account was bound to your PenPay account: what you deposit goes there now.",
    NoticeKind.DERIV_LOGIN_UNBOUND: "The Deriv account was removed from your PenPay account.",
    NoticeKind.CONTACT_LOST: "A number or address of your PenPay account that was never verified is another account's.",
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
