"""A worker of real processes, whose broker is killed under it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penpay.stack import ROOT
from tests.journeys.conftest import Redis, free_port  # type: ignore[attr-defined]  # bin/ has no types
from tests.journeys.slow_task import app

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test's own."""
    server = Redis(tmp_path / "redis", free_port())
    server.start()
    yield server
    server.stop()


def test_a_worker_outlives_a_redis_that_is_killed_while_it_holds_a_message_and_waits_for_the_next(
    redis: Redis, tmp_path: Path
) -> None:
    held, second, third = (tmp_path / name for name in ("held", "second", "third"))
    for marks in (held, second, third):
        marks.mkdir()
    command = [sys.executable, "-m", "celery", "-A", "tests.journeys.slow_task", "worker", "--pool=prefork", "-c", "2",
               "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]  # fmt: skip
    environment = os.environ | {"CELERY_BROKER_URL": redis.url(1), "REDIS_URL": redis.url(0)}
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        send(redis, 6.0, held)
        until(lambda: (held / "began").exists(), tmp_path)
        redis.stop(signal.SIGKILL)
        time.sleep(1)
        redis.start()
        send(redis, 0.0, second)
        until(lambda: (second / "ended").exists(), tmp_path)
        until(lambda: (held / "ended").exists(), tmp_path)
        send(redis, 0.0, third)  # what was held has been acknowledged to a connection that is gone
        until(lambda: (third / "ended").exists(), tmp_path)
        assert worker.poll() is None
    finally:
        worker.terminate()
        worker.wait(30)


def send(redis: Redis, seconds: float, marks: Path) -> None:
    """On a connection of its own."""
    with app.connection_for_write(redis.url(1)) as connection:
        app.send_task("tests.slow", (seconds, str(marks)), connection=connection, retry=False)


def until(condition: Callable[[], bool], tmp_path: Path) -> None:
    """Holds within a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, (tmp_path / "log").read_text()[-3000:]
        time.sleep(0.05)
