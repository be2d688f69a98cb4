"""One PenPay of real processes for each module of journeys."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penpay.stack import ROOT, Stack
from tests.journeys.world import World, a_world

sys.path.insert(0, str(ROOT / "bin"))
from _servers import MariaDB, Redis, free_port, missing_programs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Fresh servers and processes for one module."""
    home = tmp_path_factory.mktemp("journey")
    with servers(home) as both, a_world(home, *both, {"CRASH_POINT": "tests.journeys.crash.point"}) as made:
        yield made


@contextmanager
def servers(home: Path) -> Iterator[tuple[Any, Any]]:
    """A MariaDB and a Redis of one's own, running."""
    if missing_programs():
        pytest.skip("mariadbd and redis-server are needed")
    mariadb = MariaDB(home / "mariadb", free_port(), password=secrets.token_urlsafe(12))
    redis = Redis(home / "redis", free_port())
    mariadb.start()
    redis.start()
    try:
        yield mariadb, redis
    finally:
        redis.stop()
        mariadb.stop()


@pytest.fixture(autouse=True)
def calm(request: pytest.FixtureRequest) -> None:
    """Each test begins without faults."""
    if "world" in request.fixturenames:
        request.getfixturevalue("world").calm()


def with_crash(stack: Stack, at: int) -> None:
    """Starts the worker so that it dies at that crash point; 0 lets it live."""
    before, stack.environment = stack.environment, {**stack.environment, "CRASH_AT": str(at)}
    stack.start_worker(0)
    stack.environment = before
