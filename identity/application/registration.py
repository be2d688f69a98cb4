"""Signing up, and proving phone number and e-mail address by a code."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from identity.application.codes import Codes, CodeToSend
from identity.application.door import Door
from identity.application.unproven_contacts import UnprovenContacts
from identity.domain.contact import Email
from identity.domain.ports import Passwords, UserRepository
from identity.domain.user import User
from identity.domain.verification import MOST, NoOpenCode, Purpose
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.events import Event, UserRegistered
from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.ports import Clock, IdSource, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Register:
    """A person asks for an account."""

    phone: Phone
    email: Email
    password: str = field(repr=False)
    full_name: str = field(repr=False)


@dataclass(frozen=True)
class Registration:
    """The use cases of signing up."""

    users: UserRepository
    codes: Codes
    passwords: Passwords
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource
    door: Door
    unproven: UnprovenContacts

    def register(self, command: Register) -> UserId:
        """Raises `AlreadyRegistered`, `WeakPassword`, `InvalidName`, `SignInBusy`, `TooManyRequests`."""
        known = (command.phone.number, command.phone.number[3:], command.email.address, command.full_name)
        self.passwords.refuse_weak(command.password, known)
        self.door.may_register()
        user = User.register(
            UserId(self.ids()),
            command.phone,
            command.email,
            command.full_name,
            self.passwords.hash(command.password),
            at=self.clock(),
        )
        with self.unit_of_work():
            self.unproven.free(command.phone, command.email, to_proof=False, at=user.created_at)
            self.users.add(user)
        return user.id

    def send_codes(self, events: Sequence[Event]) -> None:
        """Follows `UserRegistered`: the first code goes out by itself, unless one was asked for in the meantime."""
        for event in events:
            if isinstance(event, UserRegistered) and (code := self._first_code(event.user_id)):
                self.codes.send(code)

    def _first_code(self, user_id: UserId) -> CodeToSend | None:
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(user_id)
            lately = at - max(while_ for _, while_ in MOST)
            if user.phone is None or user.phone_verified_at is not None or not user.is_open:
                return None
            return self.codes.make_once(user_id, Purpose.PROVE_PHONE, user.phone, since=lately, at=at)

    def send_phone_code(self, user_id: UserId) -> datetime:
        """A new code to the customer's phone; it closes the one before. Until when it is good.

        Raises `PhoneAlreadyVerified`, `AccountFrozen`, `CodesAskedTooOften`, `SmsUnavailable`, `TooManyRequests`.
        """
        self.door.may_ask_for_code(user_id)
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.may_change()
            code = self.codes.make(user_id, Purpose.PROVE_PHONE, user.unproven_phone(), at=self.clock())
        return self.codes.send(code)

    def confirm_phone(self, user_id: UserId, code: str) -> None:
        """Tries are counted, five at most.

        Raises `WrongCode`, `NoOpenCode`, `AccountFrozen`, `PhoneAlreadyVerified`.
        """
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.may_change()
            user.unproven_phone()
            proven = self.codes.submit(user_id, Purpose.PROVE_PHONE, code, at=at)
            match proven:
                case Phone():
                    user.phone_proven(proven, at=at)
                case DomainError() if not isinstance(proven, NoOpenCode):
                    user.note("user.phone_code_refused", at=at, why=proven.code)
            self.users.save(user)
        if isinstance(proven, DomainError):
            raise proven

    def send_email_code(self, user_id: UserId) -> datetime:
        """A new code to the customer's e-mail address; it closes the one before. Until when it is good.

        Raises `EmailAlreadyVerified`, `AccountFrozen`, `CodesAskedTooOften`, `EmailUnavailable`, `TooManyRequests`.
        """
        self.door.may_ask_for_code(user_id)
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.may_change()
            code = self.codes.make(user_id, Purpose.PROVE_EMAIL, user.unproven_email(), at=self.clock())
        return self.codes.send(code)

    def confirm_email(self, user_id: UserId, code: str) -> None:
        """Tries are counted, five at most.

        Raises `WrongCode`, `NoOpenCode`, `AccountFrozen`, `EmailAlreadyVerified`.
        """
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.may_change()
            user.unproven_email()
            proven = self.codes.submit(user_id, Purpose.PROVE_EMAIL, code, at=at)
            match proven:
                case Email():
                    user.email_proven(proven, at=at)
                case DomainError() if not isinstance(proven, NoOpenCode):
                    user.note("user.email_code_refused", at=at, why=proven.code)
            self.users.save(user)
        if isinstance(proven, DomainError):
            raise proven
