"""Changing an account: password, phone, e-mail address, and its end.

Each change ends the other sessions at once, closes every open code, and is told to the channels of before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from identity.application.codes import Codes
from identity.application.door import Door
from identity.application.notices import Notices, proven_channels
from identity.application.unproven_contacts import UnprovenContacts
from identity.domain.contact import Email
from identity.domain.credentials import SignInBusy, WrongPassword
from identity.domain.notice import NoticeKind
from identity.domain.ports import Passwords, SessionRepository, SignedIn, TotpRepository, UserRepository
from identity.domain.session import SessionEnded
from identity.domain.user import AccountInUse, ContactTaken, User, UserNotFound
from identity.domain.verification import Channel, CodesAskedTooOften, NoOpenCode, Purpose, Target
from shared_kernel.domain.errors import DomainError, Unprocessable
from shared_kernel.domain.events import Event, PasswordResetAsked
from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, OutboxRepository, UnitOfWork


class ResetRefused(Unprocessable):
    """A wrong code, none, an old one, or nobody's account: they are never told apart."""

    def __init__(self) -> None:
        super().__init__(
            "this is not the code that was sent, or it is not good any more: check it, or ask for a new one"
        )


WAITED_FOR = timedelta(minutes=30)  # by whoever asked for a reset


@dataclass(frozen=True)
class Account:
    """The use cases of an account's changes. What needs a step-up is asked for it at the REST edge."""

    users: UserRepository
    sessions: SessionRepository
    codes: Codes
    totps: TotpRepository
    notices: Notices
    passwords: Passwords
    outbox: OutboxRepository
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    kept: timedelta  # after the end of the relationship
    door: Door
    unproven: UnprovenContacts
    is_tied: Callable[[UserId], bool]  # joins the unit of work; under the users row's lock nothing new begins

    # --- the password -------------------------------------------------------------------------------------------------

    def change_password(self, who: SignedIn, old: str, new: str) -> None:
        """Raises `WrongPassword`, `WeakPassword`, `SignInBusy`, `AccountFrozen`; `SessionEnded` after five wrong ones.

        A try is counted before it is looked at, so that guesses at the same moment are no more than five either.
        """
        with self.unit_of_work():
            user, session = self.users.get(who.id), self.sessions.get(who.session_id)
            user.may_change("the password can't be changed now")
            self.passwords.refuse_weak(new, user.known_words())
            may_try = session is not None and session.try_password(at=self.clock())
            if session is not None:
                self.sessions.save(session)
        if not may_try:
            self._refused(who.id, "user.password_refused", "too many wrong passwords")
            raise SessionEnded("too many wrong passwords: sign in again")
        proven = user.password_hash
        try:
            is_right = self.passwords.matches(old, proven, known=True)
            hash = self.passwords.hash(new, known=True) if is_right else ""
        except SignInBusy:  # nothing was guessed, or it was right
            self._give_try_back(who)
            raise
        if not is_right:
            self._refused(who.id, "user.password_refused", "wrong password")
            raise WrongPassword("this is not your present password")
        with self.unit_of_work():
            user = self.users.get(who.id)
            if user.password_hash != proven:  # changed while the hashes were computed
                raise WrongPassword("this is not your present password")
            channels = proven_channels(user)
            user.change_password(hash, at=self.clock(), why="by the old password")
            self.changed(user, NoticeKind.PASSWORD_CHANGED, channels, keep=who)

    def _give_try_back(self, who: SignedIn) -> None:
        with self.unit_of_work():
            self.users.get(who.id)  # its lock
            if session := self.sessions.get(who.session_id):
                session.untry_password()
                self.sessions.save(session)

    def ask_for_reset(self, identifier: Phone | Email | None, device_cookie: str = "") -> None:
        """The code is sent by a worker, so that an answer says nothing, and comes as soon, whoever is asked for.

        It goes to the verified address, else to the verified phone, by whichever of them the account was named: new
        devices and step-ups go by the phone, and so neither a stolen SIM nor a stolen mailbox is enough for both.

        A known device's code is good on that device alone, and what strangers ask for, or try, takes nothing from it.

        Raises `TooManyRequests`.
        """
        device = self.door.known_device(identifier, device_cookie)
        self.door.may_ask_for_reset(identifier, device)
        found = self.users.password_of(identifier) if identifier else None
        at, target = self.clock(), str(found[0]) if found else "unknown"
        with self.unit_of_work():
            self.audit.append([AuditRecord("user.password_reset_asked", "user", target, at)])
            if found:
                self.outbox.append([PasswordResetAsked(user_id=found[0], asker=_asker(device), occurred_at=at)])

    def send_reset_codes(self, events: Sequence[Event]) -> None:
        """Follows `PasswordResetAsked`; too many codes, no verified channel, or asked for too long ago (whoever still
        waits has asked again), and nothing is sent.
        """
        for event in events:
            if isinstance(event, PasswordResetAsked) and self.clock() - event.occurred_at < WAITED_FOR:
                self._send_reset_code(event)

    def _send_reset_code(self, event: PasswordResetAsked) -> None:
        with self.unit_of_work():
            user = self.users.get(event.user_id)
            target = user.proven_email() or user.proven_phone()
            if target is None or not user.is_open:
                return
            try:
                code = self.codes.make_once(
                    user.id,
                    Purpose.RESET_PASSWORD,
                    target,
                    asker=event.asker,
                    since=event.occurred_at,
                    at=self.clock(),
                )
            except CodesAskedTooOften:
                return
        if code is not None:
            self.codes.send(code)

    def reset_password(
        self, identifier: Phone | Email | None, code: str, password: str, device_cookie: str = ""
    ) -> None:
        """Raises `ResetRefused`, after as much work for nobody as for somebody; `WeakPassword`, `SignInBusy`,
        `TooManyRequests`.
        """
        self.passwords.refuse_weak(password, ())
        device = self.door.known_device(identifier, device_cookie)
        self.door.may_reset(identifier, device)
        hash = self.passwords.hash(password, known=device is not None)
        found = self.users.password_of(identifier) if identifier else None
        if found is None:
            self._refused(None, "user.reset_refused", "unknown user")
            raise ResetRefused
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(found[0])
            channels = proven_channels(user)
            proven = self.codes.submit(user.id, Purpose.RESET_PASSWORD, code, asker=_asker(device), at=at)
            if proven in channels and user.is_open:
                self.passwords.refuse_weak(password, user.known_words())
                user.change_password(hash, at=at, why=f"by a code sent by {Channel.of(proven)}")
                self.changed(user, NoticeKind.PASSWORD_RESET, channels, keep=None)
                return
            why = proven.code if isinstance(proven, DomainError) else "no channel" if user.is_open else "not open"
            user.note("user.reset_refused", at=at, why=why)
            self.users.save(user)
        raise ResetRefused

    # --- phone and e-mail ---------------------------------------------------------------------------------------------

    def ask_for_phone(self, who: SignedIn, phone: Phone) -> datetime:
        """Sends a code to the new number; until when it is good.

        Raises `ContactTaken`, `AccountFrozen`, `CodesAskedTooOften`, `SmsUnavailable`, `TooManyRequests`.
        """
        return self._ask(who, Purpose.NEW_PHONE, phone)

    def ask_for_email(self, who: SignedIn, email: Email) -> datetime:
        """Sends a code to the new address; until when it is good.

        Raises `ContactTaken`, `AccountFrozen`, `CodesAskedTooOften`, `EmailUnavailable`, `TooManyRequests`.
        """
        return self._ask(who, Purpose.NEW_EMAIL, email)

    def _ask(self, who: SignedIn, purpose: Purpose, target: Target) -> datetime:
        self.door.may_ask_for_code(who.id)
        with self.unit_of_work():
            user = self.users.get(who.id)
            user.may_change()
            if target in (user.phone, user.email) or self.users.is_taken(target):
                raise ContactTaken("this phone number or e-mail address belongs to an account")
            code = self.codes.make(who.id, purpose, target, asker=str(who.session_id), at=self.clock())
        return self.codes.send(code)

    def confirm_phone(self, who: SignedIn, code: str) -> None:
        """The number that the code went to is the account's, from the session that asked for it.

        Raises `WrongCode`, `NoOpenCode`, `ContactTaken`, `AccountFrozen`.
        """
        self._confirm(who, Purpose.NEW_PHONE, code)

    def confirm_email(self, who: SignedIn, code: str) -> None:
        """The same for an address. Raises `WrongCode`, `NoOpenCode`, `ContactTaken`, `AccountFrozen`."""
        self._confirm(who, Purpose.NEW_EMAIL, code)

    def _confirm(self, who: SignedIn, purpose: Purpose, code: str) -> None:
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(who.id)
            channels = proven_channels(user)
            proven = self.codes.submit(who.id, purpose, code, asker=str(who.session_id), at=at)
            match proven:
                case Phone():
                    self.unproven.free(proven, to_proof=True, at=at)
                    user.change_phone(proven, at=at)
                    self.changed(user, NoticeKind.PHONE_CHANGED, channels, keep=who)
                case Email():
                    self.unproven.free(proven, to_proof=True, at=at)
                    user.change_email(proven, at=at)
                    self.changed(user, NoticeKind.EMAIL_CHANGED, channels, keep=who)
                case DomainError() if not isinstance(proven, NoOpenCode):
                    user.note(f"user.{purpose}_refused", at=at, why=proven.code)
                    self.users.save(user)
        if isinstance(proven, DomainError):
            raise proven

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, user_id: UserId) -> None:
        """Raises `AccountInUse` while a payment, a debt or money in suspense ties them, `AccountFrozen`."""
        with self.unit_of_work():
            user = self.users.get(user_id)
            if not user.is_active:
                raise UserNotFound("no such customer")
            if self.is_tied(user_id):
                raise AccountInUse(
                    "a payment of yours is on its way, or money is still open between us: close the account once that "
                    "has ended"
                )
            channels = proven_channels(user)
            at = self.clock()
            user.close(keep_until=at + self.kept, at=at)
            self.totps.remove(user_id)
            self.changed(user, NoticeKind.ACCOUNT_CLOSED, channels, keep=None)

    def changed(self, user: User, kind: NoticeKind, channels: Sequence[Target], *, keep: SignedIn | None) -> None:
        """What every change ends with, in its unit of work: the session that made it may go on, its step-up may not.

        Saves `user`; `channels` are those of before.
        """
        at = self.clock()
        user.end_all_sessions(at=at, why=kind)
        self.sessions.end_all(user.id, but=keep.session_id if keep else None, at=at, by=kind)
        if keep and (session := self.sessions.get(keep.session_id)):
            session.token_epoch, session.password_tries, session.stepped_up_at = user.token_epoch, 0, None
            self.sessions.save(session)
        self.codes.verifications.close_all(user.id)
        if (factor := self.totps.get(user.id)) and factor.confirmed_at is None:  # somebody else may have enrolled it
            self.totps.remove(user.id)
        self.notices.tell(user, kind, channels)
        self.users.save(user)

    def _refused(self, user: UserId | None, action: str, why: str) -> None:
        target = str(user) if user else "unknown"
        with self.unit_of_work():
            self.audit.append([AuditRecord(action, "user", target, self.clock(), why=why)])


def _asker(device: UUID | None) -> str:
    """Who asks for a reset: a device that is known, or a stranger."""
    return f"device:{device}" if device else ""
