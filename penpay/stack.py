"""A whole PenPay on this machine, as real processes: the providers' simulators, the API, workers, beat.

The demo, the journeys and the benchmark run on it. Never in production. It knows nothing of databases and brokers:
those are in the environment that it is given.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
SIMULATORS = ("mpesa", "deriv_ws", "deriv_rest")
QUEUES = "relay,steps,sweep,default"


class NotStarted(Exception):
    """A process ended, or did not answer in time; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port that nobody holds at this moment."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port


@dataclass
class Stack:
    """`environment` names database, broker and settings; `logs` is where each process writes `<name>.log`.

    `queues` lists the queues of each worker process; `limits` keeps the simulators as strict as the providers are, and
    `seed` is of their chance and ids; None: another one at each start.
    """

    environment: Mapping[str, str]
    logs: Path
    port: int = 0
    queues: Sequence[str] = (QUEUES,)
    api_processes: int = 1
    api_threads: int = 4
    api_timeout_s: int = 30  # gunicorn ends a process that has not moved for so long
    limits: bool = True
    seed: int | None = None
    worker_options: Sequence[str] = ("--pool=solo",)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    simulators: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The environment of the processes: what was given, and where they find each other."""
        addresses = {}
        if self.simulators:
            addresses = {
                "MPESA_BASE_URL": f"http://{HOST}:{self.simulators['mpesa']}",
                "DERIV_WS_URL": f"ws://{HOST}:{self.simulators['deriv_ws']}/websockets/v3",
                "DERIV_REST_URL": f"http://{HOST}:{self.simulators['deriv_rest']}",
                "DERIV_OAUTH_AUTH_URL": f"http://{HOST}:{self.simulators['deriv_rest']}/oauth2/auth",
                "DERIV_OAUTH_TOKEN_URL": f"http://{HOST}:{self.simulators['deriv_rest']}/oauth2/token",
                "DERIV_OAUTH_RETURN_BASE_URL": self.url,
                "MPESA_CALLBACK_BASE_URL": self.url,
            }
        own = {"DJANGO_SETTINGS_MODULE": "penpay.settings", "SEAL_ANCHOR": str(self.logs.absolute() / "anchor")}
        return {**os.environ, **own, **self.environment, **addresses}

    def manage(self, *arguments: str, stdin: str = "") -> str:
        """Runs a management command to its end; its standard output. Raises `CalledProcessError`."""
        done = subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.settings,
            input=stdin,
            text=True,
            check=True,
            capture_output=True,
        )
        return done.stdout

    def start(self) -> None:
        """Simulators, API, workers and beat; returns when they answer. Raises `NotStarted`."""
        self.port = self.port or free_port()
        self.start_simulators()
        self.start_api()
        for number in range(len(self.queues)):
            self.start_worker(number)
        self.start_beat()
        self.wait_for_api()

    def start_simulators(self) -> None:
        """On free ports the first time, on the same ones after that."""
        ports = self.simulators or dict.fromkeys(SIMULATORS, 0)
        options = [f"--{name.replace('_', '-')}-port={port}" for name, port in ports.items()]
        options += [] if self.limits else ["--no-limits"]
        options += [] if self.seed is None else [f"--seed={self.seed}"]
        process = self._spawn(
            "simulators",
            [sys.executable, "manage.py", "simulators", "--json", *options],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise NotStarted(f"the simulators did not start:\n{self.tail('simulators')}")
        known = json.loads(line)
        self.simulators = {name: known[name] for name in SIMULATORS}

    def start_api(self) -> None:
        """gunicorn over `penpay.wsgi`."""
        options = [
            "--bind",
            f"{HOST}:{self.port}",
            "--workers",
            str(self.api_processes),
            "--threads",
            str(self.api_threads),
        ]
        options += [
            "--worker-class",
            "gthread",
            "--keep-alive",
            "30",
            "--timeout",
            str(self.api_timeout_s),
            "--graceful-timeout",
            "2",
            "--log-level",
            "warning",
            "--forwarder-headers",
            "",
        ]
        self._spawn("api", [sys.executable, "-m", "gunicorn", "penpay.wsgi:application", *options])

    def start_worker(self, number: int = 0) -> None:
        """A Celery worker for the queues of that number."""
        options = ["-Q", self.queues[number], "-n", f"worker{number}@{os.getpid()}", "--loglevel", "WARNING"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat", *self.worker_options]
        self._spawn(f"worker{number}", [sys.executable, "-m", "celery", "-A", "penpay", "worker", *options])

    def start_beat(self) -> None:
        """Celery's clock: the relay and the sweeper each second."""
        schedule = self.logs / "beat.schedule"
        self._spawn(
            "beat",
            [sys.executable, "-m", "celery", "-A", "penpay", "beat", "--schedule", str(schedule), "--loglevel",
            "WARNING"], )  # fmt: skip

    def wait_for_api(self, most_s: float = 60) -> None:
        """Until the API answers. Raises `NotStarted`."""
        until = time.monotonic() + most_s
        while time.monotonic() < until:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise NotStarted(f"{name} ended:\n{self.tail(name)}")
            try:
                if httpx.get(f"{self.url}/health/live", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise NotStarted(f"the API does not answer:\n{self.tail('api')}")

    def kill(self, name: str) -> None:
        """kill -9, the whole process group: what a power cut or the kernel does."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Ends everything, the API's and the workers' work in hand first."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self.processes.values()):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()

    def tail(self, name: str, most: int = 4000) -> str:
        """The end of a process's log."""
        log = self.logs / f"{name}.log"
        return log.read_text(errors="replace")[-most:] if log.exists() else ""

    def control(self, provider: str, what: str, body: Any = None, method: str = "POST") -> Any:
        """The control side of a simulator: `faults`, `books`, `customers`, `reset`, `settings`."""
        url = f"http://{HOST}:{self.simulators[provider]}/_control/{what}"
        answer = httpx.request(method, url, json=body, timeout=10)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _spawn(self, name: str, command: list[str], stdout: int | None = None) -> "subprocess.Popen[bytes]":
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                cwd=ROOT,
                env=self.settings,
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process
