"""The broker of plain files under threads that look, bind and send all the time."""

import threading
from typing import Any

import pytest
from kombu.connection import Connection
from kombu.transport import filesystem

from shared_kernel.infrastructure.transports import use_mended_transports


@pytest.fixture
def options(tmp_path):
    use_mended_transports()
    return {"data_folder_in": tmp_path, "data_folder_out": tmp_path, "control_folder": tmp_path / "control"}


def test_a_message_is_not_dropped_while_another_thread_binds_its_queue(options, monkeypatch):
    binding, go_on = threading.Event(), threading.Event()
    write = filesystem.Channel._queue_bind

    def slowly(*args):
        binding.set()
        go_on.wait(1)
        write(*args)

    monkeypatch.setattr(filesystem.Channel, "_queue_bind", slowly)
    with Connection("filesystem://", transport_options=options) as one, one.clone() as other:
        binds = threading.Thread(target=one.SimpleQueue, args=("half-bound",))
        binds.start()
        assert binding.wait(10)

        other.SimpleQueue("half-bound").put("all there is")
        go_on.set()
        binds.join(10)

        assert one.SimpleQueue("half-bound").get(timeout=5).payload == "all there is"


def test_a_reader_never_finds_half_a_message(options):
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
