"""`bin/chaos`: PenPay over real processes that are killed, frozen and lied to; exit 1 if a promise was broken."""

import argparse
import contextlib
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from penpay.stack import ROOT
from tests.chaos.run import Chaos, Options

sys.path.insert(0, str(ROOT / "bin"))
from _servers import MariaDB, Redis, Servers, ended_by_signals, free_port

LOGS = ROOT / ".local" / "chaos"


def main() -> int:
    """Exit 0: every promise was kept; 1: one was broken, its story is printed; 130: Ctrl-C."""
    asked = arguments().parse_args()
    quick = Options(asked.seed, 40, asked.deposits or 30, asked.withdrawals or 30, patience_s=240)
    options = Options(asked.seed, asked.minutes * 60, asked.deposits or 300, asked.withdrawals or 300)
    chaos = Chaos(quick if asked.quick else options, say)
    say(f"Seed {asked.seed}: the same one plans the same faults and blows again.")
    with tempfile.TemporaryDirectory(prefix="penpay-chaos-") as directory, ended_by_signals():
        home, password = Path(directory), secrets.token_urlsafe(12)
        servers = Servers(MariaDB(home / "mariadb", free_port(), password=password), Redis(home / "redis", free_port()))
        kept = False
        try:
            servers.start()
            kept = chaos.run(home, servers.mariadb, servers.redis)
        finally:
            servers.stop()
            if not kept:
                shutil.rmtree(LOGS, ignore_errors=True)
                with contextlib.suppress(FileNotFoundError):
                    shutil.copytree(home / "logs", LOGS)
                say(f"The processes' logs are in {LOGS.relative_to(ROOT)}")
    return 0 if kept else 1


def arguments() -> argparse.ArgumentParser:
    """What can be asked for on the command line."""
    parser = argparse.ArgumentParser(prog="bin/chaos", description="Breaks PenPay's processes while money moves.")
    parser.add_argument("--minutes", type=float, default=10, help="how long things are broken (default 10)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of faults and blows")
    parser.add_argument("--deposits", type=int, help="how many (default 300; --quick 30)")
    parser.add_argument("--withdrawals", type=int, help="how many (default 300; --quick 30)")
    parser.add_argument("--quick", action="store_true", help="forty seconds of faults, for CI")
    return parser


def say(line: str) -> None:
    """To standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
