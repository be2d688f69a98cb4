"""`bin/chaos` in its short form: half a minute of blows, and every promise is kept."""

import os
import secrets
import sys
from pathlib import Path

import pytest

from penpay.stack import ROOT
from tests.chaos.run import Chaos, Options

sys.path.insert(0, str(ROOT / "bin"))
from _servers import MariaDB, Redis, Servers, free_port, missing_programs


@pytest.mark.timeout(600)
def test_half_a_minute_of_chaos_breaks_no_promise(tmp_path: Path) -> None:
    if missing_programs():
        pytest.skip("mariadbd and redis-server are needed")
    servers = Servers(
        MariaDB(tmp_path / "mariadb", free_port(), password=secrets.token_urlsafe(12)),
        Redis(tmp_path / "redis", free_port()),
    )
    story: list[str] = []
    seed = int(os.environ.get("CHAOS_SEED", "3"))
    try:
        servers.start()
        chaos = Chaos(Options(seed, seconds=25, deposits=16, withdrawals=16, patience_s=180), story.append)
        kept = chaos.run(tmp_path, servers.mariadb, servers.redis)
    finally:
        servers.stop()

    assert kept, "\n".join(story)
