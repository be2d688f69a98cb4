"""What a demo or a test run needs to begin with: a rate, an opening balance on the agent account, staff to look at it
all.

Safe to repeat. Refused in production.
"""

import json
from argparse import ArgumentParser
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from identity.facade import code_of, staff_sign_in, step_at
from payments.facade import rates
from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as, now, unit_of_work
from wallet.facade import deriv_agent, ledger, mpesa_utility, mpesa_working

RATE, MARGIN_BPS = Decimal("129.50"), 190
# As much as the simulated M-Pesa begins with, so that the watch over balances finds the two alike.
UTILITY, WORKING = Money(10_000_000_00, Currency.KES), Money(1_000_000_00, Currency.KES)
STAFF, EMAIL = "admin", "admin@example.com"
MEMBERS = {
    "support": "support",
    "officer": "compliance officer",
    "mlro": "compliance manager",
    "mlro2": "compliance manager",
    "finance": "finance",
    "finance2": "finance",
    "ops": "ops",
    "auditor": "auditor",
}  # one of each group, and two where two have to agree; each signs in as <name>@example.com


class Command(BaseCommand):
    help = "A valid rate, the agent accounts' opening balances, and a member of staff who can sign in to /admin/."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--float", default="100000.00", help="USD on each Deriv agent account")
        parser.add_argument(
            "--staff-password",
            default="",
            help="also creates admin@example.com, and a member of each group, with this password",
        )
        parser.add_argument(
            "--staff-secret",
            default="",
            help="enrols this TOTP secret (base32) as the second factor of each of them; without it they enrol "
            "their own when they first sign in",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("demo data is never made in production", returncode=2)
        at = now()
        opening = Money.parse(options["float"], Currency.USD)
        with acting_as(Context("system:create_demo_data")):
            rates.set_rate(
                RATE, MARGIN_BPS, valid_from=at, valid_until=at + timedelta(days=30), set_by="demo:maker",
                approved_by="demo:checker" )  # fmt: skip
            for agent in settings.DERIV_AGENTS:
                with suppress(Conflict), unit_of_work():  # posted before: it has its opening balance
                    ledger.post_opening(deriv_agent(agent["name"]), opening, reference=f"demo:{agent['name']}", at=at)
            for account_of, held in ((mpesa_utility, UTILITY), (mpesa_working, WORKING)):
                with suppress(Conflict), unit_of_work():
                    account = account_of(settings.MPESA_B2C_SHORTCODE)
                    ledger.post_opening(account, held, reference=f"demo:{account}", at=at)
        staff = self._staff(options["staff_password"]) if options["staff_password"] else None
        if staff and options["staff_secret"]:
            with acting_as(Context("system:create_demo_data")):
                self._enrol(options["staff_secret"])
        told = {"rate": str(RATE), "margin_bps": MARGIN_BPS, "float": options["float"], "staff": staff}
        self.stdout.write(json.dumps(told) if options["json"] else f"Demo data is there: {told}")

    def _staff(self, password: str) -> str:
        users: Any = get_user_model()
        there = set(users.objects.filter(username__in=[STAFF, *MEMBERS]).values_list("username", flat=True))
        if STAFF not in there:
            users.objects.create_superuser(username=STAFF, email=EMAIL, password=password)
        for name, group in MEMBERS.items():
            if name not in there:
                users.objects.create_staff(name, f"{name}@example.com", password, group)
        return EMAIL

    def _enrol(self, secret: str) -> None:
        """As their own sign-in would, but with a secret that the demo can tell. Who has a factor keeps it."""
        users: Any = get_user_model()
        enrolling = replace(staff_sign_in, new_secret=lambda: secret)
        for id in users.objects.filter(username__in=[STAFF, *MEMBERS], is_staff=True).values_list("pk", flat=True):
            try:
                factor = enrolling.enrol(id)
                enrolling.confirm(id, factor.id, code_of(secret, step_at(now()) - 1))  # of before: now's stays free
            except Conflict:
                continue
            except ValueError:
                raise CommandError("--staff-secret is base32, such as 32 of A-Z and 2-7", returncode=2) from None
