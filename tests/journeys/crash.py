"""A worker that dies by itself: `CRASH_POINT=tests.journeys.crash.point`, at the place that `CRASH_AT` names."""

import os
import signal

_passed = 0


def point(where: str) -> None:
    """Kills this process (-9) at the n-th crash point after its start; `CRASH_AT` 0 never."""
    global _passed
    _passed += 1
    if _passed == int(os.environ.get("CRASH_AT", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
