"""What every command for staff starts from: `--json`, exit codes, and who did it in the audit log."""

import getpass
import json
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as

T = TypeVar("T")

FOUND_WRONG, CANNOT_RUN = 1, 2


@dataclass(frozen=True)
class Report:
    """What a command found or did: `data` for `--json`, `lines` for people; `wrong` makes the exit code 1.

    `data` None: the command has written its one JSON object itself.
    """

    data: dict[str, Any] | None
    lines: Sequence[str] = field(default=())
    wrong: bool = False


class StaffCommand(BaseCommand):
    """Exit codes: 0 fine, 1 something is wrong, 2 bad arguments or it cannot run.

    With `--json` standard output holds one JSON object and nothing else (`{"error": ...}` when it cannot run).
    A subclass has `options` for its arguments and `report` for its work; `changes` gives it `--dry-run`.
    """

    changes = False

    def options(self, parser: ArgumentParser) -> None:
        """Adds the command's own arguments."""

    def report(self, options: dict[str, Any]) -> Report:
        """Does the work. Raises `CommandError` for what it cannot do."""
        raise NotImplementedError

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
        parser.add_argument("--staff", metavar="ID", help="who is doing this, for the audit log")
        if self.changes:
            parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
        self.options(parser)

    def handle(self, *_: Any, **options: Any) -> None:
        as_json, staff = options["json"], options["staff"]
        who = Context(actor=(f"staff:{staff}" if staff else f"system:command:{self._name()}")[:64], device=_seat())
        try:
            # What a library prints must not get between the reader and the one object.
            with acting_as(who), redirect_stdout(sys.stderr):
                report = self.report(options)
        except (CommandError, DomainError, DatabaseError) as error:
            self._cannot_run(error, as_json=as_json)
        if as_json and report.data is not None:
            self.stdout.write(json.dumps(report.data, default=str))
        elif not as_json:
            for line in report.lines:
                self.stdout.write(line)
        if report.wrong:
            sys.exit(FOUND_WRONG)

    def _cannot_run(self, error: Exception, *, as_json: bool) -> None:
        text = f"{type(error).__name__}: the database refused" if isinstance(error, DatabaseError) else str(error)
        if as_json:
            self.stdout.write(json.dumps({"error": text}))
            sys.exit(CANNOT_RUN)
        raise CommandError(text, returncode=CANNOT_RUN) from error

    def _name(self) -> str:
        return type(self).__module__.rpartition(".")[2]


def argument(kind: Callable[[str], T], text: str, name: str) -> T:
    """`kind(text)`. Raises `CommandError` that names the argument when `text` is no such thing."""
    try:
        return kind(text)
    except (ValueError, TypeError, OverflowError) as error:
        raise CommandError(f"{name}: {text!r} is not understood", returncode=CANNOT_RUN) from error


def seal_number(text: str) -> int:
    """`--from-seal`, for `argument`. Raises `ValueError` for what is no number from 1 on."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ValueError(text)
    return int(text)


def _seat() -> str:
    """The login and machine that a command was typed at."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        login = "?"
    return f"{login}@{socket.gethostname()}"[:64]
