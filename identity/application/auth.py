"""Signing in and out: passwords, devices, sessions, and the tokens that cookies carry."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from identity.application.codes import CodeToSend
from identity.application.door import Door, cookie_parts
from identity.application.notices import Notices, proven_channels
from identity.application.step_up import SecondFactor
from identity.domain.contact import Email
from identity.domain.credentials import InvalidCredentials
from identity.domain.device import Device, DeviceCodeRequired, DeviceLimitReached, DeviceNotFound
from identity.domain.notice import NoticeKind
from identity.domain.ports import (
    AccessClaims,
    AccessTokens,
    Passwords,
    Secrets,
    SessionRepository,
    SignedIn,
    UserRepository,
)
from identity.domain.session import RefreshTokenReused, Session, SessionEnded, must_be_stepped_up
from identity.domain.totp import TotpFactor
from identity.domain.user import User
from identity.domain.verification import Purpose
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.identifiers import DeviceId, Phone, UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """Somebody claims to be a customer. `identifier` is None when it is neither phone nor e-mail address."""

    identifier: Phone | Email | None
    password: str = field(repr=False)
    device_cookie: str = field(repr=False, default="")
    client_id: str = ""  # the device's own id; empty: it gets one
    device_name: str
    platform: str
    code: str = field(repr=False, default="")  # what a device that is new needs beside the password
    replace_device: str = ""  # the client id of the one whose slot it takes; only with the code


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What the cookies carry from now on; `device` is None when its cookie stays as it is."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    device: str | None = field(repr=False, default=None)


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """A sign-in that succeeded."""

    user_id: UserId
    device: dict[str, str]
    tokens: Tokens


@dataclass(frozen=True)
class Auth:
    """The use cases of signing in. Under the lock of the users row, one thing about a user happens after another."""

    users: UserRepository
    sessions: SessionRepository
    passwords: Passwords
    access: AccessTokens
    secrets: Secrets
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource
    max_devices: int
    refresh_ttl: timedelta
    second: SecondFactor
    notices: Notices
    door: Door

    def sign_in(self, command: SignIn) -> Welcome:
        """Raises `InvalidCredentials` (as slow for nobody as for somebody), `DeviceLimitReached`, `SignInBusy`,
        `TooManyRequests`.

        From a device that is new to the account: `DeviceCodeRequired` (a code was sent, or is the authenticator's), and
        with a code what refuses it: `WrongCode`, `NoOpenCode`, `TotpLocked`; `CodesAskedTooOften`, `SmsUnavailable`.
        `DeviceLimitReached` and `DeviceNotFound` (`replace_device` names none) leave the right code good.
        """
        device = self.door.known_device(command.identifier, command.device_cookie)
        self.door.may_sign_in(command.identifier, device)
        found = self.users.password_of(command.identifier) if command.identifier else None
        if not self.passwords.matches(command.password, found[1] if found else None, known=device is not None):
            self._failed(found[0] if found else None, "wrong password" if found else "unknown user")
            raise InvalidCredentials("the phone or e-mail address and the password don't fit together")
        assert found is not None
        assert command.identifier is not None
        self.door.signed_in(command.identifier, device)
        try:
            with self.unit_of_work():
                came_of_it = self._judge(self.users.get(found[0]), found[1], command, at=self.clock())
        except (DeviceLimitReached, DeviceNotFound, InvalidCredentials) as refused:  # the code stays unused, too
            self._failed(found[0], refused.code)
            raise
        match came_of_it:
            case Welcome():
                return came_of_it
            case CodeToSend():
                self.second.codes.send(came_of_it)
                raise DeviceCodeRequired(sent=True)
            case _:
                raise came_of_it

    def _judge(
        self, user: User, proven_hash: str, command: SignIn, *, at: datetime
    ) -> Welcome | CodeToSend | DomainError:
        """The sign-in; or the code to be sent first; or why the given one is refused, whose try is to be committed."""
        if not user.is_active or user.password_hash != proven_hash:  # changed while the hash was computed
            raise InvalidCredentials("the phone or e-mail address and the password don't fit together")
        if self._is_known(user, command, at=at) or not self.users.had_devices(user.id):
            return self._begin(user, command, at=at)
        phone, authenticator = user.proven_phone(), self.second.authenticator_of(user.id)
        has_second = phone is not None or authenticator is not None
        if has_second:
            missing = self._look_at_code(user, command, phone, authenticator, at=at)
            if missing is not None:
                self.users.save(user)
                return missing
            if command.replace_device:
                user.replace(command.replace_device, at=at)
        self.notices.tell(user, NoticeKind.NEW_DEVICE, proven_channels(user))
        return self._begin(user, command, is_proven=has_second, at=at)

    def _look_at_code(
        self, user: User, command: SignIn, phone: Phone | None, authenticator: TotpFactor | None, *, at: datetime
    ) -> CodeToSend | DomainError | None:
        """On a new device. None: the code is right."""
        if not command.code:
            user.note("user.device_code_required", at=at)
            if phone is None or authenticator is not None:
                return DeviceCodeRequired(sent=False)
            return self.second.codes.make(user.id, Purpose.NEW_DEVICE, phone, asker=command.client_id, at=at)
        refusal = self.second.submit(user, Purpose.NEW_DEVICE, command.code, asker=command.client_id, at=at)
        if refusal is not None:
            user.note("user.device_code_refused", at=at, why=refusal.code)
        return refusal

    def _is_known(self, user: User, command: SignIn, *, at: datetime) -> bool:
        id, secret_hash = self._cookie(command.device_cookie)
        return id is not None and user.recognise(id, secret_hash, at=at) is not None

    def _begin(self, user: User, command: SignIn, *, is_proven: bool = False, at: datetime) -> Welcome:
        device, cookie = self._device(user, command, is_proven=is_proven, at=at)
        ended = [known.id for known in user.devices if known.revoked_at is not None]
        self.sessions.end_those_of([*ended, device.id], at=at, by="signed_in_again")
        session = Session.begin(self.ids(), user.id, device.id, user.token_epoch, at=at)
        refresh = self.secrets.token()
        session.issue(self.ids(), self.secrets.fingerprint(refresh), self.refresh_ttl, at=at)
        user.note("user.login", at=at, device=str(device.id), session=str(session.id))
        self.users.save(user)
        self.sessions.save(session)
        access = self.access.issue(AccessClaims(user.id, session.id, device.id), at=at)
        return Welcome(
            user_id=user.id,
            device=device.shown(),
            tokens=Tokens(access=access, refresh=refresh, device=cookie),
        )

    def _device(self, user: User, command: SignIn, *, is_proven: bool, at: datetime) -> tuple[Device, str]:
        id, secret_hash = self._cookie(command.device_cookie)
        known = user.recognise(id, secret_hash, at=at) if id else None
        if known is not None:
            known.name, known.platform = command.device_name, command.platform
            return known, command.device_cookie
        id, secret = self.ids(), self.secrets.token()
        device = Device(
            id=DeviceId(id),
            client_id=command.client_id or str(id),
            name=command.device_name,
            platform=command.platform,
            secret_hash=self.secrets.fingerprint(secret),
            slot=None,
            created_at=at,
            last_seen_at=at,
        )
        return user.enrol(device, limit=self.max_devices, is_proven=is_proven), f"{id}.{secret}"

    def _cookie(self, cookie: str) -> tuple[UUID | None, str]:
        return cookie_parts(cookie, self.secrets)

    def _failed(self, user: UserId | None, why: str) -> None:
        target = str(user) if user else "unknown"
        with self.unit_of_work():
            self.audit.append([AuditRecord("user.login_failed", "user", target, self.clock(), why=why)])

    def authenticate(self, access: str) -> SignedIn:
        """Who sends this access token, by one query. Raises `SessionEnded`."""
        claims = self.access.read(access)
        signed_in = self.sessions.alive(claims, at=self.clock()) if claims else None
        if signed_in is None:
            raise SessionEnded("the session is over: refresh it, or sign in again")
        return signed_in

    def refresh(self, refresh: str, device_cookie: str, *, arrived_at: datetime) -> Tokens:
        """Turns the tokens over. Raises `SessionEnded`, `RefreshTokenReused`, `RefreshInFlight`.

        `arrived_at` is when the request came in. A device cookie that is not the session's ends the session.
        """
        hash = self.secrets.fingerprint(refresh)
        owner = self.sessions.owner_of_token(hash) if refresh else None
        if owner is None:
            raise SessionEnded("sign in again")
        with self.unit_of_work():
            turned = self._turn_over(owner, hash, device_cookie, arrived_at)
        if isinstance(turned, DomainError):
            raise turned
        return turned

    def _turn_over(self, owner: UserId, hash: str, device_cookie: str, arrived_at: datetime) -> Tokens | DomainError:
        at = self.clock()
        user, found = self.users.get(owner), self.sessions.of_token(hash)
        if found is None:
            return SessionEnded("sign in again")
        session, token = found
        device = next((known for known in user.active_devices() if known.id == session.device_id), None)
        if not user.is_active or user.token_epoch != session.token_epoch or device is None:
            session.end(at=at, by="account")
            self.sessions.save(session)
            return SessionEnded("sign in again")
        if self._cookie(device_cookie) != (device.id, device.secret_hash):
            refusal: DomainError | None = SessionEnded("this session belongs to another device: sign in again")
            session.end(at=at, by="other_device")
        else:
            refusal = session.spend(token, at=at, arrived_at=arrived_at)
        if refusal is not None:
            if session.ended_at == at:
                user.note("user.session_ended", at=at, why=session.ended_by, session=str(session.id))
            if isinstance(refusal, RefreshTokenReused):  # once: from then on the session has ended
                self.notices.tell(user, NoticeKind.REFRESH_REUSED, proven_channels(user))
            self.sessions.save(session)
            self.users.save(user)
            return refusal
        device.last_seen_at = at
        refresh = self.secrets.token()
        successor = session.issue(self.ids(), self.secrets.fingerprint(refresh), self.refresh_ttl, at=at)
        token.replaced_by = successor.id
        self.users.save(user)
        self.sessions.save(session)
        return Tokens(access=self.access.issue(AccessClaims(user.id, session.id, device.id), at=at), refresh=refresh)

    def sign_out(self, access: str, refresh: str) -> None:
        """Ends the session that either token names; unknown ones end nothing."""
        claims = self.access.read(access)
        hash = self.secrets.fingerprint(refresh)
        owner = UserId(claims.user_id) if claims else self.sessions.owner_of_token(hash)
        if owner is None:
            return
        with self.unit_of_work():
            user, at = self.users.get(owner), self.clock()
            found = self.sessions.of_token(hash)
            session = self.sessions.get(claims.session_id) if claims else found and found[0]
            if session is None or session.ended_at is not None:
                return
            session.end(at=at, by="logout")
            user.note("user.logout", at=at, session=str(session.id))
            self.sessions.save(session)
            self.users.save(user)

    def sign_out_everywhere(self, user_id: UserId) -> None:
        """All sessions on all devices stop at once; the devices keep their slots."""
        with self.unit_of_work():
            user, at = self.users.get(user_id), self.clock()
            user.end_all_sessions(at=at, why="logout_all")
            self.sessions.end_those_of([device.id for device in user.devices], at=at, by="logout_all")
            self.users.save(user)

    def remove_device(self, who: SignedIn, client_id: str) -> None:
        """Its tokens stop at once, and its slot is free. Only the own one goes without a step-up: a stolen session must
        not drive its owner out.

        Raises `DeviceNotFound`, `StepUpRequired`.
        """
        with self.unit_of_work():
            user, at = self.users.get(who.id), self.clock()
            device = user.device_of(client_id)
            if device.id != who.device_id:
                must_be_stepped_up(who.stepped_up_at, at=at)
            user.revoke(device, at=at, why="removed by the customer")
            self.sessions.end_those_of([device.id], at=at, by="device_removed")
            self.users.save(user)
