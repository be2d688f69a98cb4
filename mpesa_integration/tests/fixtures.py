"""M-Pesa's simulator as a fixture: a real server on a free port. Loaded as a pytest plugin, for journeys too."""

from dataclasses import fields
from uuid import uuid4

import httpx
import pytest

from mpesa_integration.simulator.server import MpesaSimulator
from shared_kernel.simulator import serving


def quick() -> MpesaSimulator:
    """Without what costs time, and without the provider's rate limit and duplicate guard."""
    return MpesaSimulator(prompt_s=0.02, result_s=0.02, rate_per_s=None, duplicate_guard=False)


@pytest.fixture(scope="session")
def _mpesa_server():
    simulator = quick()
    with serving(simulator.app) as place:
        simulator.base_url = f"http://{place}"
        with httpx.Client(base_url=simulator.base_url) as http:
            yield simulator, http


@pytest.fixture
def mpesa_simulator(_mpesa_server, settings):
    """M-Pesa with empty books, quick and without its guards (tests switch them on); the settings point to it."""
    simulator, http = _mpesa_server
    plain = quick()
    for field in fields(MpesaSimulator):
        if field.init:
            setattr(simulator, field.name, getattr(plain, field.name))
    simulator.consumer_key = f"key-{uuid4().hex}"  # so that no test meets a token of another
    http.post("/_control/reset").raise_for_status()
    settings.MPESA_BASE_URL = simulator.base_url
    settings.MPESA_CONSUMER_KEY = simulator.consumer_key
    settings.MPESA_CONSUMER_SECRET = simulator.consumer_secret
    settings.MPESA_SHORTCODE = simulator.shortcode
    settings.MPESA_PASSKEY = simulator.passkey
    settings.MPESA_B2C_SHORTCODE = simulator.b2c_shortcode
    settings.MPESA_INITIATOR_NAME = simulator.initiator_name
    settings.MPESA_INITIATOR_PASSWORD = simulator.initiator_password
    settings.MPESA_CALLBACK_BASE_URL = "http://127.0.0.1:9"  # nobody; tests that want callbacks say where
    settings.MPESA_CALLBACK_ALLOWED_IPS = ["127.0.0.1", "::1"]
    yield simulator
    http.post("/_control/reset")
