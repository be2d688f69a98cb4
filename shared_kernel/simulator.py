"""What the providers' simulators share: armed faults, books, a clock, a small raw ASGI application, its control side.

A simulator is a real server. It imports nothing from its adapter, so that it can contradict it. State lives in one
event loop: handlers run there, nothing is locked.
"""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read whole. Header names are lower-case bytes."""

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, decimals as `Decimal`. Raises `ValueError`."""
        try:
            return json.loads(self.body, parse_float=Decimal)
        except RecursionError:
            raise ValueError("nested too deep") from None

    def params(self) -> dict[str, str]:
        """The query string."""
        return dict(parse_qsl(self.query))


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def json(cls, value: Any, status: int = 200) -> "Answer":
        """`value` as JSON; a `Decimal` as a number."""
        return cls(json.dumps(value, default=_plain, separators=(",", ":")).encode(), status)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value) if value % 1 else int(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"not JSON: {type(value).__name__}")


Handler: TypeAlias = Callable[[Request], Awaitable[Answer | None]]
"""Answers a request; None drops the connection without an answer, as a provider does that dies."""


@dataclass(slots=True)
class Armed:
    """A fault that waits to strike. `match` narrows it down; `options` are its own settings (`times`, `after_s`)."""

    call: str
    fault: str
    probability: float
    count: int | None
    match: dict[str, Any]
    options: dict[str, Any]


@dataclass
class Faults:
    """The faults armed at one simulator. `calls` and `known` can be named; `matchers` are fields that narrow one down.

    `{"call": "stk_push", "fault": "lost_callback", "probability": 0.2, "count": 3, "phone": "254…"}`: call `*` is every
    call, probability defaults to 1, count to unlimited; other keys are the fault's options.
    """

    calls: frozenset[str]
    known: frozenset[str]
    matchers: frozenset[str] = frozenset()
    random: Random = field(default_factory=lambda: Random(0))
    armed: list[Armed] = field(default_factory=list)

    def arm(self, order: Mapping[str, Any]) -> None:
        """Raises `ValueError` for an order that names no known call or fault, or has a wrong probability or count."""
        rest = dict(order)
        call, fault = rest.pop("call", "*"), rest.pop("fault", None)
        probability, count = rest.pop("probability", 1), rest.pop("count", None)
        if call != "*" and call not in self.calls:
            raise ValueError(f"call is one of {sorted(self.calls)} or *")
        if fault not in self.known:
            raise ValueError(f"fault is one of {sorted(self.known)}")
        if (
            isinstance(probability, bool)
            or not isinstance(probability, int | float | Decimal)
            or not 0 <= probability <= 1
        ):
            raise ValueError("probability is a number from 0 to 1")
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError("count is a positive integer")
        match = {key: rest.pop(key) for key in self.matchers & rest.keys()}
        self.armed.append(Armed(call, fault, float(probability), count, match, rest))

    def take(self, call: str, among: frozenset[str] | None = None, **about: Any) -> dict[str, dict[str, Any]]:
        """The faults (`among` some, or any) that strike this call, with their options; counts go down."""
        struck: dict[str, dict[str, Any]] = {}
        if not self.armed:
            return struck
        for armed in list(self.armed):
            if (
                armed.call not in {"*", call}
                or armed.fault in struck
                or (among is not None and armed.fault not in among)
            ):
                continue
            if any(about.get(key) != value for key, value in armed.match.items()):
                continue
            if armed.probability < 1 and self.random.random() >= armed.probability:
                continue
            struck[armed.fault] = armed.options
            if armed.count is not None:
                armed.count -= 1
                if armed.count == 0:
                    self.armed.remove(armed)
        return struck

    def clear(self) -> None:
        """Disarms everything."""
        self.armed.clear()


@dataclass
class Books:
    """Every movement of money that this provider believes happened, oldest first; amounts are decimal strings."""

    movements: list[dict[str, Any]] = field(default_factory=list)

    def enter(
        self,
        id: str,
        reference: str,
        source: str,
        target: str,
        amount: Decimal,
        currency: str,
        at: datetime,
        **more: Any,
    ) -> None:
        """Writes one movement from `source` to `target`."""
        self.movements.append(
            {
                "id": id,
                "reference": reference,
                "from": source,
                "to": target,
                "amount": f"{amount:.2f}",
                "currency": currency,
                "at": at.isoformat(),
                **more,
            }
        )


