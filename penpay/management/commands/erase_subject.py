"""manage.py erase_subject USER --why WHY: forgets a customer as far as the law allows."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from identity.facade import Erased, EraseSubject, erasure
from penpay.management.subject import HELP, subject
from penpay.privacy.ties import AllTies
from shared_kernel.management.base import Report, StaffCommand


class Command(StaffCommand):
    help = (
        "Ends a customer's account and sessions, forgets the Deriv token, e-mail address, password, devices and codes;"
        " what anti-money-laundering law keeps is restricted and dated. Ledger and audit log stay. Safe to repeat."
        " Refused while money of theirs is on its way or owed, or the account is under review."
    )
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help=HELP)
        parser.add_argument("--why", required=True, help="for the audit log, such as the request's number")

    def report(self, options: dict[str, Any]) -> Report:
        if not options["why"].strip():
            raise CommandError("--why says for the audit log why this customer is forgotten")
        dry_run = options["dry_run"]
        command = EraseSubject(user_id=subject(options["user"]), why=options["why"].strip(), dry_run=dry_run)
        done = erasure(AllTies()).erase(command)
        data = {
            "user": str(done.user_id),
            "restricted_at": done.restricted_at.isoformat(),
            "kept_until": done.kept_until.isoformat() if done.kept_until else None,
            "already": done.already,
            "dry_run": dry_run,
        }
        return Report(data, [_told(done, dry_run=dry_run)])


def _told(done: Erased, *, dry_run: bool) -> str:
    if done.already:
        return f"{done.user_id} was erased on {done.restricted_at:%Y-%m-%d}{_kept(done)}"
    return f"{done.user_id} {'would be' if dry_run else 'is'} erased{_kept(done)}"


def _kept(done: Erased) -> str:
    return f"; what the law keeps goes after {done.kept_until:%Y-%m-%d}" if done.kept_until else "; nothing is kept"
