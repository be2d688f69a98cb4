"""HTTP to a provider, as every client of ours speaks it: kept connections, time-outs, a moment past which nothing is
written, answers of a limited size, no redirects, no proxy, no URL in any log.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx

for _name in ("httpx", "httpcore"):  # they log URLs
    logging.getLogger(_name).setLevel(logging.WARNING)

CONNECT_S, READ_S = 5.0, 30.0
MOST_BYTES = 4 * 1024 * 1024  # of an answer
TIMEOUT: Mapping[str, float | None] = httpx.Timeout(READ_S, connect=CONNECT_S).as_dict()
# Of one thread. Where a server closes an idle connection (after five seconds at the soonest) while a request is on its
# way to it, that payment is in an unknown state, and no book tells of one that never arrived: we let go of it first.
LIMITS = httpx.Limits(max_connections=2, max_keepalive_connections=2, keepalive_expiry=3)


class TooLate(Exception):
    """`give_up_at` has passed: not one byte of the request was written."""


class NotConnected(Exception):
    """Name not found, connection refused, TLS: nothing was sent. Its text names the kind, never a URL."""


class NoAnswer(Exception):
    """Timed out, reset, or unreadable: the request may have been carried out. Its text names the kind, never a URL."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that came, read whole."""

    status: int
    text: str = field(repr=False)


def exchange(
    method: str,
    base_url: str,
    path: str,
    headers: Mapping[str, str],
    content: bytes | None = None,
    *,
    give_up_at: float | None = None,
    timeout: Mapping[str, float | None] = TIMEOUT,
) -> Reply:
    """One request, JSON both ways, and its whole answer up to `MOST_BYTES`; `give_up_at` is on the monotonic clock.

    Raises `TooLate`, `NotConnected`, `NoAnswer`, and nothing else for what the network does.
    """
    url = _url(base_url, path)
    request = httpx.Request(
        method,
        url,
        headers={**_headers(url, content), **headers},
        stream=httpx.ByteStream(content or b""),
        extensions=_extensions(timeout, give_up_at),
    )
    try:
        response = client().send(request, stream=True)
        try:
            text = _read(response)
        finally:
            response.close()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        raise NotConnected(type(error).__name__) from None
    except httpx.TimeoutException:
        raise NoAnswer("timeout") from None
    except (httpx.HTTPError, httpx.StreamError, ValueError) as error:
        raise NoAnswer(f"no_answer:{type(error).__name__}") from None
    return Reply(response.status_code, text)


def _headers(url: httpx.URL, content: bytes | None) -> dict[str, str]:
    always = {
        "Host": url.netloc.decode(),
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "PenPay",
    }
    if content is None:
        return always
    return always | {"Content-Type": "application/json", "Content-Length": str(len(content))}


def _extensions(timeout: Mapping[str, float | None], give_up_at: float | None) -> dict[str, Any]:
    extensions: dict[str, Any] = {"timeout": dict(timeout)}
    if give_up_at is not None:
        extensions["trace"] = _gives_up(give_up_at)
    return extensions


def _gives_up(give_up_at: float) -> Callable[[str, Mapping[str, Any]], None]:
    def directly_before_writing(event: str, _: Mapping[str, Any]) -> None:
        if event == "http11.send_request_headers.started" and time.monotonic() >= give_up_at:
            raise TooLate

    return directly_before_writing


def _read(response: httpx.Response) -> str:
    raw = b""
    for chunk in response.iter_raw():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise ValueError("too long")
    return raw.decode("utf-8", "replace")


@lru_cache(maxsize=64)
def _url(base_url: str, path: str) -> httpx.URL:
    return httpx.URL(base_url.rstrip("/") + path)


class KeptByThread(httpx.BaseTransport):
    """A kept connection for each thread. One pool for many threads looks at all of its connections on every call."""

    def __init__(self) -> None:
        self.tls = httpx.create_ssl_context(trust_env=False)
        self.own = threading.local()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not hasattr(self.own, "kept"):
            self.own.kept = Kept(httpx.HTTPTransport(verify=self.tls, limits=LIMITS, trust_env=False))
        kept: Kept = self.own.kept
        return kept.transport.handle_request(request)


@dataclass(frozen=True)
class Kept:
    """Closes with its thread."""

    transport: httpx.HTTPTransport

    def __del__(self) -> None:
        self.transport.close()


_clients: dict[int, httpx.Client] = {}
_making = threading.Lock()


def client() -> httpx.Client:
    """This process's client: kept-alive connections for many threads. A forked child makes its own."""
    mine = _clients.get(os.getpid())
    if mine is None:
        with _making:
            mine = _clients.get(os.getpid()) or _clients.setdefault(
                os.getpid(), httpx.Client(transport=KeptByThread(), follow_redirects=False, trust_env=False)
            )
    return mine