@dataclass
class SimulatedClock:
    """The provider's time, in UTC: the machine's, or `start` and onwards; moved ahead by `advance`."""

    start: datetime | None = None
    offset: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the machine's time, or to `start`."""
        self.offset = timedelta(0) if self.start is None else self.start - datetime.now(UTC)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, seconds: float) -> None:
        """Moves the provider's time ahead: tokens age, windows close."""
        self.offset += timedelta(seconds=seconds)


def control_routes(
    faults: Faults,
    books: Books,
    clock: SimulatedClock,
    *,
    customers: Callable[[Any], Any],
    reset: Callable[[], None],
    more: Mapping[str, Callable[[Any], Any]] | None = None,
) -> dict[tuple[str, str], Handler]:
    """The control side, `/_control/...`; empty in production, where it must not exist.

    `customers` takes the posted JSON and returns what to answer (raises `ValueError` for a wrong one), and so does each
    of `more`, by the name of its path; `reset` forgets everything but the settings.
    """
    if os.environ.get("APP_ENV") == "production":
        return {}

    def arm(body: Any) -> Any:
        for order in body if isinstance(body, list) else [body]:
            faults.arm(order)
        return {"armed": len(faults.armed)}

    def advance(body: Any) -> Any:
        clock.advance(float(body["advance_s"]))
        return {"now": clock().isoformat()}

    def posted(act: Callable[[Any], Any]) -> Handler:
        async def handler(request: Request) -> Answer:
            try:
                return Answer.json(act(request.json() if request.body else None))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                return Answer.json({"error": str(error)}, 400)

        return handler

    def clear(_: Any) -> Any:
        faults.clear()
        return {"armed": 0}

    def forget(_: Any) -> Any:
        clock.reset()
        reset()
        return {}

    return {
        ("POST", "/_control/faults"): posted(arm),
        ("DELETE", "/_control/faults"): posted(clear),
        ("GET", "/_control/faults"): posted(
            lambda _: [{"call": a.call, "fault": a.fault, "count": a.count} for a in faults.armed]
        ),
        ("GET", "/_control/books"): posted(lambda _: books.movements),
        ("POST", "/_control/customers"): posted(customers),
        ("POST", "/_control/clock"): posted(advance),
        ("POST", "/_control/reset"): posted(forget),
        **{("POST", f"/_control/{name}"): posted(act) for name, act in (more or {}).items()},
    }


async def _nothing() -> None:
    pass


@dataclass
class JsonApp:
    """A raw ASGI application: exact (method, path) routes, one WebSocket handler, start and stop with the server.

    `fallback` answers what has no route. `websocket` gets scope, receive and send as they are.
    """

    routes: Mapping[tuple[str, str], Handler]
    fallback: Handler
    websocket: AsgiApp | None = None
    on_start: Callable[[], Awaitable[None]] = _nothing
    on_stop: Callable[[], Awaitable[None]] = _nothing
    body_limit: int = 256 * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket" and self.websocket is not None:
            await self.websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self.body_limit:
                await _answer(send, Answer.json({"error": "body too large"}, 413))
                return
        method, path = scope["method"], scope["path"]
        handler = self.routes.get((method, path), self.fallback)
        request = Request(method, path, scope["query_string"].decode("latin-1"), dict(scope["headers"]), body)
        answer = await handler(request)
        if answer is None:
            await _drop(send)
        else:
            await _answer(send, answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.on_start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.on_stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _answer(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _drop(send: Send) -> None:
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:  # uvicorn's: a reset, not one byte of an answer
        transport.abort()
        await asyncio.sleep(0)
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}
    )  # and never the byte


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def server(app: AsgiApp, *, host: str = "127.0.0.1", port: int, **options: Any) -> Any:
    """A `uvicorn.Server` for a simulator: quiet, no access log, no proxy headers; `.run()` blocks."""
    import uvicorn  # only who serves needs it

    settings: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "lifespan": "on",
        "ws": "websockets-sansio",
        "timeout_graceful_shutdown": 1,
        "backlog": 1024,
    }
    return uvicorn.Server(uvicorn.Config(app, host=host, port=port, **{**settings, **options}))


@contextmanager
def serving(app: AsgiApp, *, port: int = 0) -> Iterator[str]:
    """Serves in a thread; yields `127.0.0.1:<port>` once it answers. Raises `RuntimeError` if it does not start."""
    port = port or free_port()
    running = server(app, port=port)
    thread = threading.Thread(target=running.run, name=f"simulator-{port}", daemon=True)
    thread.start()
    pause = threading.Event()
    for _ in range(500):
        if running.started or not thread.is_alive():
            break
        pause.wait(0.02)
    if not running.started:
        raise RuntimeError(f"the simulator did not start on port {port}")
    try:
        yield f"127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join(5)
