"""Whether a server can be asked: left alone for a while once it could not be, so that its absence costs few a wait."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

REST_S = 3.0


@dataclass
class Reach:
    """What a process knows of one server. `lost` and `back` say whether that is news."""

    monotonic: Callable[[], float] = time.monotonic
    rest_s: float = REST_S
    away: bool = field(default=False, init=False)
    _ask_again_at: float = field(default=0.0, init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        os.register_at_fork(after_in_child=self._begin_anew)

    def may_ask(self) -> bool:
        """Always, while it answers; then one thread at a time, each `rest_s`, finds out whether it is back."""
        with self._lock:
            if not self.away:
                return True
            now = self.monotonic()
            if now < self._ask_again_at:
                return False
            self._ask_again_at = now + self.rest_s
            return True

    def lost(self) -> bool:
        """It could not be asked."""
        with self._lock:
            self._ask_again_at = self.monotonic() + self.rest_s
            first, self.away = not self.away, True
        return first

    def back(self) -> bool:
        """It answered."""
        if not self.away:
            return False
        with self._lock:
            first, self.away = self.away, False
        return first

    def _begin_anew(self) -> None:
        """A forked child: its parent's lock may be held by a thread that it has not."""
        self._lock = Lock()
