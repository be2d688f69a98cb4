"""manage.py sweep_sagas: the sweeper as a process of its own, beside or instead of the Celery task."""

import signal
from argparse import ArgumentParser
from threading import Event
from typing import Any

from django.db import DatabaseError, close_old_connections

from payments.workers import sweep_sagas
from shared_kernel.management.base import Report, StaffCommand

PAUSE_S = 1.0


class Command(StaffCommand):
    help = "Runs the steps that are due, until SIGTERM or Ctrl-C. Any number may run: each row is leased to one."

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="run what is due now, then stop")

    def report(self, options: dict[str, Any]) -> Report:
        looked = sweep_sagas() if options["once"] else self._until_stopped()
        return Report({"looked_at": looked}, [f"{looked} Transactions were due"])

    def _until_stopped(self) -> int:
        stopped, looked = Event(), 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        while not stopped.wait(PAUSE_S):
            close_old_connections()
            try:
                looked += sweep_sagas()
            except DatabaseError as away:  # the rows are still due when it is back
                self.stderr.write(f"the database could not be reached: {type(away).__name__}")
        return looked
