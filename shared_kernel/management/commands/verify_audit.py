"""manage.py verify_audit: is the audit log as it was written?"""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import Progress

from shared_kernel.facade import AUDIT_CHAIN, ChainReport, chain_check, missing_guards
from shared_kernel.management.base import Report, StaffCommand, argument, seal_number


class Command(StaffCommand):
    help = "Checks the audit log: every sealed row against its seal, the seals against their anchor, the triggers."

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from-seal", default="1", metavar="N", help="begin with seal N")

    def report(self, options: dict[str, Any]) -> Report:
        with Progress(console=Console(stderr=True), transient=True, disable=options["json"]) as bar:
            task = bar.add_task(AUDIT_CHAIN, total=None)
            chain = chain_check.check(
                AUDIT_CHAIN,
                from_seal=argument(seal_number, options["from_seal"], "--from-seal"),
                progress=lambda _, done, total: bar.update(task, completed=done, total=total),
            )
        return _told(chain, missing_guards())


def _told(chain: ChainReport, guards: list[str]) -> Report:
    findings = [{"check": "guards", "row": name, "detail": "it is missing or altered: run migrate"} for name in guards]
    findings += [{"check": "chain", "row": row, "detail": detail} for row, detail in chain.faults]
    data = {
        "ok": not findings,
        "from_seal": chain.from_seal,
        "seals": chain.seals,
        "sealed": chain.rows,
        "unsealed": chain.unsealed.count,
        "unanchored": chain.unanchored,
        "new_starts": [asdict(one) for one in chain.new_starts],
        "checks": ["guards", "chain"],
        "findings": findings,
    }
    sound = f"the audit log is as it was sealed: {chain.rows} rows, and {chain.unsealed.count} not sealed yet"
    lines = [f"{found['check']}: {found['row']}: {found['detail']}" for found in findings]
    return Report(data, [*(lines or [sound]), *map(str, chain.new_starts)], wrong=bool(findings))
