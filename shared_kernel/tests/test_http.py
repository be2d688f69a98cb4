"""Kept connections: one for call after call, and none that its server may just be about to close."""

import socket
import threading
import time

import pytest

from shared_kernel.infrastructure.http import exchange

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SOONEST_S = 4.5  # no server that we know of closes an idle connection sooner than after five seconds


class ClosesIdle:
    """A server that closes a connection just when a request comes after `SOONEST_S`: nobody can tell what became of it.

    That is how it looks when its time to close comes while the request is on its way.
    """

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.at = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = 0

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        heard, request = time.monotonic(), b""
        with peer:
            while some := peer.recv(65536):
                if time.monotonic() - heard >= SOONEST_S:
                    return
                request += some
                if request.endswith(b"{}"):  # headers and body come apart
                    heard, request = time.monotonic(), b""
                    peer.sendall(ANSWER)


@pytest.fixture
def server():
    server = ClosesIdle()
    threading.Thread(target=server.run, daemon=True).start()
    yield server
    server.listener.close()


def ask(server):
    return exchange("POST", server.at, "/pay", {}, b"{}").status


def test_calls_one_after_another_share_a_connection(server):
    assert [ask(server) for _ in range(5)] == [200] * 5
    assert server.connections == 1


def test_nothing_is_written_to_a_connection_that_may_just_be_closing(server):
    assert ask(server) == 200
    time.sleep(SOONEST_S + 0.2)

    assert ask(server) == 200
    assert server.connections == 2
