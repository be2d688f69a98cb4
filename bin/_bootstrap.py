"""What the scripts beside it start with: a supported Python, the system's packages, a virtual environment.

Standard library only, for it runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
PYTHONS = ("3.11", "3.12", "3.13")
# Debian's names. The -core packages hold the server without the service that apt would start.
MARIADB, REDIS = ("mariadb-server-core", "mariadb-client-core"), ("redis-server",)
POLICY = Path("/usr/sbin/policy-rc.d")


class CannotRun(SystemExit):
    """Ends the script with exit code 2 and the one thing that its user can do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        print(message, file=sys.stderr, flush=True)


def dev_python(also: Sequence[str] = ()) -> Path:
    """The Python of `.venv`, with everything of requirements-dev.txt: what bin/test, bin/check and bin/bench run on.

    `also` are packages of the system that the caller needs, so that a user who must install them is told only once.
    """
    return _environment(ROOT / ".venv", "requirements-dev.txt", mysql=True, also=also)


def demo_python() -> Path:
    """The Python of `.local/venv`: what production installs, less the MySQL driver and so without a compiler."""
    return _environment(LOCAL / "venv", "requirements.txt", mysql=False)


def program(name: str) -> str | None:
    """The path of a system program, or None. Looks into the sbin directories, which a user's PATH may leave out."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))


def install(packages: Sequence[str]) -> None:
    """Install Debian packages, starting no service. Raises `CannotRun` with the line to type where it may not."""
    if not packages:
        return
    names = " ".join(packages)
    line = f"apt-get update && apt-get install -y --no-install-recommends {names}"
    if program("apt-get") is None:
        raise CannotRun(f"Please install what Debian calls: {names}")
    if os.geteuid() != 0:
        raise CannotRun(f"Some packages of the system are missing. Please run:\n  sudo sh -c '{line}'")
    say(f"Installing {names}")
    with _no_service_started():
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(["sh", "-c", line], env=quiet, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"{done.stdout[-2000:]}{done.stderr[-2000:]}\nThis failed: {line}")


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` against the same script started twice; waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _environment(venv: Path, requirements: str, *, mysql: bool, also: Sequence[str] = ()) -> Path:
    """Bring `venv` up to date with the lock file, unless its stamp says that it is. Returns its Python."""
    python, noted = venv / "bin" / "python", venv / ".stamp"
    wanted = _pinned(ROOT / requirements, mysql=mysql)
    stamp = hashlib.sha256(wanted.encode()).hexdigest()
    with lock(LOCAL / f"{venv.name}.lock"):
        works = _is_supported(python)
        if works and noted.exists() and noted.read_text() == stamp:
            install(also)
            return python
        install([*_missing_for_venv(), *(_missing_for_mysqlclient() if mysql else []), *also])
        started = time.monotonic()
        say(f"Installing {requirements} into {venv.relative_to(ROOT)} (once; a minute or two)")
        if not works:
            _run(sys.executable, "-m", "venv", "--clear", str(venv))
        pinned = venv / "pinned.txt"
        pinned.write_text(wanted)
        pip = (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes")
        _run(*pip, "--requirement", str(pinned))
        noted.write_text(stamp)
        say(f"Installed in {time.monotonic() - started:.0f} s")
    return python


def _is_supported(python: Path) -> bool:
    """Whether a virtual environment's Python still runs (its system's may be gone) and is one of `PYTHONS`."""
    ask = "import sys; print(*sys.version_info[:2], sep='.')"
    try:
        answer = subprocess.run([str(python), "-c", ask], capture_output=True, text=True)
    except OSError:
        return False
    return answer.stdout.strip() in PYTHONS


def _pinned(requirements: Path, *, mysql: bool) -> str:
    """The lock file's text less its comments, and without mysqlclient and its hashes if `mysql` is false."""
    text = re.sub(r"^ *#.*\n", "", requirements.read_text(), flags=re.MULTILINE)
    return text if mysql else re.sub(r"^mysqlclient==.*\n(?:[ ]+.*\n)*", "", text, flags=re.MULTILINE)


def _missing_for_venv() -> list[str]:
    return [] if importlib.util.find_spec("ensurepip") else ["python3-venv"]


def _missing_for_mysqlclient() -> list[str]:
    """Debian packages without which mysqlclient does not build here."""
    compiler = (sysconfig.get_config_var("CC") or "gcc").split()[0]
    pkg_config = program("pkg-config")
    names = ("mysqlclient", "mariadb", "libmariadb")
    found = pkg_config and any(subprocess.run([pkg_config, "--exists", name]).returncode == 0 for name in names)
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return [
        *([] if program(compiler) else ["gcc", "libc6-dev"]),
        *([] if pkg_config else ["pkg-config"]),
        *([] if found else ["default-libmysqlclient-dev"]),
        *([] if headers else ["python3-dev"]),
    ]


@contextmanager
def _no_service_started() -> Iterator[None]:
    """Debian asks policy-rc.d before it starts a package's service. One that is there already stays."""
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"{done.stdout[-2000:]}{done.stderr[-4000:]}\nThis failed: {' '.join(command)}")


def _supported_python() -> None:
    """Start the script again under a Python that PenPay supports, if this one is not."""
    if "{}.{}".format(*sys.version_info) in PYTHONS:
        return
    for version in reversed(PYTHONS):
        found = shutil.which(f"python{version}")
        if found and _is_supported(Path(found)):
            os.execv(found, [found, *sys.argv])
    raise CannotRun(f"PenPay runs on Python {', '.join(PYTHONS)}; this is {sys.version.split()[0]}.")


_supported_python()
