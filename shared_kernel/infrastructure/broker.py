"""Celery as the way to the workers: messages of events in one round trip, and the wake of the relay after a commit."""

import logging
import os
import time
from collections.abc import Sequence
from threading import Event, Lock, Thread
from typing import Any

from celery import Celery
from django.conf import settings
from django.utils.module_loading import import_string
from kombu.exceptions import ChannelError

from shared_kernel.domain.ports import Letter

log = logging.getLogger(__name__)

DELIVER = "shared_kernel.workers.deliver_events"
RELAY = "shared_kernel.workers.relay_outbox"
MOST_COMMANDS = 10_000  # of one round trip
WAKE_EVERY_S = 0.02
REST_S = 1.0  # after the broker could not be reached


def celery_app() -> Celery:
    """The application that `settings.TASKS` names: a process that is no worker has not loaded it yet."""
    app: Celery = import_string(settings.TASKS)
    return app


class CeleryBroker:
    """Publishes `deliver_events` messages; with Redis all in one pipeline, with other transports one by one."""

    def publish(self, messages: Sequence[Sequence[Letter]]) -> None:
        if not messages:
            return
        app = celery_app()
        with app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=MOST_COMMANDS):
            for letters in messages:
                app.send_task(
                    DELIVER,
                    kwargs={"type_name": letters[0].type, "events": [_plain(letter) for letter in letters]},
                    producer=producer,
                    retry=False,
                    ignore_result=True,
                    argsrepr="", kwargsrepr="",  # else the payloads stand in the header once more
                )  # fmt: skip

    def waiting(self) -> int:
        app = celery_app()
        queue = app.amqp.router.route({}, DELIVER)["queue"]
        with app.producer_pool.acquire(block=True) as producer:
            return _length(producer.channel, queue.name)


def _plain(letter: Letter) -> dict[str, Any]:
    return {
        "id": str(letter.id),
        "aggregate_id": str(letter.aggregate_id),
        "payload": letter.payload,
        "context": letter.context.plain(),
    }


class Wake:
    """Asks for a relay soon after it is called, from a thread of its own: coalesced, never in the caller's way.

    A commit within `WAKE_EVERY_S` of the last message waits for the next one. While the broker can't be reached wakes
    are dropped: beat asks every second. A message that waits in its queue serves all commits until it is taken.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def __call__(self) -> None:
        self._wanted.set()
        with self._starting:
            if self._thread is None:
                try:
                    thread = Thread(target=self._run, name="wake-relay", daemon=True)
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is ending
                    return
                self._thread = thread

    def _reset(self) -> None:
        """A forked child has neither the parent's thread nor a lock that is surely free."""
        self._wanted, self._starting = Event(), Lock()
        self._thread = None

    def _run(self) -> None:
        channel: Any = None
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                channel = channel or _connected()
                _ask_for_relay(channel)
                time.sleep(WAKE_EVERY_S)
            except Exception:  # nobody waits for a wake, and beat stands in for it
                log.debug("wake_dropped", exc_info=True)
                _close(channel)
                channel = None
                time.sleep(REST_S)


def _connected() -> Any:
    return celery_app().connection_for_write(connect_timeout=1).channel()


def _close(channel: Any) -> None:
    try:
        if channel is not None:
            channel.connection.client.close()
    except Exception:  # it was broken before
        log.debug("wake_connection_lost", exc_info=True)


def _ask_for_relay(channel: Any) -> None:
    app = celery_app()
    queue = app.amqp.router.route({}, RELAY)["queue"]
    if not _length(channel, queue.name):
        with app.amqp.Producer(channel, auto_declare=False) as producer:
            app.send_task(RELAY, producer=producer, retry=False, ignore_result=True)


def _length(channel: Any, queue: str) -> int:
    """Messages in the queue that nobody has taken."""
    if hasattr(
        channel, "_q_for_pri"
    ):  # Redis: asked on the kept connection; a passive declare would open one each time
        waiting: int = channel.client.llen(queue)
        return waiting
    try:
        declared: int = channel.queue_declare(queue=queue, passive=True).message_count
    except ChannelError:  # no such queue yet
        return 0
    return declared


wake = Wake()
