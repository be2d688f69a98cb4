"""manage.py relay_outbox: the relay as a process of its own, beside or instead of the Celery task."""

import signal
from argparse import ArgumentParser
from threading import Event
from typing import Any

from django.core.management.base import CommandError

from shared_kernel.management.base import Report, StaffCommand
from shared_kernel.workers import drain

PAUSE_S = 0.05


class Command(StaffCommand):
    help = "Publishes the events that wait, until SIGTERM or Ctrl-C. Any number may run: one works at a time."

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="publish what waits now, then stop")

    def report(self, options: dict[str, Any]) -> Report:
        if options["once"]:
            published = drain()
            if published is None:
                raise CommandError("the broker or the database could not be reached; nothing is lost")
        else:
            published = _until_stopped()
        return Report({"published": published}, [f"{published} events published"])


def _until_stopped() -> int:
    stopped, published = Event(), 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(PAUSE_S):
        published += drain() or 0
    return published
