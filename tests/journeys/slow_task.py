"""PenPay's Celery settings, with a task that lasts: `celery -A tests.journeys.slow_task worker`."""

import time
from pathlib import Path

from celery import Celery

from shared_kernel.infrastructure.transports import use_mended_transports

use_mended_transports()
app = Celery("slow")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="tests.slow")
def slow(seconds: float, marks: str) -> None:
    """Tells that it began, and that it ended."""
    Path(marks, "began").touch()
    time.sleep(seconds)
    Path(marks, "ended").touch()
