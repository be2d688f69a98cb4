"""Signing in at Deriv, end to end over real HTTP; and everybody who would bind an account that is not theirs."""

import logging
import threading
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client

from deriv_integration.simulator.oauth import challenge_of
from identity import models
from identity.tests.clients import Browser
from identity.tests.signing_in_at_deriv import AtDeriv, asked, begins, comes_back, finishes, somebody
from shared_kernel.infrastructure import http
from shared_kernel.infrastructure.logs import formatter
from shared_kernel.infrastructure.persistence import in_transaction, now
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db


@pytest.fixture
def at_deriv(deriv_simulator, monkeypatch):
    return AtDeriv.of(deriv_simulator, monkeypatch)


@pytest.fixture
def amina(at_deriv):
    return somebody()


def code_of(answer):
    return answer.json()["code"]


def audited(action):
    return list(AuditLog.objects.filter(action=action).order_by("seq"))


def bound():
    return models.DerivLogin.objects.exclude(active_for=None).count()


def test_a_customer_signs_in_at_deriv_and_hands_the_code_over(amina, at_deriv):
    url = begins(amina)
    sent = asked(url)
    assert sent["response_type"] == "code"
    assert sent["code_challenge_method"] == "S256"
    assert sent["scope"] == "payment account_manage"
    assert len(sent["state"]) == len(sent["code_challenge"]) == 43

    location = at_deriv.signs_in(url)
    page = comes_back(location)
    code = asked(location)["code"]
    assert page.status_code == 200
    assert f"<code>{code}</code>" in page.content.decode()
    assert bound() == 0, "nothing is bound by the redirect alone"
    assert at_deriv.calls() == 0, "and no token exists yet"

    answer = finishes(amina, code)
    assert answer.status_code == 201, answer.json()
    told = answer.json()
    assert told == {"platform": "rest", "account": "jane", "currency": "USD", "name": "AMINA WANJIRU OTIENO"}
    shown = amina.get("me/deriv-login").json()
    assert shown == told | {"state": "active", "expires_at": shown["expires_at"]}
    row = models.DerivLogin.objects.get()
    assert row.token.startswith("ory_at_")
    assert row.refresh_token.startswith("ory_rt_")
    assert row.expires_at
    assert timedelta(minutes=59) < row.expires_at - now() <= timedelta(hours=1)
    assert not models.DerivAuthorization.objects.exists()
    assert [row.details["platform"] for row in audited("deriv_login.bound")] == ["rest"]
    assert {r.action for r in AuditLog.objects.all()} >= {"deriv_authorization.begun", "deriv_authorization.came_back"}


def test_the_page_is_stored_nowhere_runs_nothing_and_tells_no_address(amina, at_deriv):
    page = comes_back(at_deriv.signs_in(begins(amina)))

    assert page["Cache-Control"] == "no-store"
    assert page["Referrer-Policy"] == "no-referrer"
    assert page["Content-Security-Policy"].startswith("default-src 'none'")
    assert "<script" not in page.content.decode()
    assert not page.cookies


# --- who may begin ----------------------------------------------------------------------------------------------------


def test_beginning_needs_a_sign_in_a_step_up_and_an_account_that_may_change(at_deriv):
    assert Browser().get("me/deriv-login/authorize").status_code == 401
    amina = somebody()
    models.Session.objects.update(stepped_up_at=now() - timedelta(minutes=6))
    assert code_of(amina.get("me/deriv-login/authorize")) == "step_up_required"
    amina.steps_up()
    models.User.objects.update(frozen_at=now())
    answer = amina.get("me/deriv-login/authorize")
    assert (answer.status_code, code_of(answer)) == (409, "account_frozen")
    assert not models.DerivAuthorization.objects.exists()


@pytest.mark.parametrize("site", ["cross-site", "same-site", "what"])
def test_another_site_begins_nothing_even_with_the_cookies(amina, site):
    begins(amina)
    before = models.DerivAuthorization.objects.get().state_hash

    answer = amina.http.get("/api/v1/me/deriv-login/authorize", headers={"Sec-Fetch-Site": site})

    assert (answer.status_code, code_of(answer)) == (403, "cross_site_request")
    assert models.DerivAuthorization.objects.get().state_hash == before


