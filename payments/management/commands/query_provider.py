"""manage.py query_provider TRANSACTION: what M-Pesa and Deriv say became of each attempt."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from payments.facade import inquiry, queries
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.management.base import Report, StaffCommand, argument


class Command(StaffCommand):
    help = "Asks the providers what became of each attempt of a Transaction, and changes nothing."

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("transaction", help="the Transaction's id")

    def report(self, options: dict[str, Any]) -> Report:
        id = argument(UUID, options["transaction"], "TRANSACTION")
        standing = queries.standing(id)
        if standing is None:
            raise CommandError("no such Transaction")
        told = inquiry.about(TransactionId(id))
        lines = [f"{one.leg} {one.attempt} {one.reference} ({one.status}): {one.call}: {one.says}" for one in told]
        return Report(
            {"transaction": str(id), **standing, "attempts": [asdict(one) for one in told]},
            [f"{id} is {standing['status']}", *(lines or ["no attempt was made"])],
        )
