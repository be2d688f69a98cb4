"""Tokens of bound Deriv logins: they run out, are refreshed one at a time, and are lost by Deriv's word alone."""

import threading
from datetime import timedelta

import pytest
from django.db import connection

from identity import models
from identity.application.deriv_tokens import DerivTokenBusy
from identity.facade import users
from identity.tests.signing_in_at_deriv import AtDeriv, asked, begins, comes_back, finishes, somebody
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.events import DerivTokenWasRefused
from shared_kernel.infrastructure.persistence import now, unit_of_work
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def at_deriv(deriv_simulator, monkeypatch):
    return AtDeriv.of(deriv_simulator, monkeypatch)


@pytest.fixture
def amina(at_deriv):
    """Somebody whose login was bound an hour ago."""
    return bound(at_deriv)


def bound(at_deriv):
    amina = somebody()
    location = at_deriv.signs_in(begins(amina))
    comes_back(location)
    assert finishes(amina, asked(location)["code"]).status_code == 201
    models.DerivLogin.objects.update(bound_at=now() - HOUR)
    return amina


def row():
    return models.DerivLogin.objects.get()


def ends(when):
    models.DerivLogin.objects.update(expires_at=now() + when)


def state_of(browser):
    return browser.get("me/deriv-login").json()["state"]


def in_the_directory(browser):
    with unit_of_work():
        return users.customer(browser.owner.id).deriv_login_state


def notes(action):
    return list(AuditLog.objects.filter(action=action).values_list("why", flat=True))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "active"),
        ({"expires_at": timedelta(0)}, "active"),  # it can be refreshed
        ({"expires_at": timedelta(0), "refresh_token": ""}, "expired"),
        ({"expires_at": HOUR, "refresh_token": ""}, "active"),
        ({"expires_at": None, "refresh_token": ""}, "active"),
        ({"lost_at": timedelta(0)}, "lost"),
        ({"lost_at": timedelta(0), "expires_at": timedelta(0), "refresh_token": ""}, "lost"),
    ],
)
def test_the_state_is_shown_and_is_what_payments_see(amina, change, state):
    at = now()
    changed = {name: at + value if isinstance(value, timedelta) else value for name, value in change.items()}
    models.DerivLogin.objects.update(**changed)

    assert state_of(amina) == state
    assert in_the_directory(amina) == state
    assert "ory_" not in amina.get("me/deriv-login").content.decode()


def test_a_token_that_lasts_is_left_alone(amina, at_deriv):
    at_deriv.tokens.keep_fresh(amina.owner.id)
    assert at_deriv.calls("refresh_token") == 0


def test_a_token_that_soon_runs_out_is_turned_over_with_its_refresh_token(amina, at_deriv):
    before = row()
    ends(timedelta(minutes=4))

    at_deriv.tokens.keep_fresh(amina.owner.id)

    after = row()
    assert after.token != before.token
    assert after.refresh_token != before.refresh_token
    assert after.expires_at
    assert after.expires_at > now() + timedelta(minutes=59)
    assert after.refreshing_until is None
    assert (after.bound_at, after.account) == (before.bound_at, before.account)
    assert at_deriv.calls("refresh_token") == 1
    assert after.token in at_deriv.served.simulator.bank.by_rest_token
    assert notes("deriv_login.refreshed") == [""]


def test_without_a_new_refresh_token_the_old_one_stays(amina, at_deriv):
    before = row().refresh_token
    at_deriv.served.simulator.gives_refresh_tokens = False
    ends(-HOUR)

    at_deriv.tokens.keep_fresh(amina.owner.id)

    assert row().refresh_token == before


def test_a_refresh_that_deriv_refuses_loses_the_login_and_the_customer_is_told(amina, at_deriv, told):
    at_deriv.forgets()
    ends(-HOUR)

    at_deriv.tokens.keep_fresh(amina.owner.id)

    assert state_of(amina) == "lost"
    assert row().refresh_token == ""
    assert notes("deriv_login.lost") == ["deriv_grant_refused"]
    [_, (_, lost)] = told()  # after the notice of the binding; on the verified phone
    assert "Bind it again" in lost
    at_deriv.tokens.keep_fresh(amina.owner.id)
    assert at_deriv.calls("refresh_token") == 1


def test_binding_anew_ends_the_loss(amina, at_deriv):
    at_deriv.forgets()
    ends(-HOUR)
    at_deriv.tokens.keep_fresh(amina.owner.id)
    assert state_of(amina) == "lost"

    location = at_deriv.signs_in(begins(amina))
    comes_back(location)

    assert finishes(amina, asked(location)["code"]).status_code == 201
    assert state_of(amina) == "active"


