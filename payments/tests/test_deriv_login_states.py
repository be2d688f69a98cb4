"""A Deriv login whose token has run out or is lost: told before money moves, and never taken for "not debited"."""

from datetime import timedelta
from typing import Any

import pytest

from deriv_integration.simulator.oauth import Family
from identity.facade import deriv_tokens
from payments.domain.transaction import TransactionStatus as S
from payments.tests.factories import a_float, a_quote
from payments.tests.test_api import Caller
from payments.tests.withdrawing import REST, V3, DerivLogin, Face, LedgerEntry, Withdrawer, drive, nothing_moves
from shared_kernel.domain.events import Event
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import DomainEvent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("open_for_business")]

GONE = [
    ({"expires_at": timedelta(seconds=-1)}, "deriv_login_expired"),
    ({"lost_at": timedelta(seconds=-1)}, "deriv_login_lost"),
]


def changes(caller: Caller, **columns: Any) -> None:
    """Columns of their login; a time from now on."""
    at = now()
    changed = {name: at + value if isinstance(value, timedelta) else value for name, value in columns.items()}
    DerivLogin.objects.filter(user_id=caller.id).update(**changed)


def signed_in(at_deriv: Any, **columns: Any) -> tuple[Withdrawer, Family]:
    """Somebody who bound jane's account by signing in an hour ago; and what they consented to at Deriv."""
    caller, server = Withdrawer(REST), at_deriv.simulator.rest.oauth
    jane = at_deriv.simulator.bank.nicknames["jane"]
    family = Family("demo-client", jane, frozenset({"payment", "account_manage"}))
    server.families.append(family)
    told = server._issue(family)
    login = DerivLogin.objects.get(user_id=caller.id)
    login.token, login.refresh_token = told["access_token"], told["refresh_token"]
    login.expires_at, login.bound_at = now() + timedelta(hours=1), now() - timedelta(hours=1)
    login.save()
    changes(caller, **columns)
    return caller, family


def refused(answer: Any, code: str, status: int = 409) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.json()
    if status == 409:
        assert "bind your Deriv account again" in answer.json()["detail"]


@pytest.mark.parametrize(("columns", "code"), GONE)
@pytest.mark.parametrize("face", [V3, REST], ids=["v3", "rest"])
def test_withdrawals_are_refused_before_anything_moves(columns, code, face: Face, at_deriv):
    caller = Withdrawer(face)
    quote, sent = caller.coded(at_deriv)
    changes(caller, **columns)

    with nothing_moves(at_deriv):
        refused(caller.quote("10.00", "USD", type="withdrawal"), code)
        refused(caller.verify(quote), code)
        refused(caller.withdraw(quote, sent), code)

    changes(caller, expires_at=None, lost_at=None)
    assert caller.withdraw(quote, sent).status_code == 202


@pytest.mark.parametrize("face", [V3, REST], ids=["v3", "rest"])
def test_deposits_are_refused_only_where_deriv_disowned_the_login(face: Face, at_deriv):
    """None goes by the customer's token: whose sign-in has run out can be paid to all the same."""
    caller = Withdrawer(face)
    a_float(agent=REST.agent)
    deposit = a_quote(caller.id).id
    changes(caller, lost_at=timedelta(seconds=-1))

    refused(caller.quote("1300.00", "KES"), "deriv_login_lost")
    refused(caller.deposit(deposit), "deriv_login_lost")

    changes(caller, lost_at=None, expires_at=timedelta(seconds=-1))
    assert caller.quote("1300.00", "KES").status_code == 201
    assert caller.deposit(deposit).status_code == 202


@pytest.mark.parametrize("columns", [{"expires_at": timedelta(0)}, {"expires_at": timedelta(minutes=4)}])
def test_a_token_that_runs_out_is_refreshed_before_deriv_is_asked_for_a_code(columns, at_deriv):
    caller, family = signed_in(at_deriv, **columns)
    before = family.access

    caller.coded(at_deriv)

    login = DerivLogin.objects.get(user_id=caller.id)
    assert login.token == family.access != before
    assert login.refresh_token == family.refresh


def test_a_token_that_runs_out_between_code_and_order_is_refreshed_before_the_debit(at_deriv):
    caller, family = signed_in(at_deriv)
    quote, code = caller.coded(at_deriv)
    changes(caller, expires_at=timedelta(seconds=-1))
    at_deriv.simulator.rest.oauth._revoke(family.access)  # as its end does

    withdrawal = caller.withdrawn(quote, code)

    assert drive(withdrawal).status == S.COMPLETED
    assert LedgerEntry.objects.filter(transaction_id=withdrawal, purpose="withdrawal_debited").count() == 1


