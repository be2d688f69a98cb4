"""The lock files fit pyproject.toml, and a change of either side is noticed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _lock import LOCKS, ROOT, is_fresh


@pytest.fixture
def project(tmp_path) -> Path:
    for name in ["pyproject.toml", *LOCKS]:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_files_are_what_pyproject_asks_for(lock):
    assert is_fresh(ROOT, lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_changed_dependency_makes_the_lock_stale(project, lock):
    change(project / "pyproject.toml", '"django>=5.2.19,<5.3"', '"django>=5.2.19,<6.1"')

    assert not is_fresh(project, lock)


def test_a_changed_tool_makes_only_the_developers_lock_stale(project):
    change(project / "pyproject.toml", '"pytest-django>=4.14,<5"', '"pytest-django>=4.13,<5"')

    assert is_fresh(project, "requirements.txt")
    assert not is_fresh(project, "requirements-dev.txt")


def test_a_changed_setting_of_a_tool_leaves_the_locks_fresh(project):
    change(project / "pyproject.toml", "line-length = 120", "line-length = 100")

    assert all(is_fresh(project, lock) for lock in LOCKS)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_pin_edited_by_hand_makes_the_lock_stale(project, lock):
    change(project / lock, "\ndjango==", "\ndjango==9")

    assert not is_fresh(project, lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock):
    pins = (ROOT / lock).read_text().replace("\\\n", " ").splitlines()

    assert [pin for pin in pins if pin[:1].isalpha() and "--hash=sha256:" not in pin] == []


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_all_that_production_loads_is_in_its_lock():
    """What only developers' tools bring is missing there: kombu imports packaging and does not ask for it."""
    settings = {
        "APP_ENV": "testing", "DJANGO_SETTINGS_MODULE": "penpay.settings", "DATABASE_URL": "sqlite:///:memory:",
        "MIGRATION_DATABASE_URL": "", "REDIS_URL": "", "CELERY_BROKER_URL": "memory://",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.architecture.production_modules"]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=True)
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)

    loaded = {_normal(name) for name in json.loads(run.stdout.splitlines()[-1])}

    assert {"celery", "gunicorn", "packaging"} <= loaded
    assert loaded <= {_normal(name) for name in pins}


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()
