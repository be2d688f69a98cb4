"""`POST withdrawals` over HTTP: what is accepted and what is not, once and only once, also by many at once."""

from datetime import timedelta

import pytest
import time_machine
from django.db import connection

from payments import models
from payments.tests.factories import a_float, a_quote, todays_rate
from payments.tests.test_api import a_limit, plain, refused
from payments.tests.withdrawing import (
    B2C,
    DerivTransfer,
    User,
    Withdrawer,
    a_payout_float,
    an_offer,
    everything,
    nothing_moves,
)
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import IdempotencyKey
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db
real_commits = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
CODE = "abCD_123"


@pytest.fixture(autouse=True)
def _open_for_business():
    todays_rate()
    a_payout_float()


@pytest.fixture
def caller() -> Withdrawer:
    return Withdrawer()


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_withdrawal_is_accepted_and_told_in_full(caller):
    quote = caller.offer()

    answer = caller.withdraw(quote, CODE)

    withdrawal = answer.json()["transaction"]
    assert (answer.status_code, answer["Location"]) == (202, f"/api/v1/transactions/{withdrawal['id']}")
    assert "Idempotency-Replayed" not in answer
    assert withdrawal["timeline"] == [{"status": "CREATED", "at": withdrawal["created_at"]}]
    told = {name: withdrawal[name] for name in ("type", "status", "amount", "payout", "locked_rate", "failure")}
    assert told == {
        "type": "withdrawal",
        "status": "CREATED",
        "amount": {"amount": "10.00", "currency": "USD"},
        "payout": {"amount": "1270.00", "currency": "KES"},
        "locked_rate": "127.0395",
        "failure": None,
    }
    assert withdrawal["created_at"] < withdrawal["expected_by"]
    assert plain(withdrawal)
    assert caller.get(f"transactions/{withdrawal['id']}").json() == withdrawal


def test_one_command_leaves_one_of_each_row_in_its_commit(caller):
    quote = caller.offer()
    before = everything()

    id = caller.withdrawn(quote, CODE)

    after = everything()
    one_more = ("transactions", "events", "audit", "reservations", "keys", "quotes used", "transfers")
    assert {name: after[name] - before[name] for name in before if after[name] != before[name]} == {
        **dict.fromkeys(one_more, 1), "reserved": 1290_00,
    }  # fmt: skip
    row = models.Transaction.objects.get(pk=id)
    assert (row.phone, row.user_id, row.agent) == (caller.customer.phone.number, caller.id, "CR900001")
    assert (row.min_payout, models.FloatReservation.objects.get().account) == (1257_00, f"mpesa:{B2C}")
    debit = DerivTransfer.objects.get()
    assert (debit.status, debit.verification_code, debit.attempt) == ("not_sent", CODE, 1)


@pytest.mark.parametrize("code", [None, 123456, 12345678.0, True, [], {}, "", "12345", "x" * 129])
def test_a_code_that_is_missing_or_too_short_or_too_long_is_refused(caller, code):
    quote = an_offer(caller.id)
    with nothing_moves():
        answer = caller.withdraw(quote, code)
        [(field, _)] = refused(answer, 400, "invalid_request")
        assert field == "verification_code"


def test_a_command_without_a_code_is_refused(caller):
    body = {"quote_id": str(an_offer(caller.id))}
    with nothing_moves():
        errors = refused(caller.post("withdrawals", body, **{"Idempotency-Key": "k"}), 400, "invalid_request")
        assert errors == {("verification_code", "required")}


ODD = [
    "12 45678",
    "abc-defgh",
    "código12",
    "\uff11\uff12\uff13\uff14\uff15\uff16",
    "123456\n7",
    "'; DROP--",
    '{"a": 1}',
    "😀" * 8,
]


@pytest.mark.parametrize("code", ODD)
def test_a_code_with_characters_that_deriv_never_sends_is_refused_before_the_quote_is_used_up(caller, code):
    quote = an_offer(caller.id)
    with nothing_moves():
        answer = caller.withdraw(quote, code)
        [(field, _)] = refused(answer, 400, "invalid_request")
    assert field == "verification_code"
    assert code not in answer.content.decode()
    assert caller.withdraw(quote, "  12345678 ").status_code == 202  # as it is copied from a mail


@pytest.mark.parametrize("code", ["123456", "a" * 128, "abCD_123"])
def test_a_code_as_either_platform_sends_it_is_taken(caller, code):
    assert caller.withdraw(an_offer(caller.id), code).status_code == 202


@pytest.mark.parametrize(
    ("least", "status", "code"),
    [
        ({"amount": "9.00", "currency": "USD"}, 422, "wrong_currency"),
        ({"amount": "10.00", "currency": "USD"}, 422, "wrong_currency"),
        ({"amount": "1270.01", "currency": "KES"}, 422, "min_payout_too_high"),
        ({"amount": "9999999999999.99", "currency": "KES"}, 422, "min_payout_too_high"),
        ({"amount": "0", "currency": "KES"}, 400, "invalid_request"),
        ({"amount": "-1", "currency": "KES"}, 400, "invalid_request"),
        ({"amount": 1200, "currency": "KES"}, 400, "invalid_request"),
        ({"amount": "1200.00"}, 400, "invalid_request"),
        ("1200.00", 400, "invalid_request"),
        (None, 400, "invalid_request"),
    ],
)
def test_a_least_payout_that_makes_no_sense_is_refused(caller, least, status, code):
    quote = an_offer(caller.id)
    with nothing_moves():
        refused(caller.withdraw(quote, CODE, min_payout=least), status, code)


