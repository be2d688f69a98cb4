"""manage.py evidence TRANSACTION: one file that tells its whole story; `--check FILE`: is a file as it was made?

Masked alone: a command knows a name that anybody can type. Personal data in clear takes people who are signed in, to
ask for it, to approve it and to take it: `--ask` and `--unmasked` only say where.
"""

import errno
import os
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError
from django.urls import reverse

from payments.facade import evidence, evidence_page
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.facade import current_context
from shared_kernel.management.base import Report, StaffCommand, argument

MOST_BYTES = 64 * 1024 * 1024
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


class Command(StaffCommand):
    """Whoever is told leaves an audit row with the document's SHA-256 before the file is there."""

    help = "Writes all that is stored about a Transaction into one HTML file with the same as JSON in it, masked."

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("transaction", nargs="?", help="the Transaction's id")
        parser.add_argument("--out", metavar="F", help="the file, which must be new; evidence-<id>.html without it")
        parser.add_argument("--check", metavar="FILE", help="whether an evidence file is as it was made")
        parser.add_argument("--why", default="", help="for the audit log; no personal data")
        for name in ("--ask", "--unmasked"):
            parser.add_argument(name, action="store_true", help="says where it is asked for, and taken, in clear")

    def report(self, options: dict[str, Any]) -> Report:
        if bool(options["transaction"]) == bool(options["check"]):
            raise CommandError("name a TRANSACTION, or a file to --check")
        if options["check"]:
            return _checked(Path(options["check"]))
        id = argument(UUID, options["transaction"], "TRANSACTION")
        if options["ask"] or options["unmasked"]:
            page = reverse("admin:payments_reveal_ask", args=[id])
            raise CommandError(f"in clear it takes people who are signed in: ask for it in the back-office, at {page}")
        if options["json"] and not options["out"]:
            return Report(_made(id, options))
        path = Path(options["out"] or f"evidence-{id}.html")
        return _written(id, path, options)


def _made(id: UUID, options: dict[str, Any]) -> dict[str, Any]:
    return evidence.tell(TransactionId(id), by=current_context().actor, why=options["why"])


def _written(id: UUID, path: Path, options: dict[str, Any]) -> Report:
    """All of the file or none of it: it gets its name when it is complete. Only its owner can read it."""
    if path.exists():
        raise CommandError(f"{path} is there already: name another file with --out")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".evidence-")
    except OSError as refused:
        raise CommandError(f"{path.parent} cannot be written to: {refused.strerror}") from refused
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            made = _made(id, options)
            file.write(evidence_page.page(made))
        _give_name(Path(name), path)
    except FileExistsError as there:
        raise CommandError(f"{path} is there already: name another file with --out") from there
    except OSError as refused:
        raise CommandError(f"{path} cannot be written: {refused.strerror}") from refused
    finally:
        Path(name).unlink(missing_ok=True)
    told = {name: made[name] for name in ("transaction", "personal_data", "made_at", "made_by", "sha256")}
    sections = {name: {"rows": len(one["rows"]), "sha256": one["sha256"]} for name, one in made["sections"].items()}
    lines = [f"{path}: {made['personal_data']}, SHA-256 of the document {made['sha256']}"]
    return Report({"file": str(path), **told, "sections": sections}, lines)


def _give_name(made: Path, path: Path) -> None:
    """A link replaces nothing, unlike a rename, which is for file systems without links. Raises `OSError`."""
    try:
        os.link(made, path)
    except OSError as refused:
        if refused.errno not in NO_LINKS or path.exists():
            raise
        made.rename(path)


def _checked(path: Path) -> Report:
    """Whether the hashes fit, the page says what the document in it says, and the audit log knows it."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CommandError(f"{path} is too large for an evidence file")
        text = path.read_bytes().decode()
    except OSError as refused:
        raise CommandError(f"{path} cannot be read: {refused.strerror}") from refused
    except UnicodeDecodeError as binary:
        raise CommandError(f"{path} is no evidence file: it is not UTF-8") from binary
    found = evidence_page.document_of(text)
    wrong = evidence.faults(found)
    if not evidence_page.is_page_of(text, found):
        wrong.append("the page does not say what the document in it says, or another version of PenPay made it")
    told = {
        "file": str(path),
        "transaction": found.get("transaction"),
        "sha256": found.get("sha256"),
        "findings": wrong,
    }
    return Report(
        {"ok": not wrong, **told}, wrong or [f"{path}: as it was made, sha256 {found['sha256']}"], bool(wrong)
    )