def test_looking_ahead_by_head_begins_nothing(amina):
    assert amina.http.head("/api/v1/me/deriv-login/authorize").status_code == 405
    assert not models.DerivAuthorization.objects.exists()


def test_a_new_one_ends_the_one_before(amina, at_deriv):
    first = at_deriv.signs_in(begins(amina))
    begins(amina)

    assert models.DerivAuthorization.objects.count() == 1
    assert comes_back(first).status_code == 410
    assert code_of(finishes(amina, asked(first)["code"])) == "deriv_authorization_not_open"


# --- the state --------------------------------------------------------------------------------------------------------


def test_a_state_is_good_once(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    assert comes_back(location).status_code == 200

    again = comes_back(location)

    assert again.status_code == 410
    assert asked(location)["code"] not in again.content.decode()
    assert len(audited("deriv_authorization.came_back")) == 1


def test_a_state_that_is_old_or_nobodys_is_refused(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    nobodys = location.replace(asked(location)["state"], "x" * 43)
    assert comes_back(nobodys).status_code == 410
    models.DerivAuthorization.objects.update(expires_at=now())

    assert comes_back(location).status_code == 410
    assert code_of(finishes(amina, asked(location)["code"])) == "deriv_authorization_not_open"
    assert bound() == at_deriv.calls() == 0


@pytest.mark.parametrize(
    "query",
    [
        "", "code=abc", "state=abc&code=abc", f"state={'x' * 43}", f"state={'x' * 43}&code=a&code=b",
        f"state={'x' * 43}&state={'y' * 43}&code=a", f"state={'x' * 43}&code=a&error=b", f"state={'x' * 44}&code=a",
        f"state={'x' * 43}%0d%0aSet-Cookie:a=b&code=a", f"state={'x' * 43}&code=a%0d%0aX-Evil:1",
        f"state={'x' * 43}&code={'a' * 2049}", f"state={'x' * 43}&code=%00", f"state={'é' * 43}&code=a",
        f"state={'x' * 43}&code=%ff%fe",
    ],
)  # fmt: skip
def test_a_malformed_return_is_400_and_injects_nothing(query):
    answer = Client().get(f"/oauth/deriv/return?{query}")

    assert answer.status_code == 400
    assert not {"X-Evil", "Set-Cookie"} & set(answer.headers)
    assert not answer.cookies


def test_a_code_with_markup_is_shown_as_text(amina):
    state = asked(begins(amina))["state"]

    page = Client().get("/oauth/deriv/return", {"state": state, "code": "<script>alert(1)</script>&\"'"})

    assert page.status_code == 200
    assert "<script" not in page.content.decode()
    assert "&lt;script&gt;" in page.content.decode()


@pytest.mark.parametrize("method", ["head", "post", "put", "delete", "options"])
def test_only_a_get_uses_a_state_up(method, amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))

    assert getattr(Client(), method)(location.replace("http://127.0.0.1:8000", "")).status_code == 405

    assert comes_back(location).status_code == 200


def test_a_customer_who_says_no_at_deriv_ends_it(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina), deny="1")
    assert asked(location)["error"] == "access_denied"

    assert comes_back(location).status_code == 200
    assert comes_back(location).status_code == 410
    assert [row.why for row in audited("deriv_authorization.denied")] == ["access_denied"]


def test_an_error_of_anybodys_words_is_neither_shown_nor_kept(amina):
    state = asked(begins(amina))["state"]

    page = Client().get("/oauth/deriv/return", {"state": state, "error": "<b>pay 0712345678</b>\r\n"})

    assert "0712345678" not in page.content.decode()
    assert [row.why for row in audited("deriv_authorization.denied")] == ["other_error"]


