"""The import contracts of pyproject.toml hold, and each is shown to catch what it is there for."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in LINTER["contracts"]}
CONTEXTS = ["payments", "identity", "wallet", "deriv_integration", "mpesa_integration"]
INSIDE = ["domain", "application", "infrastructure", "queries", "models"]

PLANTS = [
    ("contexts", "shared_kernel.domain", "import penpay"),
    ("contexts", "wallet.application", "import payments"),
    ("contexts", "wallet.application", "import mpesa_integration"),
    ("contexts", "identity.facade", "import payments"),
    ("layers", "payments.domain", "import payments.application"),
    ("layers", "payments.application", "import payments.infrastructure"),
    ("layers", "wallet.models", "import wallet.application"),
    ("layers", "payments.facade", "import payments.api"),
    ("layers", "payments.services", ""),  # a module that has no place in the outline
    *[("edges", f"payments.{edge}", "import payments.infrastructure") for edge in ("workers", "api", "admin")],
    ("edges", "payments.management", "import payments.infrastructure"),
    ("queries", "payments.queries", "import payments.domain"),
    ("simulators", "mpesa_integration.simulator", "import mpesa_integration.infrastructure"),
    ("simulators", "deriv_integration.simulator", "import deriv_integration.models"),
    ("frameworks", "payments.domain", "import payments.models"),
    *[
        ("frameworks", f"payments.{pure}", f"import {framework}")
        for pure in ("domain", "application")
        for framework in ("django.db", "rest_framework", "celery", "redis", "httpx", "websockets")
    ],
    *[(f"inside_{context}", "penpay.planted", f"import {context}.domain") for context in CONTEXTS],
]


@pytest.fixture(scope="module")
def copied_code(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("code")
    for package in LINTER["root_packages"]:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for context in CONTEXTS:  # each module of the outline, so that a plant can be laid in any
        for module in ["facade", "queries", "models", "api", "workers", "admin", "simulator"]:
            if not (copy / context / module).is_dir():
                (copy / context / f"{module}.py").touch()
    return copy


def lint(code: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    chosen = [part for contract in contracts for part in ("--contract", contract)]
    run = "from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", run, "--no-cache", "--no-logo", *chosen]
    return subprocess.run(command, cwd=code, capture_output=True, text=True, timeout=60)


def test_every_contract_holds():
    linted = lint(ROOT)

    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_contract_has_a_plant():
    assert {contract for contract, _, _ in PLANTS} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "module", "text"), PLANTS, ids=str)
def test_a_forbidden_import_is_caught(copied_code, contract, module, text):
    place = copied_code.joinpath(*module.split("."))
    file = place / "planted.py" if place.is_dir() else place.with_suffix(".py")
    before = file.read_text() if file.exists() else None
    try:
        file.write_text(f"{before or ''}\n{text}\n")

        linted = lint(copied_code, contract)
    finally:
        file.unlink() if before is None else file.write_text(before)

    assert "1 broken" in linted.stdout, linted.stdout + linted.stderr
    assert module in linted.stdout


def test_the_inside_of_every_context_is_protected():
    there = {
        f"{context}.{module}"
        for context in CONTEXTS
        for module in INSIDE
        if (ROOT / context / module).is_dir() or (ROOT / context / f"{module}.py").exists()
    }
    protected = {module for context in CONTEXTS for module in CONTRACTS[f"inside_{context}"]["protected_modules"]}

    assert there <= protected
