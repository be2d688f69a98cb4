"""requirements.txt and requirements-dev.txt: what pyproject.toml asks for, resolved for every Python, files by hash.

One is fresh while its seal fits both what pyproject.toml asks and what stands below the seal. New releases elsewhere do
not make it stale; a changed dependency does, and so does an edit by hand.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-dev.txt")
SEAL = "# sealed "
HEAD = "# Made by `bin/check --lock` from pyproject.toml; not for editing.\n"


def asked(root: Path, requirements: str) -> dict[str, Any]:
    """The part of pyproject.toml that decides what is in `requirements`."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    wanted = {
        "python": project["requires-python"],
        "dependencies": sorted(project["dependencies"]),
        "mysql": sorted(extras["mysql"]),
    }
    if requirements == "requirements-dev.txt":
        wanted |= {"pymysql": sorted(extras["pymysql"]), "dev": sorted(pyproject["dependency-groups"]["dev"])}
    return wanted


def seal(root: Path, requirements: str, pins: str) -> str:
    text = json.dumps(asked(root, requirements), sort_keys=True) + pins
    return f"{HEAD}{SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def is_fresh(root: Path, requirements: str) -> bool:
    text = (root / requirements).read_text()
    pins = text.split("\n", 2)[2] if text.startswith(HEAD) else text
    return text == seal(root, requirements, pins) + pins


def resolve(requirements: str, python: str, *, upgrade: bool) -> None:
    """Write `requirements` anew with `python`'s uv; without `upgrade`, pins that still fit stay."""
    file = ROOT / requirements
    extras = {"requirements.txt": ["--extra", "mysql"]}
    extras["requirements-dev.txt"] = ["--all-extras", "--group", "dev", "--constraint", "requirements.txt"]
    command = [python, "-m", "uv", "pip", "compile", "pyproject.toml", *extras[requirements]]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--quiet"]
    command += ["--output-file", requirements, *(["--upgrade"] if upgrade else [])]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    pins = file.read_text().removeprefix(HEAD)
    file.write_text(seal(ROOT, requirements, pins) + pins)


if __name__ == "__main__":
    stale = [lock for lock in LOCKS if not is_fresh(ROOT, lock)]
    raise SystemExit(f"not what pyproject.toml asks for, run bin/check --lock: {', '.join(stale)}" if stale else 0)
