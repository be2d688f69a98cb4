"""The commands over sagas, as staff type them."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from deriv_integration.facade import deriv, ws_v3
from mpesa_integration.facade import mpesa
from payments import models
from payments.domain.transaction import FINAL, NEXT, TransactionStatus as S, TransactionType
from payments.facade import SAGAS, deposits, transactions
from payments.tests.factories import a_float, a_stored_deposit, a_stored_withdrawal
from shared_kernel.domain.outcome import Accepted, Unknown
from shared_kernel.domain.requests import Leg
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog, DomainEvent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _float():
    a_float()


@pytest.fixture
def run(capsys):
    """Runs a command with `--json`; its exit code and the object that it printed."""

    def run(*words):
        code: int | str | None = 0
        try:
            call_command(words[0], *map(str, words[1:]), "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return run


def shown(status=S.DERIV_TRANSFER_SENT, **given):
    """A deposit that a person was shown."""
    deposit = a_stored_deposit(status, **given)
    with unit_of_work():
        [read] = transactions.get_many([deposit.id], TransactionType.DEPOSIT)
        read.need_attention("transfer_unknown", at=now())
        deposits.save([read], ())
    return deposit


def row(deposit):
    return models.Transaction.objects.get(pk=deposit.id)


def state():
    return list(models.Transaction.objects.values()), AuditLog.objects.count(), DomainEvent.objects.count()


# --- resume_saga ------------------------------------------------------------------------------------------------------


def test_a_resumed_deposit_goes_back_to_where_it_came_from_with_who_and_why_in_the_audit_log(run):
    deposit = shown(S.AWAITING_MPESA)

    code, told = run("resume_saga", deposit.id, "--why", "M-Pesa's book is back", "--staff", "7")

    assert (code, told["resumed_to"], told["status"]) == (0, "AWAITING_MPESA", "AWAITING_MPESA")
    assert row(deposit).status == "AWAITING_MPESA"
    last = AuditLog.objects.filter(target_id=str(deposit.id)).latest("seq")
    assert (last.before, last.after, last.actor, last.why) == (
        "NEEDS_ATTENTION", "AWAITING_MPESA", "staff:7", "M-Pesa's book is back",
    )  # fmt: skip


def test_a_resumed_deposit_goes_on_with_its_steps_at_once(run, deriv_at_simulator):
    deposit = shown(S.MPESA_CONFIRMED)

    code, told = run("resume_saga", deposit.id, "--why", "Deriv is back")

    assert (code, told["resumed_to"], told["status"]) == (0, "MPESA_CONFIRMED", "COMPLETED")
    assert deriv_at_simulator.received() == [985]


def test_a_resumed_deposit_with_an_unknown_transfer_asks_and_sends_nothing_again(run, deriv_at_simulator):
    deposit = shown(S.DERIV_TRANSFER_SENT)
    transfer = deriv.new_transfer(
        deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, deposit.agent, deposit.payout, at=now()
    )
    with unit_of_work():
        deriv.record([transfer])
        deriv.record_outcomes([(transfer, Unknown("timeout"))])

    code, told = run("resume_saga", deposit.id, "--why", "look again")

    assert (code, told["status"]) == (0, "DERIV_TRANSFER_SENT")
    assert deriv_at_simulator.received() == []


def test_a_dry_run_says_where_it_would_go_and_changes_nothing(run):
    deposit = shown()
    before = state()

    code, told = run("resume_saga", deposit.id, "--why", "x", "--dry-run")

    assert (code, told["resumed_to"], told["dry_run"]) == (0, "DERIV_TRANSFER_SENT", True)
    assert state() == before


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_a_deposit_that_needs_no_attention_is_not_resumed(run, dry_run):
    deposit = a_stored_deposit(S.COMPLETED)
    before = state()

    code, told = run("resume_saga", deposit.id, "--why", "x", *dry_run)

    assert code == (1 if dry_run else 2)
    assert told.get("resumed_to") is None
    assert state() == before


@pytest.mark.parametrize("command", [["resume_saga", "--why", "x"], ["query_provider"]])
@pytest.mark.parametrize(("id", "said"), [(str(new_id()), "no such"), ("12", "not understood")])
def test_an_id_that_is_nobody_s_ends_with_two_and_says_so(run, command, id, said):
    name, *more = command
    code, told = run(name, id, *more)

    assert code == 2
    assert said in told["error"]


def test_a_reason_must_be_given(run):
    deposit = shown()

    assert run("resume_saga", deposit.id, "--why", "  ")[0] == 2
    with pytest.raises(CommandError):
        call_command("resume_saga", str(deposit.id))
    assert row(deposit).status == "NEEDS_ATTENTION"


def test_people_are_told_in_a_sentence(capsys):
    deposit = shown()

    call_command("resume_saga", str(deposit.id), "--why", "x", "--dry-run")

    assert capsys.readouterr().out.strip() == f"{deposit.id}: would go back to DERIV_TRANSFER_SENT"


# --- query_provider ---------------------------------------------------------------------------------------------------


def with_attempts(deposit):
    """An accepted prompt and a transfer of unknown outcome."""
    prompt = mpesa.new_request(deposit.id, Leg.STK_PUSH, 1, deposit.phone, deposit.amount, at=now())
    transfer = deriv.new_transfer(
        deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, deposit.agent, deposit.payout, at=now()
    )
    with unit_of_work():
        mpesa.record([prompt])
        deriv.record([transfer])
    return prompt, transfer


def test_both_providers_are_asked_about_each_attempt_and_nothing_changes(run, mpesa_simulator, deriv_at_simulator):
    deposit = a_stored_deposit(S.DERIV_TRANSFER_SENT)
    prompt, transfer = with_attempts(deposit)
    outcome = mpesa.send(prompt, give_up_at=time.monotonic() + 5)
    assert isinstance(outcome, Accepted)
    with unit_of_work():
        mpesa.requests_of([deposit.id], [(prompt, outcome)])
    deriv.send(transfer, give_up_at=time.monotonic() + 5)
    time.sleep(0.1)  # the customer pays
    before = state(), requests()

    code, told = run("query_provider", deposit.id)

    assert (code, told["status"]) == (0, "DERIV_TRANSFER_SENT")
    says = {(one["leg"], one["call"]): one["says"] for one in told["attempts"]}
    [movement] = mpesa_simulator.books.movements
    assert says[("stk_push", "query")] == "done"
    assert movement["id"] in says[("stk_push", "pull")]
    assert says[("deriv_credit", "find")].startswith("found ")
    assert (state(), requests()) == before


def requests():
    with connection.cursor() as cursor:
        for table in ("mpesa_requests", "deriv_transfers"):
            cursor.execute(f"SELECT * FROM {table}")
        return cursor.fetchall()


def test_what_providers_do_not_know_or_can_not_say_is_told_as_it_is(run, mpesa_simulator, deriv_at_simulator):
    deposit = a_stored_deposit(S.DERIV_TRANSFER_SENT)
    with_attempts(deposit)

    _, told = run("query_provider", deposit.id)

    says = {one["call"]: one["says"] for one in told["attempts"]}
    assert says["query"] == "no answer: no_checkout_request_id"
    assert says["pull"] == "no payment"
    assert says["find"].startswith("not ")


def test_the_answer_holds_no_personal_data(run, capsys, mpesa_simulator, deriv_at_simulator):
    deposit = a_stored_deposit(S.DERIV_TRANSFER_SENT)
    with_attempts(deposit)

    _, told = run("query_provider", deposit.id)
    call_command("query_provider", str(deposit.id))

    for text in (json.dumps(told), capsys.readouterr().out):
        assert deposit.phone.number[3:] not in text
        assert deposit.login.account not in text


def test_a_deposit_without_attempts_asks_nobody(run):
    code, told = run("query_provider", a_stored_deposit().id)

    assert (code, told["attempts"]) == (0, [])


def test_providers_that_are_down_are_told_as_unreachable(run, settings, deriv_at_simulator, monkeypatch):
    settings.MPESA_BASE_URL = "http://127.0.0.1:9"
    monkeypatch.setattr(ws_v3, "_url", "ws://127.0.0.1:9/")
    deposit = a_stored_deposit(S.DERIV_TRANSFER_SENT)
    prompt, _ = with_attempts(deposit)
    with unit_of_work():
        mpesa.requests_of([deposit.id], [(prompt, Accepted({"CheckoutRequestID": "ws_CO_1"}))])

    code, told = run("query_provider", deposit.id)

    assert code == 0
    assert {one["says"].split(":")[0] for one in told["attempts"]} == {"no answer", "not readable"}


# --- each command, in each state that is not final --------------------------------------------------------------------

STUCK = [(a_new, status) for a_new, type in
         ((a_stored_deposit, TransactionType.DEPOSIT), (a_stored_withdrawal, TransactionType.WITHDRAWAL))
         for status in NEXT[type] if status not in FINAL | {S.UNDER_REVIEW, S.NEEDS_ATTENTION}]  # fmt: skip


@pytest.mark.parametrize(("a_new", "status"), STUCK)
def test_whatever_is_stuck_can_be_asked_about_sent_back_and_swept(
    run, a_new, status, mpesa_simulator, deriv_at_simulator
):
    mpesa_simulator.set_customer("254712345678")
    transaction = a_new(status)
    saga: Any = SAGAS[transaction.type]
    with unit_of_work():
        stuck = saga.one(transaction.id)
        stuck.need_attention("looked at", at=now())
        saga.save([stuck], ())

    asked, told = run("query_provider", transaction.id)
    assert (asked, told["status"]) == (0, "NEEDS_ATTENTION")
    resumed, told = run("resume_saga", transaction.id, "--why", "looked at it")
    assert (resumed, told["resumed_to"]) == (0, str(status))
    swept, _ = run("sweep_sagas", "--once")
    assert swept == 0

    now_at = S(row(transaction).status)
    assert row(transaction).failures == 0
    assert row(transaction).next_step_at is not None or now_at in FINAL | {S.NEEDS_ATTENTION}


# --- sweep_sagas ------------------------------------------------------------------------------------------------------


def test_one_sweep_runs_what_is_due_and_leaves_what_is_not(run, deriv_at_simulator):
    due = a_stored_deposit(S.MPESA_CONFIRMED, at=now() - timedelta(seconds=10))
    later = a_stored_deposit(S.MPESA_CONFIRMED)
    models.Transaction.objects.filter(pk=later.id).update(next_step_at=now() + timedelta(minutes=5))

    code, told = run("sweep_sagas", "--once")

    assert (code, told["looked_at"]) == (0, 1)
    assert (row(due).status, row(later).status) == ("COMPLETED", "MPESA_CONFIRMED")
    last = AuditLog.objects.filter(target_id=str(due.id)).latest("seq")
    assert last.actor == "system:sweeper"


def test_a_sweep_goes_on_with_the_others_where_one_fails(run, deriv_at_simulator):
    at = now() - timedelta(seconds=10)
    poisoned, good = a_stored_deposit(S.DERIV_TRANSFER_SENT, at=at), a_stored_deposit(S.MPESA_CONFIRMED, at=at)
    models.Transaction.objects.filter(pk=poisoned.id).update(payout_amount=1, agent="nobody")

    code, told = run("sweep_sagas", "--once")

    assert (code, told["looked_at"]) == (0, 2)
    assert row(good).status == "COMPLETED"
    assert row(poisoned).status != "COMPLETED"


@pytest.mark.skipif(connection.vendor == "sqlite", reason="another process does not see a database in memory")
def test_a_sweeper_of_its_own_ends_in_order_when_it_is_told_to():
    environment = os.environ | {"DATABASE_URL": _url_of_the_test_database(), "LOG_LEVEL": "ERROR"}
    a_stored_deposit(S.CREATED, at=now() - timedelta(hours=2))  # its rate has run out: ends without any call
    process = subprocess.Popen(
        [sys.executable, "manage.py", "sweep_sagas", "--json"],
        cwd=settings.BASE_DIR, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while models.Transaction.objects.get().status != "EXPIRED":
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert json.loads(out)["looked_at"] == 1


def _url_of_the_test_database() -> str:
    url, _, _ = os.environ["DATABASE_URL"].rpartition("/")
    return f"{url}/{connection.settings_dict['NAME']}"
