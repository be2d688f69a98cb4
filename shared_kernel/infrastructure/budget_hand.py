"""Permits in the memory of one worker."""

import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from shared_kernel.domain.budgets import Lane, Permits

NO_LIMIT = sys.maxsize


class SharedHand:
    """Permits in the memory of one worker. `limited` are the grants."""

    def __init__(
        self,
        limited: Mapping[Lane, Permits],
        has_limit: Callable[[Lane], bool],
        *,
        give_back: Callable[[Mapping[Lane, Permits], Mapping[Lane, Permits]], None],
        good_until: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._granted, self._has_limit = limited, has_limit
        self._unused = {lane: list(permits) for lane, permits in limited.items()}
        self._return, self._good_until, self._monotonic = give_back, good_until, monotonic

    def left(self, lane: Lane, *, reads: bool = False) -> int:
        if not self._has_limit(lane):
            return NO_LIMIT
        if lane not in self._unused or self._monotonic() >= self._good_until:
            return 0
        return self._unused[lane][reads]

    def take(self, lane: Lane, *, reads: bool = False) -> bool:
        if self.left(lane, reads=reads) <= 0:
            return False
        if self._has_limit(lane):
            self._unused[lane][reads] -= 1
        return True

    def put_back(self, lane: Lane, *, reads: bool = False) -> None:
        """Raises `ValueError` for a permit that was not taken from this hand."""
        if not self._has_limit(lane):
            return
        if lane not in self._unused or self._unused[lane][reads] >= self._granted[lane][reads]:
            raise ValueError(f"no permit of {lane} was taken from this hand")
        self._unused[lane][reads] += 1

    def give_back(self) -> None:
        rest = {lane: Permits(*left) for lane, left in self._unused.items() if any(left)}
        granted, self._granted, self._unused = self._granted, {}, {}
        if rest:
            self._return(granted, rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
