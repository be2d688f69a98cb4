"""A server with its binary log on, and a migrating user without SUPER, as most managed ones are: no triggers."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import MySQLdb
import pytest
from _bootstrap import ROOT, program
from _servers import HOST, MariaDB, free_port

pytestmark = pytest.mark.skipif(program("mariadbd") is None, reason="needs mariadbd")


class Logging(MariaDB):
    """As production's MySQL is by default."""

    def command(self) -> list[str]:
        return [*super().command(), "--log-bin=binlog", "--log-bin-trust-function-creators=0"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Logging]:
    server = Logging(tmp_path / "mariadb", free_port(), password=secrets.token_urlsafe(12))
    server.start()
    try:
        as_administrator(
            server,
            "REVOKE ALL ON *.* FROM 'penpay_owner'@'127.0.0.1'",
            "GRANT ALL ON penpay.* TO 'penpay_owner'@'127.0.0.1' WITH GRANT OPTION",
        )
        yield server
    finally:
        server.stop()


def as_administrator(server: Logging, *statements: str) -> None:
    with MySQLdb.connect(unix_socket=str(server.data / "s"), user="root", password=server.password) as connection:
        for sql in statements:
            connection.cursor().execute(sql)


def migrate(server: Logging) -> "subprocess.CompletedProcess[str]":
    urls = {"DATABASE_URL": server.url("penpay"), "MIGRATION_DATABASE_URL": server.url("penpay_owner")}
    return subprocess.run(
        [sys.executable, "manage.py", "migrate", "shared_kernel", "--verbosity", "0"],
        cwd=ROOT, env=os.environ | urls, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_migrate_says_exactly_what_to_set_and_goes_on_once_it_is(server):
    stopped = migrate(server)

    assert stopped.returncode != 0
    assert "SET GLOBAL log_bin_trust_function_creators = 1;" in stopped.stderr
    assert server.password not in stopped.stderr

    as_administrator(server, "SET GLOBAL log_bin_trust_function_creators = 1")
    done = migrate(server)

    assert done.returncode == 0, done.stderr[-2000:]
    with MySQLdb.connect(
        host=HOST, port=server.port, user="penpay_owner", password=server.password, database="penpay"
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SHOW TRIGGERS LIKE 'audit_logs'")
        assert len(cursor.fetchall()) == 2