@pytest.mark.parametrize("least", ["0.01", "1200.00", "1269.50", "1270.00"])
def test_a_least_payout_up_to_what_the_quote_gives_is_kept(caller, least):
    answer = caller.withdraw(an_offer(caller.id), CODE, min_payout={"amount": least, "currency": "KES"})

    assert answer.status_code == 202
    assert models.Transaction.objects.get().min_payout == round(float(least) * 100)


def test_a_float_that_is_too_low_refuses_before_anybody_is_charged(at_deriv):
    models.FloatAccount.objects.create(account=f"mpesa:{B2C}", reserved=1_000_000_00 - 1289_99)
    caller = Withdrawer()
    quote = an_offer(caller.id)

    with nothing_moves(at_deriv):
        refused(caller.withdraw(quote, CODE), 503, "float_too_low")

    models.FloatAccount.objects.update(reserved=1_000_000_00 - 1290_00)
    assert caller.withdraw(quote, CODE).status_code == 202  # the very same quote, with a cent more


# --- once and only once -----------------------------------------------------------------------------------------------


def test_without_an_idempotency_key_nothing_is_accepted(caller):
    quote = an_offer(caller.id)
    with nothing_moves():
        refused(caller.withdraw(quote, CODE, key=""), 400, "idempotency_key_missing")


@pytest.mark.parametrize("key", ["x" * 256, "ключ", "a b\tc\x7f"])
def test_a_key_that_is_none_is_refused(caller, key):
    quote = an_offer(caller.id)
    with nothing_moves():
        refused(caller.withdraw(quote, CODE, key=key), 422, "invalid_idempotency_key")


def test_a_repeat_gets_the_first_answer_whatever_became_of_it_and_of_the_code(caller):
    quote = an_offer(caller.id)
    first = caller.withdraw(quote, CODE, key="a-key")
    models.Transaction.objects.update(status="EXPIRED")
    User.objects.filter(pk=caller.id).update(frozen_at=now())

    with nothing_moves(), time_machine.travel(now() + timedelta(minutes=3)):
        again = [caller.withdraw(quote, code, key="a-key") for code in (CODE, "other_code")]

    for answer in again:
        assert (answer.status_code, answer.content, answer["Location"]) == (202, first.content, first["Location"])
        assert answer["Idempotency-Replayed"] == "true"
    assert DerivTransfer.objects.get().verification_code == CODE


def test_a_key_with_another_body_is_refused(caller):
    quote, other = an_offer(caller.id), an_offer(caller.id)
    caller.withdraw(quote, CODE, key="a-key")

    with nothing_moves():
        refused(caller.withdraw(other, CODE, key="a-key"), 422, "idempotency_key_reused")
        least = {"amount": "1200.00", "currency": "KES"}
        refused(caller.withdraw(quote, CODE, key="a-key", min_payout=least), 422, "idempotency_key_reused")


def test_the_same_key_of_somebody_else_or_of_a_deposit_is_another_key(caller):
    a_float()
    other = Withdrawer(deriv_account="CR100009")
    assert caller.withdraw(an_offer(caller.id), CODE, key="k").status_code == 202
    assert other.withdraw(an_offer(other.id), CODE, key="k").status_code == 202
    assert caller.deposit(a_quote(caller.id).id, "k").status_code == 202
    assert models.Transaction.objects.count() == IdempotencyKey.objects.count() == 3


@one_writer
@real_commits
def test_fifty_of_one_request_at_once_have_one_effect_and_one_answer():
    caller = Withdrawer()
    quote = an_offer(caller.id)
    twins = [caller.twin() for _ in range(50)]

    answers = at_once(*[lambda twin=twin: twin.withdraw(quote, CODE, key="a-key") for twin in twins])

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_in_flight"}
    seen = everything()
    assert {seen[name] for name in ("transactions", "events", "reservations", "transfers", "keys")} == {1}
    assert seen["reserved"] == 1290_00


@one_writer
@real_commits
def test_of_commands_for_one_quote_at_once_one_passes():
    caller = Withdrawer()
    quote = an_offer(caller.id)
    twins = [caller.twin() for _ in range(6)]

    answers = at_once(*[lambda twin=twin: twin.withdraw(quote, CODE) for twin in twins])

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"quote_used"}
    assert models.Transaction.objects.count() == DerivTransfer.objects.count() == 1


@one_writer
@real_commits
def test_of_commands_at_once_no_more_pass_than_limit_and_float_allow():
    caller = Withdrawer()
    a_limit(day=3_000)  # two of 1,270
    quotes, twins = [an_offer(caller.id) for _ in range(6)], [caller.twin() for _ in range(6)]
    others = [Withdrawer(deriv_account=f"CR10002{n}") for n in range(4)]
    theirs = [an_offer(other.id) for other in others]
    models.FloatAccount.objects.create(account=f"mpesa:{B2C}", reserved=1_000_000_00 - 4 * 1290_00)  # room for four

    mine = at_once(*[lambda t=t, id=id: t.withdraw(id, CODE) for t, id in zip(twins, quotes, strict=True)])
    rest = at_once(*[lambda o=o, id=id: o.twin().withdraw(id, CODE) for o, id in zip(others, theirs, strict=True)])

    assert [answer.status_code for answer in mine].count(202) == 2
    assert {answer.status_code for answer in mine} <= {202, 422}
    assert [answer.status_code for answer in rest].count(202) == 2
    assert {answer.json()["code"] for answer in rest if answer.status_code != 202} == {"float_too_low"}
    seen = everything()
    assert {seen[name] for name in ("transactions", "reservations", "transfers", "keys", "quotes used")} == {4}
    assert seen["reserved"] == 1_000_000_00
