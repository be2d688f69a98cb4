"""Signing up, and proving the phone number by a code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from identity.domain.ports import Passwords, Secrets, SmsSender, UserRepository, VerificationRepository
from identity.domain.user import Email, User
from identity.domain.verification import MOST, PROVE_PHONE, TTL, NoOpenCode, PhoneVerification, refuse_too_many
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
    verifications: VerificationRepository
    passwords: Passwords
    secrets: Secrets
    sms: Callable[[], SmsSender]
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource

    def register(self, command: Register) -> UserId:
        """Raises `AlreadyRegistered`, `WeakPassword`, `InvalidName`, `SignInBusy`."""
        known = (command.phone.number, command.phone.number[3:], command.email.address, command.full_name)
        self.passwords.refuse_weak(command.password, known)
        user = User.register(
            UserId(self.ids()),
            command.phone,
            command.email,
            command.full_name,
            self.passwords.hash(command.password),
            at=self.clock(),
        )
        with self.unit_of_work():
            self.users.add(user)
        return user.id

    def send_codes(self, events: Sequence[Event]) -> None:
        """Follows `UserRegistered`: the first code goes out by itself, unless one was asked for in the meantime."""
        for event in events:
            if isinstance(event, UserRegistered):
                self._send_code(event.user_id, only_first=True)

    def send_phone_code(self, user_id: UserId) -> datetime:
        """A new code to the customer's phone; it closes the one before. Until when it is good.

        Raises `PhoneAlreadyVerified`, `CodesAskedTooOften`, `SmsUnavailable`.
        """
        return self._send_code(user_id, only_first=False)

    def _send_code(self, user_id: UserId, *, only_first: bool) -> datetime:
        at, code = self.clock(), self.secrets.code()
        with self.unit_of_work():
            user = self.users.get(user_id)
            sent = self.verifications.sent_since(user_id, at - max(while_ for _, while_ in MOST))
            if only_first and (sent or user.phone_verified_at is not None):
                return at
            user.refuse_proven_phone()
            refuse_too_many(sent, at=at)
            assert user.phone is not None
            if before := self.verifications.open_one(user_id, PROVE_PHONE):
                before.is_open = False
                self.verifications.save(before)
            id = self.ids()
            self.verifications.save(
                PhoneVerification(
                    id=id,
                    user_id=user_id,
                    purpose=PROVE_PHONE,
                    phone=user.phone,
                    code_hash=self.secrets.code_fingerprint(id, code),
                    created_at=at,
                    expires_at=at + TTL,
                )
            )
        minutes = int(TTL.total_seconds() // 60)
        self.sms().send(user.phone, f"PenPay code: {code}. Good for {minutes} minutes. Never tell it to anybody.")
        return at + TTL

    def confirm_phone(self, user_id: UserId, code: str) -> None:
        """Tries are counted, five at most. Raises `WrongCode`, `NoOpenCode`, `PhoneAlreadyVerified`."""
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.refuse_proven_phone()
            verification = self.verifications.open_one(user_id, PROVE_PHONE)
            if verification is None:
                user.note("user.phone_code_refused", at=at, why="no open code")
                refusal: DomainError | None = NoOpenCode("no code is open: ask for a new one")
            else:
                given = self.secrets.code_fingerprint(verification.id, code)
                refusal = verification.submit(self.secrets.same(given, verification.code_hash), at=at)
                self.verifications.save(verification)
                if refusal is None:
                    user.phone_proven(verification.phone, at=at)
                else:
                    user.note("user.phone_code_refused", at=at, why=refusal.code)
            self.users.save(user)
        if refusal is not None:
            raise refusal