def test_an_account_frozen_meanwhile_gets_nothing(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    models.User.objects.update(frozen_at=now())
    assert comes_back(location).status_code == 409
    models.User.objects.update(frozen_at=None)
    assert comes_back(location).status_code == 200
    models.User.objects.update(frozen_at=now())

    assert code_of(finishes(amina, asked(location)["code"])) == "account_frozen"
    assert at_deriv.calls() == 0


# --- who may finish ---------------------------------------------------------------------------------------------------


def test_who_lures_somebody_into_signing_in_has_not_the_code_and_binds_nothing(at_deriv):
    """Login CSRF the wrong way round: the attacker begins, the victim signs in at Deriv. Even with the same name."""
    attacker = somebody()
    lured = begins(attacker)  # sent to the victim, who trusts Deriv's own page

    victims = comes_back(at_deriv.signs_in(lured))

    assert victims.status_code == 200
    assert "Give it to nobody" in victims.content.decode()
    assert bound() == 0
    for guess in ("", "code-", "x" * 53):
        finishes(attacker, guess)
    assert bound() == 0
    assert at_deriv.calls() == 0, "no token of the victim's was ever made"
    assert code_of(attacker.get("me/deriv-login")) == "deriv_login_not_found"


def test_an_attackers_own_code_is_not_bound_to_a_victim(at_deriv):
    """Login CSRF the usual way: the attacker's code, brought to the victim's session, or under the victim's state."""
    attacker, victim = somebody(), somebody(device="phone-2")
    own = at_deriv.signs_in(begins(attacker))
    comes_back(own)
    assert code_of(finishes(victim, asked(own)["code"])) == "deriv_authorization_not_open"

    state = asked(begins(victim))["state"]  # even if they learnt it
    comes_back(own.replace(asked(own)["state"], state))
    answer = finishes(victim, asked(own)["code"])

    assert (answer.status_code, code_of(answer)) == (422, "deriv_grant_refused")  # PKCE: made for another verifier
    assert bound() == 0


def test_another_session_of_the_same_customer_does_not_finish_it(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)
    elsewhere = Browser()
    assert elsewhere.enrol(amina.owner.email, device="laptop").status_code == 200
    elsewhere.steps_up()

    assert code_of(finishes(elsewhere, asked(location)["code"])) == "deriv_authorization_not_open"
    assert finishes(amina, asked(location)["code"]).status_code == 201


def test_five_wrong_codes_end_it(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)

    tries = [finishes(amina, "wrong") for _ in range(5)]

    assert {code_of(answer) for answer in tries} == {"wrong_deriv_code"}
    assert [answer.json()["tries_left"] for answer in tries] == [4, 3, 2, 1, 0]
    assert code_of(finishes(amina, asked(location)["code"])) == "deriv_authorization_not_open"
    assert at_deriv.calls() == 0


def test_a_code_is_exchanged_once(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)
    code = asked(location)["code"]
    assert finishes(amina, code).status_code == 201

    assert code_of(finishes(amina, code)) == "deriv_authorization_not_open"
    assert at_deriv.calls() == 1


def test_a_code_before_it_came_back_by_the_redirect_is_none(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))

    assert code_of(finishes(amina, asked(location)["code"])) == "deriv_authorization_not_open"
    assert at_deriv.calls() == 0


def test_finishing_needs_csrf_and_a_step_up(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)
    body = {"platform": "rest", "code": asked(location)["code"]}

    assert code_of(amina.post("me/deriv-login", body, csrf=False)) == "csrf_failed"
    models.Session.objects.update(stepped_up_at=None)
    assert code_of(amina.post("me/deriv-login", body)) == "step_up_required"
    assert at_deriv.calls() == 0


@pytest.mark.parametrize(
    "body",
    [
        {"platform": "rest"},
        {"platform": "rest", "token": "a", "code": "b"},
        {"platform": "rest", "code": "a b"},
        {"platform": "rest", "code": "a\r\nb"},
        {"platform": "rest", "code": "a" * 2049},
        {"platform": "rest", "code": "a", "redirect_uri": "http://evil.example"},
        {"platform": "rest", "code": "a", "state": "b"},
    ],
)
def test_a_malformed_body_is_400(amina, body):
    assert amina.post("me/deriv-login", body).status_code == 400


