"""manage.py export_subject USER: all that is stored of one customer, in clear, as JSON."""

import os
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from penpay.management.subject import HELP, subject
from penpay.privacy.export import export
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.facade import audit, now, unit_of_work
from shared_kernel.management.base import Report, StaffCommand


class Command(StaffCommand):
    help = (
        "Writes all personal data of a customer as one JSON object, decrypted: into a new file that its owner alone can"
        " read, or on standard output. The audit log knows of it before the first byte is written."
    )

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help=HELP)
        parser.add_argument("--out", metavar="FILE", help="write it there; standard output without it")
        parser.add_argument("--why", default="", help="for the audit log, such as the request's number")

    def report(self, options: dict[str, Any]) -> Report:
        user = subject(options["user"])
        path = Path(options["out"]) if options["out"] else None
        if path is not None and path.exists():
            raise CommandError(f"{path} is there already: name a new file")
        _note(user, options["why"], "file" if path else "standard output")
        if path is None:
            export(user, lambda text: self.stdout.write(text, ending=""))
            return Report(None)
        rows = _written(user, path)
        data = {"user": str(user), "file": str(path), "rows": rows}
        return Report(data, [f"{sum(rows.values())} rows of {len(rows)} tables in {path}"])


def _note(user: UUID, why: str, where: str) -> None:
    record = AuditRecord("subject.exported", "user", str(user), now(), why=why, details={"to": where})
    with unit_of_work():
        audit.append([record])


def _written(user: UUID, path: Path) -> dict[str, int]:
    """All of the file or none: it gets its name when it is complete. mkstemp's files are their owner's alone (0600)."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".export-")
    except OSError as refused:
        raise CommandError(f"{path.parent} cannot be written to: {refused.strerror}") from refused
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            rows = export(user, file.write)
        os.link(name, path)  # unlike a rename it replaces nothing
    except FileExistsError as there:
        raise CommandError(f"{path} is there already: name a new file") from there
    except OSError as refused:
        raise CommandError(f"{path} cannot be written: {refused.strerror}") from refused
    finally:
        Path(name).unlink(missing_ok=True)
    return rows
