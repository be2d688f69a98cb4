"""The rates in the settings: one lane a credential, and no limit only where nothing is at stake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from penpay import settings as module

AGENTS = [
    {"platform": "ws_v3", "token": "t", "loginid": "CR1", "currency": "USD"},
    {"platform": "rest", "token": "t", "agent_id": 2, "currency": "USD"},
    {"platform": "rest", "token": "t", "agent_id": 3, "currency": "USD", "rate": 40},
    {"platform": "ws_v3", "token": "t", "loginid": "CR4", "currency": "USD", "rate": 0},
]


def rates(**environment):
    """What a process with these settings has."""
    script = "import json; from shared_kernel.facade import budgets; print(json.dumps([budgets.rates, budgets.shares]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {script}"],
        env=os.environ | environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_each_credential_has_a_lane_with_its_rate_or_the_one_its_platform_is_known_for():
    assert rates(DERIV_AGENTS=json.dumps(AGENTS), MPESA_RATE_PER_MINUTE="120", REDIS_URL="redis://127.0.0.1:1/0") == [
        {"mpesa": 120, "deriv:CR1": 180, "deriv:2": 60, "deriv:3": 40, "deriv:CR4": None},
        8,
    ]


def test_nought_is_no_limit_and_without_a_redis_one_process_has_everything():
    told, shares = rates(MPESA_RATE_PER_MINUTE="0", REDIS_URL="")

    assert (told["mpesa"], shares) == (None, 1)


@pytest.mark.parametrize("rate", [-1, "60", 1.5, True, None])
def test_a_rate_that_is_no_count_stops_the_start(rate):
    with pytest.raises(ImproperlyConfigured, match="MPESA_RATE_PER_MINUTE"):
        module.calls_a_minute("MPESA_RATE_PER_MINUTE", rate)


def test_production_does_not_start_without_a_limit(monkeypatch):
    monkeypatch.setattr(module, "PRODUCTION", True)

    with pytest.raises(ImproperlyConfigured, match="DERIV_AGENTS"):
        module.calls_a_minute("DERIV_AGENTS[].rate", 0)