def test_while_a_token_that_has_run_out_cannot_be_refreshed_a_repeat_gets_the_first_answer_and_nothing_new_begins(
    at_deriv,
):
    caller, _ = signed_in(at_deriv)
    quote, code = caller.coded(at_deriv)
    first = caller.withdraw(quote, code, key="a-key")
    another = caller.offer()
    changes(caller, expires_at=timedelta(seconds=-1))
    at_deriv.arm("http_500_before", "token")

    again = caller.withdraw(quote, code, key="a-key")

    assert (again.status_code, again.json()) == (202, first.json())
    with nothing_moves(at_deriv):
        refused(caller.withdraw(another, code), "deriv_unavailable", 503)
        refused(caller.verify(another), "deriv_unavailable", 503)


def test_a_consent_taken_away_at_deriv_is_noticed_by_the_refresh(at_deriv):
    caller, _ = signed_in(at_deriv)
    quote = caller.offer()
    at_deriv.simulator.rest.oauth.revoke_all(at_deriv.simulator.bank.nicknames["jane"])
    changes(caller, expires_at=timedelta(0))

    refused(caller.verify(quote), "deriv_login_lost")
    assert not at_deriv.simulator.codes.sent


@pytest.mark.parametrize("face", [V3, REST], ids=["v3", "rest"])
def test_a_token_that_deriv_refuses_when_asked_for_a_code_is_lost(face, at_deriv):
    caller = Withdrawer(face)
    quote = caller.offer()
    caller.bind("revoked-at-deriv")

    refused(caller.verify(quote), "deriv_token_refused", 422)

    assert caller.get("me/deriv-login").json()["state"] == "lost"
    refused(caller.verify(quote), "deriv_login_lost")


def test_a_scope_that_is_missing_is_no_loss(at_deriv):
    caller = Withdrawer(REST)
    quote = caller.offer()
    at_deriv.customer("CR100001", rest_token="narrow", rest_scopes=["payment"])
    caller.bind("narrow")

    refused(caller.verify(quote), "deriv_token_refused", 422)

    assert caller.get("me/deriv-login").json()["state"] == "active"


@pytest.mark.parametrize("face", [V3, REST], ids=["v3", "rest"])
def test_a_token_refused_for_a_debit_fails_it_and_the_login_is_lost_once_the_event_is_followed(face, at_deriv):
    caller = Withdrawer(face)
    quote, code = caller.coded(at_deriv)
    withdrawal = caller.withdrawn(quote, code)
    caller.bind("revoked-at-deriv")

    assert drive(withdrawal).status == S.FAILED

    assert not LedgerEntry.objects.filter(transaction_id=withdrawal).exists()
    follow_refusals()
    assert caller.get("me/deriv-login").json()["state"] == "lost"
    refused(caller.quote("10.00", "USD", type="withdrawal"), "deriv_login_lost")


def follow_refusals() -> int:
    """As the relay delivers them; how many there were."""
    rows = list(DomainEvent.objects.filter(type="DerivTokenWasRefused"))
    deriv_tokens.follow([Event.from_payload(row.type, row.payload) for row in rows])
    return len(rows)


def test_a_token_that_dies_while_the_debit_is_unknown_never_says_that_nothing_was_debited(at_deriv):
    """Deriv took the debit, the answer was lost, and the customer's token is revoked: the agent's wallet decides."""
    caller, _ = signed_in(at_deriv)
    quote, code = caller.coded(at_deriv)
    at_deriv.arm("lost_answer_after_effect", "withdraw", platform="rest", count=1)
    at_deriv.simulator.pending_s = 0.5
    withdrawal = caller.withdrawn(quote, code)
    drive(withdrawal, S.DERIV_DEBIT_SENT)
    at_deriv.simulator.rest.oauth.revoke_all(at_deriv.simulator.bank.nicknames["jane"])
    changes(caller, lost_at=timedelta(0))

    assert drive(withdrawal).status == S.COMPLETED
    assert LedgerEntry.objects.filter(transaction_id=withdrawal, purpose="withdrawal_debited").count() == 1
    assert follow_refusals() == 0
