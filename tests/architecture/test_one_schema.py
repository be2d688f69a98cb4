"""MySQL and MariaDB get one schema and one SQL: the suite runs on MariaDB, production on MySQL."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps

ROOT = Path(__file__).resolve().parents[2]
CONTEXTS = ["shared_kernel", "wallet", "deriv_integration", "mpesa_integration", "identity", "payments", "penpay"]
SQL = re.compile(
    r"^\s*(/\*|\()?\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|CREATE|ALTER|DROP|TRUNCATE|GRANT|REVOKE|SET|WITH|LOCK)\s",
    re.I,
)
# What MySQL 8.4 does not know, by MariaDB's documentation of their differences.
ONLY_MARIADB = {
    "RETURNING": r"\bRETURNING\b",
    "sequences": r"\bSEQUENCE\b|\bNEXT\s+VALUE\s+FOR\b|\b(NEXTVAL|LASTVAL|SETVAL)\s*\(",
    "CREATE OR REPLACE": r"\bCREATE\s+OR\s+REPLACE\s+(?!(ALGORITHM|DEFINER|SQL|VIEW))",
    "types": r"\s(UUID|INET4|INET6|VARCHAR2|NUMBER\s*\()\s*(NOT\b|NULL\b|DEFAULT\b|PRIMARY\b|UNIQUE\b|[,)])",
    "IF EXISTS inside ALTER": r"\b(ADD|DROP|MODIFY|CHANGE)\s+(COLUMN|INDEX|KEY|CONSTRAINT|FOREIGN\s+KEY)?\s*"
    r"IF\s+(NOT\s+)?EXISTS\b",
    "IF EXISTS of an index": r"\b(CREATE|DROP)\s+(UNIQUE\s+)?INDEX\s+IF\s",
    "system versioning": r"\bSYSTEM\s+VERSIONING\b|\bFOR\s+SYSTEM_TIME\b|\bPERIOD\s+FOR\b|\bWITHOUT\s+OVERLAPS\b",
    "compound statements outside routines": r"\bBEGIN\s+NOT\s+ATOMIC\b|\bEXECUTE\s+IMMEDIATE\b",
    "WAIT": r"\bFOR\s+UPDATE\s+WAIT\b|\bWAIT\s+\d+\b|\bNOWAIT\s+(ADD|DROP)",
    "SET STATEMENT": r"\bSET\s+STATEMENT\b",
    "ROWS EXAMINED": r"\bROWS\s+EXAMINED\b",
    "functions": r"\b(MEDIAN|PERCENTILE_CONT|PERCENTILE_DISC|NVL2?|TO_CHAR|ADD_MONTHS|NATURAL_SORT_KEY|SFORMAT|CHR"
    r"|UUID_V7|JSON_EXISTS|JSON_QUERY|JSON_DETAILED|JSON_COMPACT|JSON_LOOSE|COLUMN_CREATE|COLUMN_GET)\s*\(",
    "VALUE() of a duplicate": r"\bON\s+DUPLICATE\s+KEY\s+UPDATE\b.*\bVALUE\s*\(",
    "PERSISTENT": r"\bPERSISTENT\b",
    "IGNORED indexes": r"\b(NOT\s+)?IGNORED\b",
    "comments for MariaDB": r"/\*M!",
    "collations": r"\buca1400_|\butf8mb4_\w*nopad\w*",
    "engines": r"\bENGINE\s*=?\s*(ARIA|ROCKSDB|CONNECT|SPIDER|COLUMNSTORE)\b",
}


def test_no_raw_sql_is_mariadbs_alone():
    found = [f"{file.relative_to(ROOT)}:{line}: {fault}" for file, line, sql in raw_sql() for fault in faults(sql)]

    assert found == []


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (a) VALUES (1) RETURNING id",
        "CREATE SEQUENCE s",
        "SELECT NEXTVAL(s)",
        "CREATE OR REPLACE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW SIGNAL SQLSTATE '45000'",
        "CREATE TABLE t (id UUID NOT NULL)",
        "ALTER TABLE t ADD COLUMN IF NOT EXISTS a INT",
        "CREATE INDEX IF NOT EXISTS i ON t (a)",
        "SELECT * FROM t FOR UPDATE WAIT 5",
        "SET STATEMENT max_statement_time=1 FOR SELECT 1",
        "SELECT * FROM t FOR SYSTEM_TIME ALL",
        "INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = VALUE(a)",
    ],
)
def test_sql_that_only_mariadb_has_is_seen(sql):
    assert faults(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM t WHERE a = %s ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED",
        "INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = a + VALUES(a)",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW SIGNAL SQLSTATE '45000'",
        "CREATE TABLE t (id BINARY(16) NOT NULL, uuid_of CHAR(32))",
    ],
)
def test_sql_that_both_have_passes(sql):
    assert not list(faults(sql))


def test_no_column_is_a_uuid_on_mariadb_and_text_on_mysql():
    """Django makes a UUIDField a `uuid` column on MariaDB and `char(32)` on MySQL."""
    fields = [
        field
        for context in CONTEXTS
        for model in apps.get_app_config(context).get_models()
        for field in model._meta.fields
    ]

    assert [str(field) for field in fields if field.get_internal_type() == "UUIDField"] == []


def faults(sql: str) -> Iterator[str]:
    for name, pattern in ONLY_MARIADB.items():
        if re.search(pattern, sql, re.IGNORECASE | re.DOTALL):
            yield name


def raw_sql() -> Iterator[tuple[Path, int, str]]:
    """Every text of the code that begins like SQL; what an f-string fills in is `_`. And the .sql files."""
    for directory in [*CONTEXTS, "tests"]:
        for file in (ROOT / directory).rglob("*.py"):
            if file != Path(__file__):
                yield from ((file, line, text) for line, text in texts(ast.parse(file.read_text())) if SQL.match(text))
        yield from ((file, 1, file.read_text()) for file in (ROOT / directory).rglob("*.sql"))


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of a module, joined as Python joins them."""
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)):
                yield node.lineno, text
            case ast.JoinedStr(values=parts):
                yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "_" for part in parts)
