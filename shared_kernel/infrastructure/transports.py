"""kombu's transports, mended: Redis for production, plain files for the demo and for development without Redis."""

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem, redis
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError as RedisConnectionError


class RedisChannel(redis.Channel):
    """Tells of a connection that was given up as of any other lost one.

    kombu 5.7 raises `AttributeError` ('NoneType' object has no attribute 'hostname') where a channel outlives its
    connection: when Celery closes a lost connection for the second time, or acknowledges to it what a task held
    meanwhile. No one expects that, and the worker ends.
    """

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the connection of this channel was given up")
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]
        return parameters


class RedisBroker(redis.Transport):
    """`redis://` whose death no worker dies of."""

    Channel = RedisChannel


class WholeFiles(filesystem.Channel):
    """Whole messages, each to a queue that is bound: no reader finds half of one, no writer drops one in silence.

    kombu's own writes a message into the file that readers look for, so that a reader may find it empty, and its worker
    ends: here it is written aside and renamed, which on one file system is one step. And kombu's own remembers a
    binding for the whole process before it is in the control folder, so that another thread meanwhile sends to no
    queue: here whoever binds or looks for a binding does it alone, among threads and processes.
    """

    def _put(self, queue: Any, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]  # as its two bases differ
        folder = Path(self.data_folder_out)
        name = f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        aside = folder / f".{name}.part"
        aside.write_text(str(dumps(payload)))  # type: ignore[no-untyped-call]
        aside.replace(folder / name)

    def queue_bind(self, *args: Any, **kwargs: Any) -> None:
        with self._alone():
            super().queue_bind(*args, **kwargs)  # type: ignore[no-untyped-call]

    def get_table(self, exchange: Any) -> Any:
        with self._alone():
            return super().get_table(exchange)  # type: ignore[no-untyped-call]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.control_folder.mkdir(parents=True, exist_ok=True)
        with (self.control_folder / ".bindings.lock").open("a") as file:  # a lock of this opening: threads wait too
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class FileBroker(filesystem.Transport):
    """`filesystem://` that loses no message on its way to a queue."""

    Channel = WholeFiles


def use_mended_transports() -> None:
    """From now on `redis://`, `rediss://` and `filesystem://` name these."""
    for name, transport in {"redis": RedisBroker, "rediss": RedisBroker, "filesystem": FileBroker}.items():
        TRANSPORT_ALIASES[name] = f"{transport.__module__}:{transport.__qualname__}"
