"""What the settings refuse before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from penpay import settings

V3 = {"platform": "ws_v3", "loginid": "CR900001", "token": "s3cret-token", "currency": "USD", "rate": 180}
REST = {"platform": "rest", "agent_id": 7001, "token": "s3cret-token", "currency": "USD", "rate": 60}


def test_each_agent_gets_the_name_by_which_the_ledger_knows_it():
    agents = settings.deriv_agents([dict(V3), dict(REST), {**REST, "agent_id": "7002"}])

    assert [agent["name"] for agent in agents] == ["CR900001", "7001", "7002"]


@pytest.mark.parametrize(
    "listed",
    [
        {},
        "CR900001",
        ["CR900001"],
        [{**V3, "platform": "ws_v4"}],
        [{**V3, "loginid": ""}],
        [{**V3, "loginid": "7001"}],
        [{**V3, "platform": "rest"}],
        [{**REST, "agent_id": "CR1"}],
        [{**REST, "agent_id": 0}],
        [{**REST, "token": ""}],
        [{**V3}, {**V3}],
    ],
)
def test_an_agent_that_cannot_be_used_stops_the_start_and_its_token_is_in_no_message(listed):
    with pytest.raises(ImproperlyConfigured) as raised:
        settings.deriv_agents(listed)

    assert "s3cret" not in str(raised.value)
    assert "DERIV_AGENTS" in str(raised.value)


@pytest.mark.parametrize(("url", "client"), [("", "id"), ("http://api.derivws.com", "id"), ("https://x.example", "")])
def test_production_refuses_rest_agents_without_a_safe_address_or_an_app(monkeypatch, url, client):
    monkeypatch.setattr(settings, "PRODUCTION", True)
    monkeypatch.setattr(settings, "DERIV_REST_URL", url)
    monkeypatch.setattr(settings, "DERIV_OAUTH_CLIENT_ID", client)

    assert settings.deriv_agents([dict(V3)])
    with pytest.raises(ImproperlyConfigured, match="DERIV_REST_URL"):
        settings.deriv_agents([dict(REST)])


def test_production_refuses_a_demo_token(monkeypatch):
    monkeypatch.setattr(settings, "PRODUCTION", True)

    with pytest.raises(ImproperlyConfigured, match="token"):
        settings.deriv_agents([{**V3, "token": "demo-agent-token"}])


PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": "s" * 50,
    "ALLOWED_HOSTS": "api.example.com",
    "DATABASE_URL": "sqlite:////tmp/penpay-is-never-made.sqlite3",
    "PII_KEYS": f"a:{'1a' * 32}",
    "PII_INDEX_KEY": "2b" * 32,
    "JWT_SIGNING_KEYS": f"a:{'3c' * 32}",
    "SEAL_ANCHOR": "/var/lib/penpay/anchor",
    "SEAL_ANCHOR_KEY": "4d" * 32,
    "EMAIL_URL": "smtp+tls://penpay:s3cret-mail@mail.example.com:587/?from=no-reply@example.com",
    "SMS_URL": "africastalking://penpay:s3cret-sms@api.africastalking.com/?from=PENPAY",
}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"SEAL_ANCHOR": ""}, "SEAL_ANCHOR must be set in production"),
        ({"SEAL_ANCHOR": "anchor"}, "SEAL_ANCHOR is a directory, given from the root"),
        ({"SEAL_ANCHOR_KEY": ""}, "SEAL_ANCHOR_KEY must be set in production"),
        ({"SEAL_ANCHOR_KEY": settings.demo_key("SEAL_ANCHOR_KEY")}, "SEAL_ANCHOR_KEY must be set in production"),
        ({"SEAL_ANCHOR_KEY": "xy" * 32}, "SEAL_ANCHOR_KEY is 64 hex digits"),
        ({"SEAL_ANCHOR_KEY": "2b" * 32}, "SEAL_ANCHOR_KEY must be a key of its own"),
        ({"SEAL_ANCHOR_KEY": "1A" * 32}, "SEAL_ANCHOR_KEY must be a key of its own"),
        ({}, "MPESA_BASE_URL must be set in production"),  # what is asked for next
    ],
    ids=str,
)
def test_production_does_not_start_without_an_anchor_and_a_key_of_its_own(given, says):
    done = started(given)

    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
    assert given.get("SEAL_ANCHOR_KEY") or "4d4d" not in done.stderr


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("EMAIL_URL", ""),
        ("EMAIL_URL", "consolemail://"),
        ("EMAIL_URL", "filemail:///tmp/mails"),
        ("EMAIL_URL", "memorymail://"),
        ("EMAIL_URL", "smtp://penpay:s3cret-mail@mail.example.com/?from=a@example.com"),
        ("EMAIL_URL", "smtp+tls://mail.example.com/?from=a@example.com"),
        ("EMAIL_URL", "smtp+tls://penpay:s3cret-mail@mail.example.com"),
        ("SMS_URL", ""),
        ("SMS_URL", "console://"),
        ("SMS_URL", "memory://"),
        ("SMS_URL", "file:///tmp/texts"),
        ("SMS_URL", "africastalking://api.africastalking.com/?from=PENPAY"),
        ("SMS_URL", "africastalking://penpay:s3cret-sms@api.africastalking.com"),
    ],
)
def test_production_does_not_start_with_messages_that_reach_nobody(name, url):
    done = started({name: url})

    assert done.returncode == 1
    assert f"{name} must be" in done.stderr.splitlines()[-1]
    assert "s3cret" not in done.stderr


def started(given):
    return subprocess.run(
        [sys.executable, "-c", "import penpay.settings"],
        env={"PATH": os.environ["PATH"]} | PRODUCTION | given,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
