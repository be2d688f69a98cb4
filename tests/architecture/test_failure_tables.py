"""Every row of docs/failure-tables.md names tests that exist, and every test file of the failure tables is named."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLES = (ROOT / "docs/failure-tables.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
FILES = {
    f"payments/tests/test_{about}.py"
    for about in (
        "give_back",
        "holds",
        "late_credit",
        "late_payout",
        "owing",
        "payout",
        "people",
        "people_deposits",
        "taken_back",
        "withdrawal",
        "withdrawal_crashes",
        "withdrawal_rate",
    )
}


def rows(tables: str) -> list[str]:
    """The rows of the tables, without heads and rules."""
    lines = [line for line in tables.splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith("| what goes wrong")]


def missing(tables: str) -> list[str]:
    """The tests that are named and do not exist, and the rows that name none."""
    known: dict[str, set[str]] = {}
    wrong = [row for row in rows(tables) if not NAMED.search(row)]
    for file, test in NAMED.findall(tables):
        if file not in known:
            path = ROOT / file
            tree = ast.parse(path.read_text() if path.exists() else "")
            known[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if test not in known[file]:
            wrong.append(f"{file}::{test}")
    return wrong


def test_every_row_names_a_test_and_every_test_named_exists():
    assert len(rows(TABLES)) > 30
    assert missing(TABLES) == []


def test_every_file_of_the_tables_is_named():
    assert {file for file, _ in NAMED.findall(TABLES)} >= FILES


@pytest.mark.parametrize(
    "planted",
    [
        "| a row | a step | nothing |",
        "| a row | a step | `payments/tests/test_payout.py::test_that_nobody_wrote` |",
        "| a row | a step | `payments/tests/test_nowhere.py::test_a_withdrawal` |",
    ],
)
def test_a_row_without_a_test_and_a_test_that_is_not_there_are_found(planted: str):
    assert len(missing(f"{TABLES}\n{planted}\n")) == 1
