"""The broker of plain files under a reader that looks all the time."""

import threading
from typing import Any

from kombu.connection import Connection

from shared_kernel.infrastructure.transports import use_mended_transports


def test_a_reader_never_finds_half_a_message(tmp_path):
    use_mended_transports()
    options = {"data_folder_in": tmp_path, "data_folder_out": tmp_path, "control_folder": tmp_path / "control"}
    read: list[Any] = []
    stopped = threading.Event()

    def look():
        with Connection("filesystem://", transport_options=options) as connection:
            queue = connection.SimpleQueue("steps")
            while not stopped.is_set() or len(read) < 400:
                try:
                    message = queue.get(block=False)
                except queue.Empty:
                    continue
                read.append(message.payload)
                message.ack()

    reader = threading.Thread(target=look)
    reader.start()
    with Connection("filesystem://", transport_options=options) as connection:
        queue = connection.SimpleQueue("steps")
        for number in range(400):
            queue.put({"number": number, "filling": "x" * 20_000})
    stopped.set()
    reader.join(30)

    assert sorted(message["number"] for message in read) == list(range(400))
