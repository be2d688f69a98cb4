"""A broker of plain files, for the demo and for development without Redis.

kombu's own writes a message into the file that readers look for, so that a reader may find it empty, and its worker
ends. Here a message shows whole or not at all.
"""

import uuid
from pathlib import Path
from time import monotonic
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.filesystem import Channel, Transport
from kombu.utils.json import dumps


class WholeFiles(Channel):
    """Writes aside, then renames: on one file system that is one step."""

    def _put(self, queue: Any, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]  # as its two bases differ
        folder = Path(self.data_folder_out)
        name = f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        aside = folder / f".{name}.part"
        aside.write_text(str(dumps(payload)))  # type: ignore[no-untyped-call]
        aside.replace(folder / name)


class FileBroker(Transport):
    """`filesystem://` with whole messages."""

    Channel = WholeFiles


def use_whole_files() -> None:
    """From now on `filesystem://` names this broker."""
    TRANSPORT_ALIASES["filesystem"] = f"{FileBroker.__module__}:{FileBroker.__qualname__}"
