"""manage.py data_inventory: docs/data-inventory.md, as `bin/check` compares it."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from penpay.privacy.document import markdown


class Command(BaseCommand):
    help = "Prints what personal data PenPay holds, why and for how long; with --file into a file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--file", metavar="F", help="write it there")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["file"]:
            Path(options["file"]).write_text(markdown(), encoding="utf-8")
        else:
            self.stdout.write(markdown())
