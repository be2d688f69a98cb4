"""Carries out what the plan says, tells when, and mends it again."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import httpx

from tests.chaos.plan import Blow, Kind, faults
from tests.journeys.world import PROVIDERS, World

ROUND_S = 20  # how long the same faults stay armed
DOWN: dict[Kind, tuple[str, dict[str, Any]]] = {
    Kind.MPESA_DOWN: ("mpesa", {"call": "*", "fault": "lost_answer_before_effect"}),
    Kind.DERIV_DOWN: ("deriv_ws", {"call": "*", "fault": "down"}),
}


@dataclass
class Damage:
    """Breaks one world. `tell` gets a line for everything that is broken or mended."""

    world: World
    seed: int
    tell: Callable[[str], None]
    is_over: Event = field(default_factory=Event)
    done: Counter[str] = field(default_factory=Counter)
    round: int = -1

    def run(self, planned: list[Blow], seconds: float) -> None:
        """Until `seconds` are over, all of it or what is left of it; everything runs again afterwards."""
        began = time.monotonic()
        for blow in planned:
            self._until(began + blow.at_s, began)
            if self.is_over.is_set():
                return
            self.tell(f"{blow.kind}{f' {blow.number}' if 'worker' in blow.kind else ''} ({blow.for_s} s)")
            self.strike(blow)
            self.done[blow.kind] += 1
            self._arm(began)
        self._until(began + seconds, began)

    def strike(self, blow: Blow) -> None:
        """One blow, and its mending."""
        stack = self.world.stack
        match blow.kind:
            case Kind.KILL_API:
                stack.kill("api")
                self._pause(blow.for_s)
                stack.start_api()
            case Kind.KILL_WORKER:
                stack.kill(f"worker{blow.number}")
                self._pause(blow.for_s)
                stack.start_worker(blow.number)
            case Kind.KILL_BEAT:
                stack.kill("beat")
                self._pause(blow.for_s)
                stack.start_beat()
            case Kind.FREEZE_WORKER:
                self._freeze(f"worker{blow.number}", blow.for_s)
            case Kind.PROVIDERS_HANG:
                self._freeze("simulators", blow.for_s)
            case Kind.FLUSH_REDIS:
                self.world.flush_redis()
            case Kind.KILL_REDIS:
                self.world.redis.stop(signal.SIGKILL)
                self._pause(blow.for_s)
                self.world.redis.start()
            case Kind.KILL_MARIADB | Kind.RESTART_MARIADB:
                self.world.mariadb.stop(signal.SIGKILL if blow.kind is Kind.KILL_MARIADB else signal.SIGTERM)
                self._pause(blow.for_s)
                self.world.mariadb.start()
            case Kind.MPESA_DOWN | Kind.DERIV_DOWN:
                provider, order = DOWN[blow.kind]
                self.world.arm(provider, **order)
                self._pause(blow.for_s)
                self.arm_round(self.round)  # what else was armed goes on
            case Kind.MPESA_CLOCK | Kind.DERIV_CLOCK:
                provider = "mpesa" if blow.kind is Kind.MPESA_CLOCK else "deriv_ws"
                self.world.stack.control(provider, "clock", {"advance_s": blow.for_s})

    def arm_round(self, number: int) -> None:
        """The faults of that round, and no others."""
        self.round = number
        self.world.calm()
        armed = faults(self.seed, number)
        for provider in PROVIDERS:
            self.world.stack.control(provider, "faults", [fault for where, fault in armed if where == provider])

    def mend(self) -> None:
        """No faults; whatever died by itself or was left dead runs."""
        with suppress(httpx.TransportError):
            self.world.calm()
        self.revive()

    def revive(self) -> None:
        """Starts again what has ended; a process that died without a blow is told of."""
        stack = self.world.stack
        starts: dict[str, Callable[[], None]] = {"api": stack.start_api, "beat": stack.start_beat}
        for number in range(len(stack.queues)):
            starts[f"worker{number}"] = lambda number=number: stack.start_worker(number)  # type: ignore[misc]
        for name, start in starts.items():
            process = stack.processes.get(name)
            if process is None or process.poll() is not None:
                self.tell(f"{name} had ended and is started again")
                self.done["ended by itself"] += process is not None
                stack.processes.pop(name, None)
                start()

    def _freeze(self, name: str, seconds: float) -> None:
        process = self.world.stack.processes[name]
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            self._pause(seconds)
        finally:
            os.killpg(process.pid, signal.SIGCONT)

    def _until(self, moment: float, began: float) -> None:
        while time.monotonic() < moment and not self.is_over.is_set():
            self._arm(began)
            self.revive()
            self._pause(min(1.0, max(0.0, moment - time.monotonic())))

    def _arm(self, began: float) -> None:
        number = int((time.monotonic() - began) / ROUND_S)
        if number != self.round:
            self.arm_round(number)
            self.tell(f"round {number}: {len(faults(self.seed, number))} faults armed at the providers")

    def _pause(self, seconds: float) -> None:
        self.is_over.wait(seconds)
