"""`set_kyc USER --status verified --tier standard`: a decision on a customer's standing, with its audit row."""

import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from identity.domain.kyc import KycStatus
from identity.facade import DecideKyc, kyc, users
from shared_kernel.domain.identifiers import UserId
from shared_kernel.management.base import CANNOT_RUN, Report, StaffCommand, argument


class Command(StaffCommand):
    """Exit 2 also for a step that is not allowed. The arguments hold no personal data: any process can read them."""

    help = "Sets a customer's KYC status and tier, with an audit row."
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="the user's id; '-' reads id, phone or e-mail address from standard input")
        parser.add_argument("--status", required=True, choices=[str(status) for status in KycStatus])
        parser.add_argument("--tier", help="chooses the limits; without it the tier stays")
        parser.add_argument("--expires-on", help="YYYY-MM-DD: from then on the customer must prove anew")
        parser.add_argument("--why", default="", help="for the audit row; no personal data")

    def report(self, options: dict[str, Any]) -> Report:
        user = _user(sys.stdin.readline().strip() if options["user"] == "-" else options["user"])
        expires_on, dry_run = options["expires_on"], options["dry_run"]
        before, after = kyc.decide(
            DecideKyc(
                user_id=user,
                status=KycStatus(options["status"]),
                tier=options["tier"],
                expires_at=argument(_day, expires_on, "--expires-on") if expires_on else None,
                why=options["why"],
                dry_run=dry_run,
            )
        )
        told = {"user": str(user), "before": before, "after": after, "dry_run": dry_run}
        return Report(told, [f"{user}: {'would go' if dry_run else 'went'} from {before} to {after}"])


def _user(text: str) -> UserId:
    try:
        return UserId(UUID(text))
    except ValueError:
        if found := users.find(text):
            return found
        raise CommandError(
            "no such user: give the id, or '-' and the phone number on standard input", returncode=CANNOT_RUN
        ) from None


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