def test_on_v3_there_is_no_code_to_exchange(amina):
    assert code_of(finishes(amina, "code", platform="ws_v3")) == "deriv_login_unsuitable"


# --- whose account it is ----------------------------------------------------------------------------------------------


def test_another_name_at_deriv_is_refused_and_its_tokens_are_not_kept(amina, at_deriv):
    at_deriv.served.customer("CR100001", name="BRIAN KIPTOO")
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)

    answer = finishes(amina, asked(location)["code"])

    assert (answer.status_code, code_of(answer)) == (422, "deriv_name_mismatch")
    assert bound() == 0
    assert not models.DerivLogin.objects.exists()
    assert [row.why for row in audited("deriv_login.refused")] == ["deriv_name_mismatch"]


def test_an_account_of_another_customer_is_refused(amina, at_deriv):
    somebody(device="phone-2", deriv_account="jane", platform="rest")
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)

    answer = finishes(amina, asked(location)["code"])

    assert (answer.status_code, code_of(answer)) == (409, "deriv_login_taken")


def test_a_grant_without_a_scope_is_refused(amina, at_deriv):
    at_deriv.served.arm("odd_answer", "token", scope="payment", count=1)
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)

    answer = finishes(amina, asked(location)["code"])

    assert (answer.status_code, code_of(answer)) == (422, "deriv_scopes_missing")
    assert "account_manage" in answer.json()["detail"]
    assert bound() == 0


# --- Deriv's token endpoint -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("http_500_before", {}),
        ("http_500_after", {}),
        ("lost_answer_before_effect", {}),
        ("lost_answer_after_effect", {}),
        ("not_json", {}),
        ("oversized", {}),
        ("redirects", {"to": "/_control/books"}),
        ("error", {"code": "invalid_client", "status": 401}),
        ("error", {"code": "slow_down", "status": 429}),
        ("odd_answer", {"access_token": ""}),
        ("odd_answer", {"access_token": "a b"}),
        ("odd_answer", {"access_token": ["a"]}),
        ("odd_answer", {"access_token": "a\r\nX-Evil: 1"}),
        ("odd_answer", {"expires_in": "3600"}),
        ("odd_answer", {"expires_in": 0}),
        ("odd_answer", {"expires_in": True}),
        ("odd_answer", {"expires_in": 10**12}),
        ("odd_answer", {"token_type": "mac"}),
        ("odd_answer", {"refresh_token": 7}),
        ("odd_answer", {"scope": ["payment", "account_manage"]}),
    ],
)
def test_whatever_the_token_endpoint_does_nothing_is_bound_and_one_begins_anew(amina, at_deriv, fault, options):
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)
    at_deriv.served.arm(fault, "token", count=1, **options)

    answer = finishes(amina, asked(location)["code"])

    assert (answer.status_code, code_of(answer)) == (503, "deriv_unavailable")
    assert bound() == 0
    assert at_deriv.calls() == 1
    assert code_of(finishes(amina, asked(location)["code"])) == "deriv_authorization_not_open"
    again = at_deriv.signs_in(begins(amina))
    comes_back(again)
    assert finishes(amina, asked(again)["code"]).status_code == 201


def test_a_token_endpoint_that_is_slow_is_given_up(amina, at_deriv, monkeypatch):
    quick = {"connect": 1, "read": 0.2, "write": 1, "pool": 1}
    monkeypatch.setattr("deriv_integration.infrastructure.oauth.TIMEOUT", quick)
    at_deriv.served.arm("slow", "token", after_s=2, count=1)
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)

    answer = finishes(amina, asked(location)["code"])

    assert (answer.status_code, code_of(answer)) == (503, "deriv_unavailable")
    assert "did not answer" in answer.json()["detail"]


def test_a_code_that_ran_out_at_deriv_is_refused(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)
    at_deriv.served.simulator.clock.advance(601)

    answer = finishes(amina, asked(location)["code"])

    assert (answer.status_code, code_of(answer)) == (422, "deriv_grant_refused")


