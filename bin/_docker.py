"""MySQL and Redis in throwaway Docker containers: for bin/test, where the programs cannot be had otherwise."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from _bootstrap import CannotRun, program, say
from _servers import ended_by_signals, mariadb_answers, redis_answers

MYSQL = (
    "mysql:8.4",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_bin",
    "--skip-log-bin",
    "--max-connections=300",
    "--innodb-flush-log-at-trx-commit=2",
    "--default-time-zone=+00:00",
)
# As in _servers.py: the tests make databases of their own, and `migrate` gives the runtime user its rights in them.
USERS = """\
CREATE USER 'penpay_owner'@'%' IDENTIFIED BY '{password}', 'penpay'@'%' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO 'penpay_owner'@'%' WITH GRANT OPTION;
"""
START_S = 180


@dataclass
class Containers:
    settings: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return self.settings


def better_than_installing() -> bool:
    """Whether nothing can be installed here, but a Docker engine answers."""
    if os.geteuid() == 0 and program("apt-get"):
        return False
    return program("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@contextlib.contextmanager
def containers(*, mariadb: bool = True, redis: bool = True) -> Iterator[Containers]:
    """The wanted servers on free ports of 127.0.0.1; removed at the end of the block."""
    started = Containers()
    with ended_by_signals(), contextlib.ExitStack() as stack:
        if mariadb:
            password = secrets.token_urlsafe(16)
            root = ("--env", f"MYSQL_ROOT_PASSWORD={password}", "--env", "MYSQL_DATABASE=penpay")
            name, port = _started(stack, mariadb_answers, 3306, *root, *MYSQL)
            sql = USERS.format(password=password)
            _docker("exec", "--env", f"MYSQL_PWD={password}", name, "mysql", "--user=root", "--execute", sql)
            server = f"{password}@127.0.0.1:{port}/penpay"
            started.settings["DATABASE_URL"] = f"mysql://penpay:{server}"
            started.settings["MIGRATION_DATABASE_URL"] = f"mysql://penpay_owner:{server}"
        if redis:
            _, port = _started(stack, redis_answers, 6379, "redis:7", "redis-server", "--save", "")
            url = f"redis://127.0.0.1:{port}"
            started.settings |= {"REDIS_URL": f"{url}/0", "CELERY_BROKER_URL": f"{url}/1"}
        yield started


def _started(
    stack: contextlib.ExitStack, answers: Callable[[int], bool], port: int, *arguments: str
) -> tuple[str, int]:
    """Run a container until the stack unwinds; its id, and the port of this machine, once the server behind answers."""
    say(f"Starting {next(a for a in arguments if a.startswith(('mysql:', 'redis:')))} in Docker")
    name = _docker("run", "--detach", "--rm", "--publish", f"127.0.0.1::{port}", *arguments)
    stack.callback(subprocess.run, ["docker", "rm", "--force", "--volumes", name], capture_output=True)
    here = int(_docker("port", name, str(port)).rpartition(":")[2])
    until = time.monotonic() + START_S
    while not answers(here):
        if time.monotonic() > until:
            raise CannotRun(f"The container does not answer:\n{_docker('logs', '--tail', '20', name)}")
        time.sleep(0.2)
    return name, here


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"docker {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()
