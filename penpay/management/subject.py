"""Who a command about one customer means."""

import sys

from django.core.management.base import CommandError

from identity.facade import users
from shared_kernel.domain.identifiers import UserId
from shared_kernel.management.base import CANNOT_RUN

HELP = "the customer's id; '-' reads id, phone or e-mail address from standard input: any process can see arguments"


def subject(given: str) -> UserId:
    """Raises `CommandError` for nobody, and for staff."""
    found = users.known(sys.stdin.readline().strip() if given == "-" else given)
    if found is None:
        raise CommandError(
            "no such customer: give the id, or '-' and the phone number on standard input", returncode=CANNOT_RUN
        )
    return found