def test_no_provider_is_called_in_a_transaction(amina, at_deriv):
    at_deriv.client._outside = lambda: not in_transaction()  # the test's own transaction is one
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)

    with pytest.raises(RuntimeError, match="transaction"):
        finishes(amina, asked(location)["code"])


def test_nothing_a_customer_sends_becomes_an_address(amina, at_deriv, monkeypatch):
    """SSRF: `code` and all else stand in a form; where it goes are settings."""
    called, real = [], http.exchange

    def noted(*asked, **more):
        called.append(asked[:3])
        return real(*asked, **more)

    monkeypatch.setattr(http, "exchange", noted)
    state = asked(begins(amina))["state"]
    evil = "http://169.254.169.254/latest?redirect_uri=http://evil.example/&grant_type=password"
    Client().get(f"/oauth/deriv/return?{urlencode({'state': state, 'code': evil})}")

    assert code_of(finishes(amina, evil)) == "deriv_grant_refused"
    assert called == [("POST", f"{at_deriv.served.rest_url}/oauth2/token", "")]


# --- what is kept, and what is told -----------------------------------------------------------------------------------


def test_no_state_code_verifier_or_token_stands_in_clear_in_database_or_logs(amina, at_deriv, caplog):
    caplog.set_level(logging.DEBUG)
    url = begins(amina)
    verifier = models.DerivAuthorization.objects.get().verifier
    assert challenge_of(verifier) == asked(url)["code_challenge"]
    location = at_deriv.signs_in(url)
    comes_back(location)
    before = everything()
    finishes(amina, asked(location)["code"])
    row = models.DerivLogin.objects.get()
    secrets = [asked(url)["state"], verifier, asked(location)["code"], row.token, row.refresh_token]

    stored = before + everything()
    ours = [record for record in caplog.records if record.name[:5] not in {"httpx", "httpc"}]  # the test's own browser
    logged = "\n".join(formatter().format(record) for record in ours)

    assert not [secret for secret in secrets if secret in stored]
    assert not [secret for secret in secrets if secret in logged]


def everything():
    with connection.cursor() as cursor:
        text = ""
        for table in ("deriv_authorizations", "deriv_logins", "audit_logs", "domain_events", "users", "sessions"):
            cursor.execute(f"SELECT * FROM {table}")
            text += repr(cursor.fetchall())
        return text


def test_a_return_that_fails_unforeseen_is_logged_without_its_query(amina, at_deriv, monkeypatch, caplog):
    location = at_deriv.signs_in(begins(amina))

    def breaks(*_):
        raise ValueError("on purpose")

    monkeypatch.setattr("identity.api.deriv_return.deriv_authorizations", type("X", (), {"came_back": breaks})())
    answer = comes_back(location)

    assert answer.status_code == 500
    lines = "\n".join(formatter().format(record) for record in caplog.records)
    assert "on purpose" in lines
    assert asked(location)["code"] not in lines
    assert asked(location)["state"] not in lines


def test_letting_the_login_go_forgets_both_tokens_and_what_was_begun(amina, at_deriv):
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)
    finishes(amina, asked(location)["code"])
    begins(amina)

    assert amina.delete("me/deriv-login").status_code == 204

    row = models.DerivLogin.objects.get()
    assert (row.token, row.refresh_token, row.expires_at) == ("", "", None)
    assert not models.DerivAuthorization.objects.exists()


# --- all at once ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("step", ["return", "finish"])
def test_two_at_the_same_moment_are_one(at_deriv, step):
    amina = somebody()
    location = at_deriv.signs_in(begins(amina))
    if step == "finish":
        comes_back(location)
    answers, start = [], threading.Barrier(2)
    browsers = [amina, amina.twin()]

    def once(browser):
        start.wait()
        try:
            answers.append(
                (comes_back(location) if step == "return" else finishes(browser, asked(location)["code"])).status_code
            )
        finally:
            connection.close()

    threads = [threading.Thread(target=once, args=(browser,)) for browser in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == ([200, 410] if step == "return" else [201, 409])
    assert at_deriv.calls() == (0 if step == "return" else 1)
    assert bound() == (0 if step == "return" else 1)