@pytest.mark.parametrize("fault", ["http_500_before", "lost_answer_before_effect", "not_json", "oversized"])
def test_a_refresh_of_which_nothing_is_known_changes_nothing_and_the_next_use_tries_again(amina, at_deriv, fault):
    before = row()
    ends(timedelta(minutes=4))
    at_deriv.served.arm(fault, "token", count=2)

    at_deriv.tokens.keep_fresh(amina.owner.id)  # the present token serves
    assert (row().token, row().refresh_token) == (before.token, before.refresh_token)
    ends(-HOUR)
    with pytest.raises(Unavailable):
        at_deriv.tokens.keep_fresh(amina.owner.id)
    assert state_of(amina) == "active"

    at_deriv.tokens.keep_fresh(amina.owner.id)
    assert row().token != before.token


def test_a_refresh_whose_answer_was_lost_after_it_was_made_shows_at_the_next_use(amina, at_deriv):
    """Deriv has turned the refresh token over, and takes the old one for stolen: by its word the login is lost."""
    ends(timedelta(minutes=4))
    at_deriv.served.arm("lost_answer_after_effect", "token", count=1)
    at_deriv.tokens.keep_fresh(amina.owner.id)
    assert state_of(amina) == "active"

    at_deriv.tokens.keep_fresh(amina.owner.id)

    assert state_of(amina) == "lost"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("when", [timedelta(minutes=4), -HOUR])
def test_a_refresh_is_made_once_however_many_need_it(at_deriv, when):
    amina = bound(at_deriv)
    ends(when)
    at_deriv.served.arm("slow", "token", after_s=0.5, count=1)
    start, raised = threading.Barrier(4), []

    def use():
        start.wait()
        try:
            at_deriv.tokens.keep_fresh(amina.owner.id)
        except DerivTokenBusy as busy:
            raised.append(busy)
        finally:
            connection.close()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert at_deriv.calls("refresh_token") == 1
    assert len(raised) == (0 if when > timedelta(0) else 3), "who cannot wait is told to repeat"
    assert state_of(amina) == "active"
    assert row().token in at_deriv.served.simulator.bank.by_rest_token


def test_a_refresh_whose_process_died_is_tried_again_after_a_minute(amina, at_deriv):
    ends(-HOUR)
    models.DerivLogin.objects.update(refreshing_until=now() + timedelta(seconds=30))
    with pytest.raises(DerivTokenBusy):
        at_deriv.tokens.keep_fresh(amina.owner.id)
    models.DerivLogin.objects.update(refreshing_until=now())

    at_deriv.tokens.keep_fresh(amina.owner.id)

    assert row().refreshing_until is None
    assert at_deriv.calls("refresh_token") == 1


@pytest.mark.parametrize("meanwhile", ["unbound", "bound anew"])
def test_what_is_bound_or_let_go_meanwhile_is_not_overwritten(amina, at_deriv, meanwhile):
    ends(-HOUR)
    real = at_deriv.client.refresh

    def slowly(refresh_token):
        grant = real(refresh_token)
        if meanwhile == "unbound":
            assert amina.delete("me/deriv-login").status_code == 204
        else:
            models.DerivLogin.objects.update(bound_at=now(), refreshing_until=None)
        return grant

    at_deriv.client.refresh = slowly
    before = row().token
    at_deriv.tokens.keep_fresh(amina.owner.id)

    assert row().token == ("" if meanwhile == "unbound" else before)


def test_a_frozen_customers_token_is_not_refreshed(amina, at_deriv):
    ends(-HOUR)
    models.User.objects.update(frozen_at=now())

    at_deriv.tokens.keep_fresh(amina.owner.id)

    assert at_deriv.calls("refresh_token") == 0


# --- Deriv refuses the token itself -----------------------------------------------------------------------------------


def follow(at_deriv, browser, sent_at):
    at_deriv.tokens.follow([DerivTokenWasRefused(user_id=browser.owner.id, sent_at=sent_at, occurred_at=now())])


def test_a_refused_token_that_nothing_refreshes_is_lost_once(amina, at_deriv, told):
    models.DerivLogin.objects.update(refresh_token="")

    for _ in range(3):
        follow(at_deriv, amina, now())

    assert state_of(amina) == "lost"
    assert notes("deriv_login.lost") == ["refused"]
    assert models.Notice.objects.filter(kind="deriv_login_lost").count() == 1


def test_a_refused_token_that_can_be_refreshed_is_refreshed_before_it_is_used_again(amina, at_deriv):
    follow(at_deriv, amina, now())
    assert state_of(amina) == "active"

    at_deriv.tokens.keep_fresh(amina.owner.id)

    assert at_deriv.calls("refresh_token") == 1


def test_a_token_just_refreshed_that_is_refused_is_lost(amina, at_deriv):
    models.DerivLogin.objects.update(refreshed_at=now())
    follow(at_deriv, amina, now())
    assert state_of(amina) == "lost"


def test_a_refusal_of_an_older_token_says_nothing_of_this_one(amina, at_deriv):
    models.DerivLogin.objects.update(refresh_token="")
    follow(at_deriv, amina, now() - 2 * HOUR)
    assert state_of(amina) == "active"


def test_a_refusal_of_somebody_who_has_left_is_nothing(amina, at_deriv):
    assert amina.delete("me/deriv-login").status_code == 204
    follow(at_deriv, amina, now())
    assert notes("deriv_login.lost") == []
