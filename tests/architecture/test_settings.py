"""Every setting that the code reads is explained in .env.example, and reaches the containers."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READ = re.compile(r"""\b(?:env\.\w+|env|required|secret|secure|within|key_ring|of_sign_in)\(\s*"([A-Z][A-Z0-9_]+)\"""")
EXPLAINED = re.findall(r"^#([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
NOT_FOR_CONTAINERS = {"USE_PYMYSQL", "SAGA_TIME_SCALE", "CRASH_POINT"}


def settings_read() -> set[str]:
    return set(READ.findall((ROOT / "penpay" / "settings.py").read_text()))


def test_every_setting_is_explained():
    assert len(settings_read()) > 20
    assert settings_read() - set(EXPLAINED) == set()


def test_no_setting_is_explained_twice():
    assert len(EXPLAINED) == len(set(EXPLAINED))


def test_every_setting_reaches_the_containers():
    compose = (ROOT / "docker-compose.yml").read_text()
    handed_on = set(re.findall(r"^ +([A-Z][A-Z0-9_]+):", compose, re.MULTILINE))

    assert settings_read() - handed_on - NOT_FOR_CONTAINERS == set()


def test_no_line_of_the_example_is_active():
    """Copied as it is, .env.example changes nothing: an empty value would stand in the way of the defaults."""
    assert [line for line in (ROOT / ".env.example").read_text().splitlines() if line and line[0] != "#"] == []
