"""kombu's transports, mended: Redis for production, plain files for the demo and for development without Redis."""

import uuid
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
    """Writes aside, then renames: on one file system that is one step.

    kombu's own writes a message into the file that readers look for, so that a reader may find it empty, and its worker
    ends. Here a message shows whole or not at all.
    """

    def _put(self, queue: Any, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]  # as its two bases differ
        folder = Path(self.data_folder_out)
        name = f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        aside = folder / f".{name}.part"
        aside.write_text(str(dumps(payload)))  # type: ignore[no-untyped-call]
        aside.replace(folder / name)


class FileBroker(filesystem.Transport):
    """`filesystem://` with whole messages."""

    Channel = WholeFiles


def use_mended_transports() -> None:
    """From now on `redis://`, `rediss://` and `filesystem://` name these."""
    for name, transport in {"redis": RedisBroker, "rediss": RedisBroker, "filesystem": FileBroker}.items():
        TRANSPORT_ALIASES[name] = f"{transport.__module__}:{transport.__qualname__}"
