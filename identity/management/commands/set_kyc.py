"""`set_kyc USER --status verified --tier standard`: a decision on a customer's standing, with its audit row."""

import json
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from identity.domain.kyc import KycStatus
from identity.facade import DecideKyc, kyc, users
from shared_kernel.domain.errors import DomainError, NotFound
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as


class Command(BaseCommand):
    """Exit 0: decided; 1: this customer's standing does not allow it; 2: bad arguments, or nobody there."""

    help = "Sets a customer's KYC status and tier, with an audit row."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="the user's id; '-' reads id, phone or e-mail address from standard input")
        parser.add_argument("--status", required=True, choices=[str(status) for status in KycStatus])
        parser.add_argument("--tier", help="chooses the limits; without it the tier stays")
        parser.add_argument("--expires-on", type=_date, help="YYYY-MM-DD: from then on the customer must prove anew")
        parser.add_argument("--why", default="", help="for the audit row; no personal data")
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
        parser.add_argument("--dry-run", action="store_true", help="says what would change and changes nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with acting_as(Context(actor="system:set_kyc")):
                user = _user(sys.stdin.readline().strip() if options["user"] == "-" else options["user"])
                before, after = kyc.decide(
                    DecideKyc(
                        user_id=user,
                        status=KycStatus(options["status"]),
                        tier=options["tier"],
                        expires_at=options["expires_on"],
                        why=options["why"],
                        dry_run=options["dry_run"],
                    )
                )
        except DomainError as refused:
            raise CommandError(refused.detail, returncode=2 if isinstance(refused, NotFound) else 1) from None
        if options["json"]:
            told = {"user": str(user), "before": before, "after": after, "dry_run": options["dry_run"]}
            self.stdout.write(json.dumps(told))
        else:
            would = "would go" if options["dry_run"] else "went"
            self.stdout.write(f"{user}: {would} from {before} to {after}")


def _user(text: str) -> UserId:
    try:
        return UserId(UUID(text))
    except ValueError:
        if found := users.find(text):
            return found
        raise CommandError(
            "no such user: give the id, or '-' and the phone number on standard input", returncode=2
        ) from None


def _date(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
