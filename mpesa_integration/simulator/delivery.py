"""How callbacks reach us, or don't: the faults that strike a callback on its way."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mpesa_integration.simulator.callbacks import Heard
from mpesa_integration.simulator.core import Core
from mpesa_integration.simulator.gateway import Struck


@dataclass
class Delivery:
    """Sends true callbacks with the faults that struck them, and forged ones as they are."""

    core: Core
    held_back: list[Callable[[], None]] = field(default_factory=list)

    def send(self, url: str, body: bytes, faults: Struck, done: Heard | None = None) -> None:
        """Once, late, several times, out of order, or never; `done` is set once it was answered or is lost."""
        if "lost_callback" in faults:
            if done is not None and not done.done():
                done.set_result((0, b""))
            return
        late = 5 if "late_callback" in faults else self.core.callback_s
        delay = float(faults.get("late_callback", {}).get("after_s", late))
        times = int(faults.get("duplicate_callback", {}).get("times", 2)) if "duplicate_callback" in faults else 1

        def post() -> None:
            for _ in range(times):
                self.core.callbacks.post(url, body, delay, done)

        if "out_of_order" in faults:  # waits for the next one to overtake it
            self.held_back.append(post)
            self.core.later(float(faults["out_of_order"].get("after_s", 2)), self._let_go)
            return
        post()
        if self.held_back:
            self.core.later(0.2, self._let_go)  # once this one is surely there

    def forge(self, url: str, body: bytes, done: Heard | None = None) -> None:
        """What somebody else sends who knows the URL."""
        self.core.callbacks.post(url, body, 0, done)

    def _let_go(self) -> None:
        held, self.held_back = self.held_back, []
        for post in held:
            post()


def heard() -> Heard:
    """A place for the answer to a callback, in the running loop."""
    return asyncio.get_running_loop().create_future()
