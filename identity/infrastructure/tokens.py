"""Passwords (Argon2id), access tokens (JWT) and the secrets whose SHA-256 we store."""

import hashlib
import hmac
import re
import secrets
import threading
from base64 import b32encode
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import jwt
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher, check_password, make_password
from django.contrib.auth.password_validation import get_default_password_validators
from django.core.exceptions import ValidationError

from identity.domain.credentials import SignInBusy, WeakPassword
from identity.domain.ports import AccessClaims
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import new_id

ALGORITHM = "HS256"
ISSUER = "penpay"
AUDIENCE = "penpay-api"
HASHING_WAIT_S = 2.0
LONGEST_PASSWORD = 128
LEAST_OF_ITS_OWN = 6  # characters that are not words which anybody can guess
CONTEXT_WORDS = ("penpay", "mpesa", "m-pesa", "deriv")


@dataclass
class Turns:
    """Who hashes, and who waits for it. A hash takes a core 25 ms: one at once in a process, so that a flood of
    sign-ins leaves time to money; and few wait, for each holds one of the API's threads: the others are refused at
    once.
    """

    at_once: int = 1
    strangers: int = 1  # who may wait
    known: int = 3  # who may wait of those with a session or a device, strangers counted
    _free: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False)
    _hashing: int = field(default=0, init=False)
    _waiting: int = field(default=0, init=False)

    @contextmanager
    def turn(self, *, known: bool = False) -> Iterator[None]:
        """Raises `SignInBusy`: at once where too many wait, else after `HASHING_WAIT_S`."""
        with self._free:
            if self._hashing >= self.at_once or self._waiting:
                self._wait(self.known if known else self.strangers)
            self._hashing += 1
        try:
            yield
        finally:
            with self._free:
                self._hashing -= 1
                self._free.notify()

    def _wait(self, most: int) -> None:
        if self._waiting >= most:
            raise SignInBusy(BUSY, retry_after=1)
        self._waiting += 1
        try:
            if not self._free.wait_for(lambda: self._hashing < self.at_once, HASHING_WAIT_S):
                raise SignInBusy(BUSY, retry_after=2)
        finally:
            self._waiting -= 1


BUSY = "many people are signing in just now: try again in a moment"
turns = Turns()
_known: ContextVar[bool] = ContextVar("penpay_known_to_hash", default=False)


@contextmanager
def _as_known(known: bool) -> Iterator[None]:
    token = _known.set(known)  # Django's hashers stand between here and the turn
    try:
        yield
    finally:
        _known.reset(token)


@contextmanager
def _a_turn() -> Iterator[None]:
    with turns.turn(known=_known.get()):
        yield


class Argon2idHasher(Argon2PasswordHasher):
    """Argon2id at OWASP's minimum (19 MiB, two passes, one lane), with bounded concurrency. Raises `SignInBusy`."""

    memory_cost = 19456
    time_cost = 2
    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        with _a_turn():
            encoded: str = super().encode(password, salt)
        return encoded

    def verify(self, password: str, encoded: str) -> bool:
        with _a_turn():
            right: bool = super().verify(password, encoded)
        return right


@cache
def _nobodys_hash() -> str:
    return make_password(secrets.token_urlsafe(32))


@dataclass(frozen=True)
class Argon2Passwords:
    """`Passwords` by Django's hashers."""

    def hash(self, password: str, *, known: bool = False) -> str:
        with _as_known(known):
            return make_password(password)

    def matches(self, password: str, encoded: str | None, *, known: bool = False) -> bool:
        with _as_known(known):
            right = bool(check_password(password, _nobodys_hash() if encoded is None else encoded))
        return right and encoded is not None  # an unknown user takes as long as a known one

    def refuse_weak(self, password: str, known: Collection[str]) -> None:
        if len(password) > LONGEST_PASSWORD:
            raise WeakPassword(f"a password has at most {LONGEST_PASSWORD} characters")
        try:
            for validator in get_default_password_validators():
                validator.validate(password)
        except ValidationError as weak:
            raise WeakPassword(" ".join(weak.messages)) from None
        rest = password.casefold()
        for word in sorted(_words(known), key=len, reverse=True):
            rest = rest.replace(word, "")
        if len(rest) < LEAST_OF_ITS_OWN:
            raise WeakPassword("the password is made of your own name, number or address, or of ours: take other words")


def _words(known: Collection[str]) -> set[str]:
    texts = [*known, *CONTEXT_WORDS]
    parts = {part for text in texts for part in re.split(r"\W+", text)}
    return {word.casefold() for word in parts.union(texts) if len(word) >= 3}


@cache
def _ring(keys: str) -> dict[str, bytes]:
    pairs = (part.strip().partition(":") for part in keys.split(",") if part.strip())
    return {key_id: bytes.fromhex(key) for key_id, _, key in pairs}


@dataclass(frozen=True)
class JwtAccessTokens:
    """JWTs: HS256 only, signed with the first key of `JWT_SIGNING_KEYS`, read with the key that `kid` names."""

    def issue(self, claims: AccessClaims, *, at: datetime) -> str:
        key_id, key = next(iter(_ring(settings.JWT_SIGNING_KEYS).items()))
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "typ": "access",
            "jti": str(new_id()),
            "nbf": int(at.timestamp()),
            "exp": int((at + timedelta(seconds=settings.JWT_ACCESS_TTL)).timestamp()),
            "sub": str(claims.user_id),
            "sid": str(claims.session_id),
            "did": str(claims.device_id),
        }
        return jwt.encode(payload, key, algorithm=ALGORITHM, headers={"kid": key_id})

    def read(self, token: str) -> AccessClaims | None:
        try:
            key = _ring(settings.JWT_SIGNING_KEYS)[jwt.get_unverified_header(token)["kid"]]
            payload: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                options={"require": ["iss", "aud", "exp", "nbf", "jti", "sub"]},
            )
            if payload["typ"] != "access":
                return None
            return AccessClaims(UUID(payload["sub"]), UUID(payload["sid"]), UUID(payload["did"]))
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class RandomSecrets:
    """`Secrets` from the system's random source."""

    def token(self) -> str:
        return secrets.token_urlsafe(32)

    def code(self) -> str:
        return f"{secrets.randbelow(10**6):06d}"

    def totp_secret(self) -> bytes:
        return secrets.token_bytes(20)

    def fingerprint(self, token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()

    def code_fingerprint(self, id: UUID, bound_to: str, code: str) -> str:
        return blind_index("one_time_code", f"{id}|{bound_to}|{code}")

    def recovery_code(self) -> str:
        return b32encode(secrets.token_bytes(10)).decode()

    def recovery_fingerprint(self, factor: UUID, code: str) -> str:
        return blind_index("staff_recovery_codes.hash", f"{factor}|{code}")

    def same(self, a: str, b: str) -> bool:
        return hmac.compare_digest(a, b)
