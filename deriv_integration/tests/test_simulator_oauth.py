"""The simulated Deriv's OAuth server is as strict as the contract: clients, redirect URIs, PKCE, codes, tokens."""

from typing import Any

import httpx
import pytest

from deriv_integration.simulator.oauth import challenge_of
from deriv_integration.tests.callers import Caller, a_rest_deriv

BACK, VERIFIER = "http://127.0.0.1:8000/oauth/deriv/return", "v" * 43
ASKED = {
    "response_type": "code", "client_id": "demo-client", "redirect_uri": BACK, "scope": "payment account_manage",
    "state": "a-state-of-ours", "code_challenge": challenge_of(VERIFIER), "code_challenge_method": "S256",
    "customer": "jane",
}  # fmt: skip


@pytest.fixture
def deriv():
    with a_rest_deriv() as served:
        yield served


def asks(deriv, **change: Any) -> httpx.Response:
    """Opens the page; None leaves a parameter out."""
    given = {name: value for name, value in (ASKED | change).items() if value is not None}
    return httpx.get(f"http://{deriv.address}/oauth2/auth", params=given)


def brought(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 303, answer.text
    target = httpx.URL(answer.headers["Location"])
    assert str(target).startswith(f"{BACK}?")
    return dict(target.params)


def trades(deriv, **form: str) -> httpx.Response:
    given = {"grant_type": "authorization_code", "client_id": "demo-client"} | form
    return httpx.post(f"http://{deriv.address}/oauth2/token", data=given)


def exchanges(deriv, code: str, **change: str) -> httpx.Response:
    return trades(deriv, **({"code": code, "redirect_uri": BACK, "code_verifier": VERIFIER} | change))


def refused(answer: httpx.Response, error: str = "invalid_grant", status: int = 400) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def lives(deriv, token: str) -> bool:
    return Caller(deriv.address, token).get("/account/v1/nickname").status_code == 200


def test_the_redirect_carries_the_state_and_a_code_that_is_worth_a_token(deriv):
    told = brought(asks(deriv))
    assert told["state"] == "a-state-of-ours"

    answer = exchanges(deriv, told["code"])

    granted = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert (granted["token_type"], granted["expires_in"]) == ("bearer", 3600)
    assert granted["scope"] == "account_manage payment"
    assert lives(deriv, granted["access_token"])


@pytest.mark.parametrize(
    "change",
    [{"client_id": "another"}, {"client_id": None}, {"redirect_uri": f"{BACK}/"}, {"redirect_uri": "http://evil.example"},
     {"redirect_uri": BACK.replace("http", "https")}, {"redirect_uri": None}],
)  # fmt: skip
def test_to_an_unknown_client_or_address_nobody_is_redirected(deriv, change):
    answer = asks(deriv, **change)
    assert answer.status_code == 400
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"state": "short"}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"deny": "1"}, "access_denied"),
    ],
)
def test_what_else_is_wrong_is_told_by_the_redirect(deriv, change, error):
    told = brought(asks(deriv, **change))
    assert told["error"] == error
    assert "code" not in told


def test_without_a_customer_there_is_a_page_that_asks(deriv):
    answer = asks(deriv, customer=None, state="<script>alert(1)</script>")
    assert answer.status_code == 200
    assert "<form>" in answer.text
    assert "<script>" not in answer.text
    assert asks(deriv, customer="nobody").status_code == 404


@pytest.mark.parametrize(
    "change",
    [{"code_verifier": "w" * 43}, {"code_verifier": "v" * 42}, {"code_verifier": "v" * 42 + "!"}, {"code_verifier": ""},
     {"redirect_uri": f"{BACK}/"}, {"code": "code-another"}],
)  # fmt: skip
def test_a_code_is_worth_nothing_without_its_verifier_and_address_and_is_used_up_by_a_try(deriv, change):
    code = brought(asks(deriv))["code"]
    refused(exchanges(deriv, **({"code": code} | change)))
    if "code" not in change:
        refused(exchanges(deriv, code))


def test_a_code_that_comes_twice_ends_the_token_of_the_first(deriv):
    code = brought(asks(deriv))["code"]
    token = exchanges(deriv, code).json()["access_token"]
    assert lives(deriv, token)

    refused(exchanges(deriv, code))

    assert not lives(deriv, token)


def test_codes_and_tokens_run_out(deriv):
    first, second = brought(asks(deriv))["code"], brought(asks(deriv))["code"]
    token = exchanges(deriv, first).json()["access_token"]
    deriv.clock.advance(601)
    refused(exchanges(deriv, second))
    assert lives(deriv, token)
    deriv.clock.advance(3000)

    assert not lives(deriv, token)


def test_a_refresh_turns_both_tokens_over_and_an_old_one_ends_them_all(deriv):
    first = exchanges(deriv, brought(asks(deriv))["code"]).json()
    second = trades(deriv, grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert not lives(deriv, first["access_token"])
    assert lives(deriv, second["access_token"])

    refused(trades(deriv, grant_type="refresh_token", refresh_token=first["refresh_token"]))

    assert not lives(deriv, second["access_token"])
    refused(trades(deriv, grant_type="refresh_token", refresh_token=second["refresh_token"]))


def test_the_token_endpoint_takes_forms_of_known_clients_for_known_grants(deriv):
    refused(trades(deriv, client_id="another"), "invalid_client", 401)
    refused(trades(deriv, grant_type="password"), "unsupported_grant_type")
    url = f"http://{deriv.address}/oauth2/token"
    refused(httpx.post(url, json={"grant_type": "authorization_code"}), "invalid_request")
    assert httpx.get(url).status_code == 404


def test_the_control_side_registers_clients_and_sets_how_long_tokens_last(deriv):
    at = f"http://{deriv.address}/_control"
    httpx.post(f"{at}/clients", json={"client_id": "ours", "redirect_uris": [BACK]}).raise_for_status()
    httpx.post(f"{at}/settings", json={"token_ttl_s": 60, "gives_refresh_tokens": False}).raise_for_status()

    code = brought(asks(deriv, client_id="ours"))["code"]
    granted = exchanges(deriv, code, client_id="ours").json()

    assert granted["expires_in"] == 60
    assert "refresh_token" not in granted
