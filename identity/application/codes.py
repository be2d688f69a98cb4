"""One-time codes: made and checked in the caller's unit of work, sent once it has committed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from identity.domain.contact import Email
from identity.domain.ports import (
    EmailSender,
    Secrets,
    SmsSender,
    TooManyMails,
    TooManyTexts,
    VerificationRepository,
)
from identity.domain.verification import (
    APART,
    CHANNELS,
    MOST,
    TTL,
    Channel,
    NoOpenCode,
    OneTimeCode,
    Purpose,
    Target,
    refuse_too_many,
)
from shared_kernel.domain.errors import DomainError, TooManyRequests
from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.ports import Clock, IdSource, UnitOfWork
from shared_kernel.domain.rate_limits import Counter, Limiter

FOR = {
    Purpose.PROVE_PHONE: "To confirm your phone number.",
    Purpose.PROVE_EMAIL: "To confirm your e-mail address.",
    Purpose.NEW_PHONE: "To make this your phone number at PenPay.",
    Purpose.NEW_EMAIL: "To make this your e-mail address at PenPay.",
    Purpose.RESET_PASSWORD: "To set a new password.",
    Purpose.STEP_UP: "To confirm what you are about to do, such as a withdrawal.",
    Purpose.NEW_DEVICE: "To sign in on a new device.",
}
"""What a message says that its code is for, so that nobody can have it asked for under another pretext."""


class Cause(StrEnum):
    """Who can have a message sent. Each has ceilings of its own, so that a flood of one stops none of the others."""

    ANYBODY = "anybody"  # a stranger who knows a password or an identifier, or names any phone or address as theirs
    SESSION = "session"  # a session, or a device that is known, to what its customer has proven
    NOTICE = "notice"  # a change that was made


CAUSES = dict.fromkeys(Purpose, Cause.ANYBODY) | {Purpose.STEP_UP: Cause.SESSION}


@dataclass(frozen=True)
class CodeToSend:
    """A code that was stored, and is not sent yet."""

    id: UUID
    cause: Cause
    target: Target
    text: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Messages:
    """Texts to customers, by the channel that reaches the target. Never called in a unit of work."""

    sms: Callable[[], SmsSender]
    email: Callable[[], EmailSender]
    limiter: Limiter

    def send(self, cause: Cause, target: Target, subject: str, text: str) -> None:
        """`subject` is for e-mail. Raises `SmsUnavailable` (`TooManyTexts`), `EmailUnavailable` (`TooManyMails`)."""
        try:
            self.limiter.take(*ceilings(cause, target))
        except TooManyRequests as full:
            if isinstance(target, Phone):
                raise TooManyTexts("too many texts were sent: wait, then try again", **full.extra) from None
            raise TooManyMails("too many e-mails were sent: wait, then try again", **full.extra) from None
        if isinstance(target, Phone):
            self.sms().send(target, text)
        else:
            self.email().send(target, subject, text)


def ceilings(cause: Cause, target: Target) -> list[Counter]:
    """The counters of one message."""
    if isinstance(target, Phone):
        own = [Counter(f"sms_{cause}.{name}", target.number) for name in ("phone", "phone_day")]
        return [*own, Counter(f"sms_{cause}.all")]
    return [Counter(f"mail_{cause}.address", target.address), Counter(f"mail_{cause}.all")]


@dataclass(frozen=True)
class Codes:
    """What every purpose shares. `make` and `submit` need the lock of the users row."""

    verifications: VerificationRepository
    secrets: Secrets
    messages: Messages
    ids: IdSource
    unit_of_work: UnitOfWork
    clock: Clock

    def make(self, user: UserId, purpose: Purpose, target: Target, *, asker: str = "", at: datetime) -> CodeToSend:
        """A new code; it closes the one before. `asker` is what alone can use it. Raises `CodesAskedTooOften`."""
        assert Channel.of(target) in CHANNELS[purpose], f"{purpose} is looked for elsewhere"
        lane = _lane(purpose, asker)
        longest = max(while_ for _, while_ in MOST)
        refuse_too_many(self.verifications.made_since(user, purpose, lane, at - longest), at=at)
        if before := self.verifications.open_one(user, purpose, lane):
            before.is_open = False
            self.verifications.save(before)
        id, code = self.ids(), self.secrets.code()
        self.verifications.save(
            OneTimeCode(
                id=id,
                user_id=user,
                purpose=purpose,
                target=target,
                asker=lane,
                code_hash=self.secrets.code_fingerprint(id, bound(purpose, target, asker), code),
                created_at=at,
                expires_at=at + TTL,
            )
        )
        minutes = int(TTL.total_seconds() // 60)
        text = f"PenPay code: {code}. {FOR[purpose]} Good for {minutes} minutes. Never tell it to anybody."
        cause = Cause.SESSION if lane else CAUSES[purpose]  # a lane is a known device's
        return CodeToSend(id, cause, target, text, at + TTL)

    def make_once(
        self, user: UserId, purpose: Purpose, target: Target, *, asker: str = "", since: datetime, at: datetime
    ) -> CodeToSend | None:
        """For a worker that may come again: None where a code went out that was made after `since`.

        One that did not, because the provider was away or we stopped in between, makes way, and is not counted.
        Raises `CodesAskedTooOften`.
        """
        lane = _lane(purpose, asker)
        if self.verifications.was_sent_since(user, purpose, lane, since):
            return None
        self.verifications.forget_unsent(user, purpose, lane)
        return self.make(user, purpose, target, asker=asker, at=at)

    def send(self, code: CodeToSend) -> datetime:
        """After the commit: until when it is good. Raises `SmsUnavailable`, `EmailUnavailable`."""
        self.messages.send(code.cause, code.target, "Your PenPay code", code.text)
        with self.unit_of_work():
            self.verifications.sent(code.id, code.target, at=self.clock())
        return code.expires_at

    def submit(
        self, user: UserId, purpose: Purpose, code: str, *, asker: str = "", at: datetime
    ) -> Target | DomainError:
        """What the code proves, or the refusal as a value: the try is to be committed all the same."""
        verification = self.verifications.open_one(user, purpose, _lane(purpose, asker))
        if verification is None:
            return NoOpenCode("no code is open: ask for a new one")
        given = self.secrets.code_fingerprint(verification.id, bound(purpose, verification.target, asker), code)
        refusal = verification.submit(self.secrets.same(given, verification.code_hash), at=at)
        self.verifications.save(verification)
        return refusal or verification.target


def _lane(purpose: Purpose, asker: str) -> str:
    """Whose codes count together."""
    return asker if purpose in APART else ""


def bound(purpose: Purpose, target: Target, asker: str) -> str:
    """What a code's HMAC covers beside its id and the code."""
    return f"{purpose}|{target.address if isinstance(target, Email) else target.number}|{asker}"
