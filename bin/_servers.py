"""Private MariaDB and Redis servers: data of their own, free ports on 127.0.0.1, nothing of the system's touched.

    python3 bin/_servers.py run [--durable] -- COMMAND...   COMMAND with the servers' URLs in its environment

bin/test, bin/bench and bin/chaos use `running()`, which leaves no process behind; bin/services lets them last.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from _bootstrap import LOCAL, MARIADB, REDIS, ROOT, CannotRun, install, lock, program

HOST = "127.0.0.1"
START_S, STOP_S = 60, 30
RUNS = LOCAL / "runs"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class NotStarted(Exception):
    """A server ended, or did not answer in time; the message holds the end of its log."""


@dataclass
class Server:
    """One server process over `data`, which outlives it: stop, start again, and all is there on the same port."""

    data: Path
    port: int
    lasting: bool = False  # goes on when its starter ends, as bin/services wants it

    def start(self) -> None:
        """Returns once the server answers. Raises `NotStarted`."""
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(), cwd=self.data, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=None if self.lasting else _killed_with_parent,
            )  # fmt: skip
        self.pid_file.write_text(str(process.pid))
        until = time.monotonic() + START_S
        while not self.answers():
            if process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise NotStarted(f"{self.command()[0]} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """End the process and wait for it. `signal.SIGKILL` is a power cut."""
        pid = self.pid
        if pid:
            os.kill(pid, sign)
            if not _wait(lambda: self.pid is None, STOP_S):
                os.kill(pid, signal.SIGKILL)
                _wait(lambda: self.pid is None, STOP_S)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.pid_file.unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """The running process, or None. A number that another process has by now is not taken for ours."""
        try:
            pid = int(self.pid_file.read_text())
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            here = Path(f"/proc/{pid}/cwd")
            os.kill(pid, 0)
            ours = here.resolve(strict=True) == self.data.resolve() if Path("/proc/self").exists() else True
        except (OSError, ValueError):
            return None
        return pid if ours else None

    @property
    def log(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    @property
    def pid_file(self) -> Path:
        return self.data.parent / f"{self.data.name}.pid"

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError


@dataclass
class MariaDB(Server):
    """`durable`: every commit is on disk before it is answered; otherwise a crash of the machine may lose a second."""

    password: str = ""
    durable: bool = False

    def start(self) -> None:
        if not (self.data / "mysql").is_dir():
            self._create()
        users = self.data / "users.sql"
        users.touch(mode=0o600)
        users.write_text(USERS.replace("PASSWORD", self.password))
        super().start()

    def url(self, user: str) -> str:
        return f"mysql://{user}:{self.password}@{HOST}:{self.port}/penpay"

    def command(self) -> list[str]:
        """The socket is a relative name in the data directory: a path to one may have 107 bytes at most."""
        return [
            _found("mariadbd"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--port={self.port}",
            f"--bind-address={HOST}",
            "--socket=s",
            "--pid-file=pid",
            f"--tmpdir={self.data}",  # servers of several runs take the same names for temporary tables
            f"--init-file={self.data / 'users.sql'}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--max-connections=300",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_bin",
            "--default-time-zone=+00:00",
            "--innodb-lock-wait-timeout=20",
            "--innodb-log-file-size=128M",
            "--innodb-buffer-pool-size=256M",
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 2}",
            f"--innodb-doublewrite={'ON' if self.durable or self.lasting else 'OFF'}",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]

    def answers(self) -> bool:
        return mariadb_answers(self.port)

    def _create(self) -> None:
        """Make the data directory. A space in a path confuses mariadb-install-db, a shell script: copied afterwards."""
        with tempfile.TemporaryDirectory(prefix="penpay-") as made:
            command = [_found("mariadb-install-db"), "--no-defaults", f"--datadir={made}/data", "--skip-test-db"]
            command += ["--auth-root-authentication-method=normal", "--innodb-log-file-size=16M", f"--tmpdir={made}"]
            command += ["--user=root"] if os.geteuid() == 0 else []
            done = subprocess.run(command, capture_output=True, text=True, cwd=made)
            if done.returncode:
                raise NotStarted(f"mariadb-install-db failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            shutil.copytree(f"{made}/data", self.data, dirs_exist_ok=True)


# Run at every start. The owner may do everything, for the tests make databases of their own; production's owns one. The
# runtime user gets its rights from `migrate`, table by table, here as there.
USERS = """\
CREATE DATABASE IF NOT EXISTS penpay;
CREATE USER IF NOT EXISTS 'penpay_owner'@'127.0.0.1', 'penpay'@'127.0.0.1';
ALTER USER 'root'@'localhost' IDENTIFIED BY 'PASSWORD';
ALTER USER 'penpay_owner'@'127.0.0.1' IDENTIFIED BY 'PASSWORD';
ALTER USER 'penpay'@'127.0.0.1' IDENTIFIED BY 'PASSWORD';
GRANT ALL ON *.* TO 'penpay_owner'@'127.0.0.1' WITH GRANT OPTION;
REVOKE ALL ON *.* FROM 'penpay'@'127.0.0.1';
"""


@dataclass
class Redis(Server):
    """`lasting` keeps its data on disk; otherwise nothing is written."""

    def url(self, database: int) -> str:
        return f"redis://{HOST}:{self.port}/{database}"

    def command(self) -> list[str]:
        keep = ["--save", "60 1"] if self.lasting else ["--save", "", "--appendonly", "no"]
        return [_found("redis-server"), "--port", str(self.port), "--bind", HOST, "--dir", str(self.data), *keep]

    def answers(self) -> bool:
        return redis_answers(self.port)


@dataclass
class Servers:
    """Those of the two that are wanted, and the settings under which PenPay finds them."""

    mariadb: MariaDB | None
    redis: Redis | None

    @property
    def wanted(self) -> list[MariaDB | Redis]:
        return [server for server in (self.mariadb, self.redis) if server]

    def environment(self) -> dict[str, str]:
        settings = {}
        if self.mariadb:
            settings["DATABASE_URL"] = self.mariadb.url("penpay")
            settings["MIGRATION_DATABASE_URL"] = self.mariadb.url("penpay_owner")
        if self.redis:
            settings["REDIS_URL"] = self.redis.url(0)
            settings["CELERY_BROKER_URL"] = self.redis.url(1)
        return settings

    def start(self) -> None:
        """A port that somebody took since it was chosen is chosen again."""
        for server in self.wanted:
            for attempt in range(3):
                try:
                    server.start()
                    break
                except NotStarted:
                    if attempt == 2 or _is_free(server.port):
                        raise
                    server.port = free_port()

    def stop(self, sign: int = signal.SIGTERM) -> None:
        for server in self.wanted:
            server.stop(sign)


def missing_programs(*, mariadb: bool = True, redis: bool = True) -> list[str]:
    """The Debian packages of the servers that are wanted and not there."""
    wanted = [*([("mariadbd", MARIADB)] if mariadb else []), *([("redis-server", REDIS)] if redis else [])]
    return [package for name, packages in wanted if program(name) is None for package in packages]


@contextlib.contextmanager
def running(*, durable: bool = False, mariadb: bool = True, redis: bool = True, name: str = "run") -> Iterator[Servers]:
    """Fresh servers for as long as the block lasts; then they, every process begun in it and their data are gone.

    SIGTERM and SIGHUP end the block too, and the servers end with this process even if it is killed. Installs the
    servers' programs where it may, else raises `CannotRun`.
    """
    install(missing_programs(mariadb=mariadb, redis=redis))
    _adopt_orphans()
    directory, held = _claimed_directory(name)
    password = secrets.token_urlsafe(16)
    servers = Servers(
        MariaDB(directory / "mariadb", free_port(), password=password, durable=durable) if mariadb else None,
        Redis(directory / "redis", free_port()) if redis else None,
    )
    with held, ended_by_signals():
        try:
            servers.start()
            yield servers
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            _end_children({server.pid for server in servers.wanted})
            servers.stop(signal.SIGKILL)
            shutil.rmtree(directory, ignore_errors=True)


def run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run `command` at the project's root and return its exit code. What ends us reaches it as one Ctrl-C."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, preexec_fn=_interrupted_with_parent)
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                if not (sys.stdin and sys.stdin.isatty()):  # a terminal has sent it to the command as well
                    process.send_signal(signal.SIGINT)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)


def mariadb_answers(port: int) -> bool:
    """MySQL and MariaDB greet first, and only once their init file has run."""
    return len(_ask(port, b"")) == 5


def redis_answers(port: int) -> bool:
    return _ask(port, b"PING\r\n") == b"+PONG"


def _ask(port: int, question: bytes) -> bytes:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(question)
            return connection.recv(5)
    except OSError:
        return b""


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind((HOST, 0))
        return int(chosen.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True


def _found(name: str) -> str:
    path = program(name)
    if path is None:
        raise CannotRun(f"{name} is not installed")
    return path


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _killed_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _interrupted_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _adopt_orphans() -> None:
    """What a command leaves running becomes our child, so that `_end_children` finds it."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _end_children(spared: set[int | None]) -> None:
    """End every child but those spared, and then their children, which become ours as they are orphaned."""
    started = time.monotonic()
    while (strays := [pid for pid in _children() if pid not in spared]) and time.monotonic() < started + 10:
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < started + 5 else signal.SIGKILL)
        time.sleep(0.1)


def _children() -> list[int]:
    """The living processes whose parent we are; the dead ones are laid to rest."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state == "Z":
                os.waitpid(int(entry.name), os.WNOHANG)
            elif int(parent) == os.getpid():
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, which works even if a shell began us with it ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, end),
    }
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup asked us to outlive the terminal
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _claimed_directory(name: str) -> tuple[Path, TextIO]:
    """A new directory and the file whose lock says that its run lives; those of runs that were killed are removed."""
    with lock(LOCAL / "runs.lock"):
        RUNS.mkdir(exist_ok=True)
        for other in RUNS.glob("*/alive"):
            with contextlib.suppress(OSError), other.open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other.parent, ignore_errors=True)
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=RUNS))
        held = (directory / "alive").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    return directory, held


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command beside private MariaDB and Redis servers.")
    parser.add_argument("action", choices=["run"])
    parser.add_argument("--durable", action="store_true", help="innodb_flush_log_at_trx_commit=1")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    with running(durable=asked.durable) as servers:
        return run([part for part in asked.command if part != "--"], servers.environment())


if __name__ == "__main__":
    raise SystemExit(main())
