"""manage.py resume_saga TRANSACTION --why TEXT: a Transaction in NEEDS_ATTENTION goes back to where it came from."""

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from payments.facade import SAGAS, TransactionType, queries
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.management.base import Report, StaffCommand, argument


class Command(StaffCommand):
    """Its audit row is the change of status, with who and why. Nothing is sent that its step would not send by itself:
    an open attempt is asked about.
    """

    help = "Sends a Transaction that needs attention back to where it came from, and runs what is due then."
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("transaction", help="the Transaction's id")
        parser.add_argument("--why", required=True, help="for the audit log; no personal data")

    def report(self, options: dict[str, Any]) -> Report:
        id, why = argument(UUID, options["transaction"], "TRANSACTION"), options["why"].strip()
        if not why:
            raise CommandError("--why is empty: it stays in the audit log")
        standing = queries.standing(id)
        if standing is None:
            raise CommandError("no such Transaction")
        if options["dry_run"]:
            return _would(id, standing)
        saga = SAGAS[TransactionType(standing["type"])]
        resumed = saga.resume(TransactionId(id), why=why)
        with suppress(StepsFailed):  # logged; the status says where it stands now
            saga.drive([id])
        stands = queries.standing(id) or {}
        told = {"transaction": str(id), "resumed_to": str(resumed), "dry_run": False, **stands}
        return Report(told, [f"{id}: went back to {resumed}, and is {stands.get('status')} now"])


def _would(id: UUID, standing: dict[str, str]) -> Report:
    told = {"transaction": str(id), "resumed_to": standing["attention_from"] or None, "dry_run": True, **standing}
    if standing["status"] != "NEEDS_ATTENTION":
        return Report(told, [f"{id}: is {standing['status']}, there is nothing to resume"], wrong=True)
    return Report(told, [f"{id}: would go back to {standing['attention_from']}"])
