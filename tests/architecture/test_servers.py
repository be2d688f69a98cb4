"""The private servers of bin/test, bin/bench and bin/chaos: fresh, apart from each other, gone afterwards."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from _bootstrap import LOCAL, program

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (program("mariadbd") and program("redis-server")), reason="needs both programs")
RUN = [sys.executable, str(ROOT / "bin" / "_servers.py"), "run", "--", sys.executable, "-c"]
# It begins a child that would outlive it, prints where its servers are, and waits.
WAITS = """
import os, subprocess, time
subprocess.Popen(["sleep", "300"])
print(os.environ["DATABASE_URL"], os.environ["REDIS_URL"], flush=True)
time.sleep(300)
"""


@pytest.fixture
def begun():
    """Starts a run and gives its process and its servers' ports; every run begun is ended."""
    runs = []
    was = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what ignores it, as under nohup, hands that on

    def begin() -> tuple[subprocess.Popen[str], list[int]]:
        run = subprocess.Popen([*RUN, WAITS], stdout=subprocess.PIPE, text=True)
        runs.append(run)
        assert run.stdout
        urls = run.stdout.readline().split()
        return run, [int(url.rsplit(":", 1)[1].split("/")[0]) for url in urls]

    yield begin
    for run in runs:
        run.kill()
        run.wait()
    signal.signal(signal.SIGHUP, was)


def test_two_runs_at_once_have_servers_of_their_own(begun):
    (first, its_ports), (_, other_ports) = begun(), begun()

    assert not set(its_ports) & set(other_ports)
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=30)
    assert [is_open(port) for port in its_ports] == [False, False]
    assert [is_open(port) for port in other_ports] == [True, True]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name)
def test_no_process_and_no_data_is_left_when_a_run_is_ended(begun, how):
    run, ports = begun()
    family, data = family_of(run.pid), set((LOCAL / "runs").iterdir())
    assert len(family) >= 4  # the command, its child, and both servers

    run.send_signal(how)
    run.wait(timeout=30)

    assert [pid for pid in family if alive(pid)] == []
    assert [is_open(port) for port in ports] == [False, False]
    assert len(data - set((LOCAL / "runs").iterdir())) >= 1


def test_the_command_decides_the_exit_code():
    assert subprocess.run([*RUN, "raise SystemExit(7)"], timeout=60).returncode == 7


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(2)
        return tried.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family_of(pid: int) -> list[int]:
    """All descendants of a process."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, newest = [], [pid]
    while newest:
        newest = [child for child, parent in parents.items() if parent in newest]
        found += newest
    assert os.getpid() not in found
    return found
