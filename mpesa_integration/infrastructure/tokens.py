"""The one access token of the whole deployment: a new one ends the last, so that one process fetches it for all."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from shared_kernel.domain.ports import Clock, Leases

FRESH = timedelta(minutes=55)  # of the hour that M-Pesa gives it
LEASE = timedelta(seconds=45)  # longer than a token call can take
PATIENCE_S = 40.0
NAP_S = 0.05
REFUSED_FOR_S = 2.0  # those who waited for a token that could not be had don't each try again


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and when it was fetched."""

    value: str = field(repr=False)
    fetched_at: datetime


class TokenRefused(Exception):
    """No token could be had; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Tokens(Protocol):
    """Where all processes find it, by account."""

    def read(self, account: str) -> Token | None: ...

    def write(self, account: str, token: Token) -> None:
        """Commits."""


@dataclass
class SharedToken:
    """Gives the token that all processes share; of many that need a new one, one fetches it: commit, call, commit."""

    tokens: Tokens
    leases: Leases
    clock: Clock
    _known: dict[str, Token] = field(default_factory=dict)
    _refused: dict[str, tuple[float, str]] = field(default_factory=dict)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def get(self, account: str, fetch: Callable[[], str]) -> str:
        """The token in use. `fetch` asks M-Pesa for a new one and raises `TokenRefused`."""
        known = self._known.get(account)
        if known is not None and self._is_fresh(known):
            return known.value
        return self.replace(account, known.value if known else "", fetch)

    def replace(self, account: str, stale: str, fetch: Callable[[], str]) -> str:
        """Another one than `stale`, which was refused or is too old: another process's, or else a new one.

        Raises `TokenRefused`.
        """
        patience = time.monotonic() + PATIENCE_S
        with self._one_at_a_time:
            while not (token := self._another(account, stale)):
                until, code = self._refused.get(account, (0.0, ""))
                if time.monotonic() < until:
                    raise TokenRefused(code)
                if time.monotonic() > patience:
                    raise TokenRefused("token_lease_taken")
                holder = f"{os.getpid()}.{threading.get_ident()}.{time.monotonic_ns()}"
                if not self.leases.acquire(f"mpesa-token:{account}"[:128], holder[:64], LEASE):
                    time.sleep(NAP_S)
                    continue
                try:
                    if not self._another(account, stale):  # the last holder may have written it meanwhile
                        at = self.clock()  # before the call: its hour begins no later
                        self.tokens.write(account, Token(fetch(), at))
                except TokenRefused as refused:
                    self._refused[account] = (time.monotonic() + REFUSED_FOR_S, refused.code)
                    raise
                finally:
                    self.leases.release(f"mpesa-token:{account}"[:128], holder[:64])
            return token.value

    def _another(self, account: str, stale: str) -> Token | None:
        token = self.tokens.read(account)
        if token is None or token.value == stale or not self._is_fresh(token):
            return None
        self._known[account] = token
        return token

    def _is_fresh(self, token: Token) -> bool:
        return self.clock() - token.fetched_at < FRESH
