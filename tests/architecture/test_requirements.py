"""The lock files fit pyproject.toml, and a change of either side is noticed."""

import shutil
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
