"""Celery and Redis, real ones: one round trip, wakes that never hold up a commit, and workers that die."""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery
from django.db import connection
from django.utils import timezone

from shared_kernel import models, workers
from shared_kernel.domain.ports import Context, Letter
from shared_kernel.infrastructure import broker, persistence
from shared_kernel.infrastructure.broker import CeleryBroker, Wake
from shared_kernel.infrastructure.persistence import DjangoOutboxRepository, acting_as, new_id, unit_of_work
from shared_kernel.tests.subscribers import attention, callback, ended

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[2]


app = Celery()


@pytest.fixture
def use(settings, monkeypatch):
    """Has this process publish to and wake through the given broker, from now on."""
    settings.TASKS = f"{__name__}.app"
    settings.SUBSCRIPTIONS = "shared_kernel.tests.subscribers.SUBSCRIPTIONS"

    def use_broker(url):
        monkeypatch.setenv("CELERY_BROKER_URL", url)  # which Celery prefers to what it is configured with
        monkeypatch.setattr(sys.modules[__name__], "app", Celery("tests", set_as_current=False))
        app.config_from_object("django.conf:settings", namespace="CELERY")
        monkeypatch.setattr(persistence, "_woken", [Wake()])

    return use_broker


@pytest.fixture
def queue(settings, use):
    """The broker's Redis, emptied: a database of its own, so that nobody else's workers take from it."""
    if not settings.CELERY_BROKER_URL.startswith("redis://"):
        pytest.skip("no Redis")
    url = f"{settings.CELERY_BROKER_URL.rpartition('/')[0]}/{os.getpid() % 10 + 5}"
    use(url)
    client = redis.Redis.from_url(url)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


def nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{free.getsockname()[1]}/0"


def commit(*events):
    with acting_as(Context("user:1", request_id="r1")), unit_of_work():
        DjangoOutboxRepository().append(events)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def noted(event, action="test.noted"):
    return models.AuditLog.objects.filter(action=action, target_id=str(event.aggregate_id)).count()


# --- publishing ------------------------------------------------------------------------------------------------------


def test_a_batch_of_messages_is_pushed_in_their_order_in_one_round_trip(queue):
    letters = [Letter(new_id(), "AttentionNeeded", new_id(), "{}", Context()) for _ in range(50)]
    CeleryBroker().publish([[letters[0]]])  # connects
    queue.delete("steps")
    before = queue.info("stats")["total_reads_processed"]

    CeleryBroker().publish([[letter] for letter in letters])

    reads = queue.info("stats")["total_reads_processed"] - before
    sent = [json.loads(message)["headers"]["id"] for message in reversed(queue.lrange("steps", 0, -1))]
    assert len(sent) == 50
    assert reads < 25  # the pipeline, what this test asks, and a wake or two of other threads


def test_with_the_broker_down_events_stay_and_one_error_is_told_until_it_is_back(use, queue, caplog):
    url = app.conf.broker_url
    use(nobody_listens())
    commit(callback())
    caplog.set_level("INFO")

    assert [workers.drain(), workers.drain(), workers.drain()] == [None, None, None]
    assert models.DomainEvent.objects.get().published_at is None
    assert [record.message for record in caplog.records].count("relay_cannot_publish") == 1

    use(url)
    assert workers.drain() == 1
    assert "relay_publishes_again" in [record.message for record in caplog.records]
    assert queue.llen("steps") == 1


# --- waking ----------------------------------------------------------------------------------------------------------


def test_many_commits_ask_for_one_relay(queue):
    for _ in range(200):
        commit(callback())
    until(lambda: queue.llen("relay"))
    time.sleep(0.1)

    assert queue.llen("relay") <= 2


def test_a_commit_after_the_relay_was_taken_asks_again(queue):
    commit(callback())
    until(lambda: queue.llen("relay"))
    queue.delete("relay")

    commit(callback())

    until(lambda: queue.llen("relay") == 1)


def test_with_the_broker_down_or_silent_a_commit_takes_no_longer(use):
    if connection.vendor != "mysql":
        pytest.skip("measured on a server")
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and never answers
    for url in (nobody_listens(), f"redis://127.0.0.1:{silent.getsockname()[1]}/0"):
        use(url)
        took = []
        for _ in range(30):
            started = time.monotonic()
            commit(callback())
            took.append(time.monotonic() - started)
        assert statistics.median(took) < 0.1
        assert max(took) < 1.0
    silent.close()


def test_a_forked_child_wakes_the_relay_from_a_thread_of_its_own(queue):
    wake = Wake()
    wake()
    until(lambda: queue.llen("relay"))
    queue.delete("relay")

    child = os.fork()
    if child == 0:
        wake()
        time.sleep(5)
        os._exit(0)
    try:
        until(lambda: queue.llen("relay") == 1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_wake_that_cannot_start_its_thread_is_dropped(monkeypatch):
    class NoMoreThreads:
        def __init__(self, **_):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(broker, "Thread", NoMoreThreads)

    Wake()()


# --- with workers ----------------------------------------------------------------------------------------------------


@contextmanager
def worker(queues="relay,steps", concurrency=2):
    """A Celery worker as in production, on the tests' database and broker."""
    if connection.vendor != "mysql":
        pytest.skip("a second process needs a server")
    db = connection.settings_dict
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "DATABASE_URL": f"mysql://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}",
        "CELERY_BROKER_URL": app.conf.broker_url,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "celery", "-A", "penpay.celery", "worker", "-Q", queues, "-c", str(concurrency)]
    process = subprocess.Popen(
        [*command, "--without-gossip", "--without-mingle", "-l", "WARNING"], cwd=ROOT, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_every_commit_by_itself_wakes_relay_and_step(queue):
    with worker():  # no beat: nothing else brings them
        for _ in range(30):
            event = callback()
            commit(event)
            until(lambda event=event: noted(event, "test.seen"))
            row = models.AuditLog.objects.get(target_id=str(event.aggregate_id))
            assert (row.actor, row.request_id) == ("user:1", "r1")
            time.sleep(0.03)


def test_what_a_flushed_broker_lost_and_must_arrive_comes_again(queue):
    events = [attention(), ended()]
    commit(*events)
    assert workers.drain() == 2
    queue.flushdb()
    models.DomainEvent.objects.update(next_attempt_at=timezone.now())  # minutes later

    with worker():
        workers.drain()
        until(lambda: noted(events[0]) and noted(events[1], "test.seen"))
        until(lambda: not models.DomainEvent.objects.filter(next_attempt_at__isnull=False).exists())


def test_a_killed_workers_message_is_done_by_the_next_and_a_deadly_event_harms_itself_alone(queue):
    good, deadly = [attention(), attention()], attention("deadly")
    commit(good[0], deadly, good[1])

    with worker():
        workers.drain()
        until(lambda: noted(good[0]) and noted(good[1]))
        until(lambda: models.DomainEvent.objects.filter(attempts=1).exists())

    row = models.DomainEvent.objects.get(aggregate_id=deadly.aggregate_id)
    assert row.attempts == 1
    assert row.next_attempt_at
    assert noted(good[0]) == noted(good[1]) == 1
