"""Posts the simulator's callbacks: a few tasks, each with connections of its own that it keeps."""

import asyncio
import re
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

Heard: TypeAlias = asyncio.Future[tuple[int, bytes]]
"""Status and body of the answer to a callback; status 0 when there was none."""


@dataclass
class Callbacks:
    """Posts callbacks from a few tasks, each with its own kept connections: plain asyncio, HTTP/1.1."""

    workers: int
    answered: deque[tuple[int, bytes]] = field(
        default_factory=lambda: deque(maxlen=100_000)
    )  # status, body that was sent
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    queue: "asyncio.Queue[tuple[str, bytes, Heard | None]] | None" = None
    loop: asyncio.AbstractEventLoop | None = None
    generation: int = 0

    async def start(self) -> None:
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue()
        self.tasks = [asyncio.create_task(self._work()) for _ in range(self.workers)]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def forget(self) -> None:
        """Drops what waits to be sent, and what was sent."""
        self.generation += 1
        self.answered.clear()

    def post(self, url: str, body: bytes, delay: float, done: Heard | None = None) -> None:
        """Sends `body` after `delay` seconds; `done` gets the answer, or status 0 when there was none."""
        assert self.loop is not None
        if delay > 0:
            self.loop.call_later(delay, self._put, self.generation, (url, body, done))
        else:
            self._put(self.generation, (url, body, done))

    def _put(self, generation: int, item: tuple[str, bytes, Heard | None]) -> None:
        if generation == self.generation and self.queue is not None:
            self.queue.put_nowait(item)

    async def _work(self) -> None:
        kept: dict[tuple[str, int], tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        assert self.queue is not None
        while True:
            url, body, done = await self.queue.get()
            try:
                async with asyncio.timeout(10):
                    status, answer = await self._exchange(kept, url, body)
            except (OSError, TimeoutError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError):
                status, answer = 0, b""
            self.answered.append((status, body))
            if done is not None and not done.done():
                done.set_result((status, answer))

    async def _exchange(
        self, kept: dict[tuple[str, int], tuple[asyncio.StreamReader, asyncio.StreamWriter]], url: str, body: bytes
    ) -> tuple[int, bytes]:
        parts = urlsplit(url)
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        place = (parts.hostname or "", parts.port or (443 if tls else 80))
        head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nUser-Agent: Apache-HttpClient\r\n\r\n"
        ).encode()
        fresh = place not in kept
        while True:
            if place not in kept:
                kept[place] = await asyncio.open_connection(*place, ssl=tls)
            reader, writer = kept.pop(place)
            try:
                writer.write(head + body)
                await writer.drain()
                answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            except (OSError, EOFError):
                writer.close()
                if fresh:
                    raise
                fresh = True  # the kept connection had been closed: once more on a new one
                continue
            length = re.search(r"\r\ncontent-length: *([0-9]+)", answer)
            said = b"" if length is None else await reader.readexactly(int(length[1]))
            if length is not None and "\r\nconnection: close" not in answer:
                kept[place] = (reader, writer)
            else:
                writer.close()
            return int(answer.split(" ", 2)[1]), said
