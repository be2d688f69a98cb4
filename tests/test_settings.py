"""What the settings refuse before anything starts."""

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
