"""What it costs to know who asks, and what a flood of sign-ins does to those who deposit meanwhile."""

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.test import RequestFactory, override_settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from identity.api.authentication import ACCESS_COOKIE
from identity.api.views import Devices
from identity.domain.ports import SignedIn
from identity.facade import auth
from penpay.stack import HOST, ROOT, Stack
from tests.benchmarks import deposits, rounds
from tests.benchmarks.people import Person
from tests.benchmarks.world import stack

LIMITS = "identity.api.rates.RateLimitMiddleware"
CLIENTS = 4
# As many addresses as a flood may have, told by the one proxy that is trusted; the limits are those of production.
SETTINGS = {"TRUSTED_PROXY_COUNT": "1", "RATE_LIMITS": ""}


# --- an authenticated request, in process ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Overhead:
    """What a request costs beyond the page's own work: `ms` of the middle one of many, and queries."""

    ms: float
    floor_ms: float
    queries: int
    floor_queries: int


def overhead(person: Person, count: int) -> Overhead:
    """`GET me/devices` through all middleware; the floor is the same without limits, token, session and device."""
    signed_in = auth.authenticate(person.access)

    class Given(BaseAuthentication):
        def authenticate(self, request: Request) -> tuple[SignedIn, None]:
            return signed_in, None

    def bare() -> Callable[[], Any]:
        with override_settings(MIDDLEWARE=[one for one in settings.MIDDLEWARE if one != LIMITS]):
            ask = _asking(person)

        def asked() -> None:
            usual = Devices.authentication_classes
            Devices.authentication_classes = [Given]
            try:
                ask()
            finally:
                Devices.authentication_classes = usual

        return asked

    whole, floor = _asking(person), bare()
    for _ in range(50):
        whole(), floor()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):  # in turn, so that whatever else the machine does meets both
        for ask, taken in zip((whole, floor), times, strict=True):
            began = time.perf_counter()
            ask()
            taken.append((time.perf_counter() - began) * 1000)
    middle, least = statistics.median(times[0]), statistics.median(times[1])
    return Overhead(middle - least, least, _queries(whole), _queries(floor))


def _asking(person: Person) -> Callable[[], None]:
    handler, requests = WSGIHandler(), RequestFactory()

    def ask() -> None:
        request = requests.get("/api/v1/me/devices", HTTP_COOKIE=f"{ACCESS_COOKIE}={person.access}")
        answer = handler.get_response(request)
        assert answer.status_code == 200, answer

    return ask


def _queries(ask: Callable[[], None]) -> int:
    made = []

    def counting(execute: Callable[..., Any], *given: Any) -> Any:
        made.append(1)
        return execute(*given)

    with connection.execute_wrapper(counting):
        ask()
    return len(made)


# --- deposits while sign-ins flood in --------------------------------------------------------------------------------


@contextmanager
def attacked(logs: Path) -> Iterator[Stack]:
    """A stack with the limits of production, behind one proxy."""
    with stack(logs, also=SETTINGS) as made:
        yield made


def accepting(of: Stack, everybody: Sequence[Person], per_s: float) -> list[float]:
    """One deposit of each, evenly; how long each took to be accepted, in ms."""
    times: list[float] = []

    def client(part: Sequence[Person], phase: float) -> None:
        began = time.perf_counter()
        with closing(http.client.HTTPConnection(HOST, of.port, timeout=60)) as api:
            for number, one in enumerate(part):
                time.sleep(max(0.0, began + (number + phase) * CLIENTS / per_s - time.perf_counter()))
                asked = time.perf_counter()
                rounds.post(api, rounds.Order(one, "deposits", {"quote_id": one.quote}))
                times.append((time.perf_counter() - asked) * 1000)

    threads = [threading.Thread(target=client, args=(everybody[n::CLIENTS], n / CLIENTS)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == len(everybody)
    return times


def prepare(of: Stack, count: int) -> list[Person]:
    """Customers who have a quote each."""
    return deposits.prepare(of, count)


@contextmanager
def flood(of: Stack, per_s: float, told: dict[str, int]) -> Iterator[None]:
    """Sign-ins from many addresses with names of many, by a process of its own; `told` gets their statuses."""
    command = [sys.executable, "-m", "tests.benchmarks.flood", str(of.port), str(per_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(2)  # what the limits let through at once has come through
    try:
        yield
    finally:
        process.stdin.close()
        statuses: Mapping[str, int] = json.loads(process.stdout.read())
        process.wait()
        for status, many in statuses.items():
            told[status] = told.get(status, 0) + many
