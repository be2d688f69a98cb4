"""What both of Deriv's adapters promise, each against its own face of the simulator: one suite, run twice."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from deriv_integration.domain.transfer import (
    CodeTooSoon,
    DerivTokenRefused,
    DerivUnavailable,
    InsideTransaction,
    WithdrawalRefused,
)
from deriv_integration.infrastructure.rest_v1.adapter import Rest
from deriv_integration.infrastructure.ws_v3.adapter import WsV3
from deriv_integration.tests.fixtures import AGENT, REST_AGENT, ServedDeriv, a_transfer
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Absent, Accepted, Done, Found, NotSent, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, DerivTransfer, Leg

TEN = Money(10_00, Currency.USD)


@dataclass
class Face:
    """One adapter, and what it takes to use it."""

    platform: DerivPlatform
    api: WsV3 | Rest
    served: ServedDeriv
    agent: str
    account: str
    token: str

    @property
    def login(self) -> DerivLogin:
        return DerivLogin(self.platform, self.account)

    def arm(self, fault: str, call: str = "transfer", **options: object) -> None:
        self.served.arm(fault, call, platform=str(self.platform), **options)

    def credit(self, amount: int = 10_25, **over: object) -> DerivTransfer:
        return a_transfer(amount, platform=self.platform, **over)  # type: ignore[arg-type]

    def debit(self, amount: int = 10_25, **over: object) -> DerivTransfer:
        """With a code that the customer has just got for it, and the customer's token."""
        self.api.request_code(self.login, self.token, self.agent, Money(amount, Currency.USD))
        code = self.served.simulator.last_code(self.account)
        over = {"verification_code": code, "token": self.token, **over}
        return a_transfer(amount, platform=self.platform, leg=Leg.DERIV_DEBIT, **over)  # type: ignore[arg-type]

    def send(self, transfer: DerivTransfer):
        return self.api.send(transfer, give_up_at=time.monotonic() + 5)

    def find(self, transfer: DerivTransfer, *, wait_for: type = object):
        """As found now, or once it is a `wait_for`."""
        until = time.monotonic() + 5
        while not isinstance(found := self.api.find(replace_token(transfer)), wait_for) and time.monotonic() < until:
            time.sleep(0.02)
        return found

    @property
    def balance(self) -> int:
        return self.served.simulator.bank.accounts["CR100001"].balance

    @property
    def held(self) -> int:
        """What the agent has, in cents."""
        bank = self.served.simulator.bank
        agent = bank.login(self.agent) or bank.agent(int(self.agent))
        assert agent is not None
        return agent.balance

    @property
    def moved(self) -> list[tuple[str, str]]:
        """Kind and amount of every movement that Deriv believes in."""
        return [(moved["kind"], moved["amount"]) for moved in self.served.simulator.control.books()]


def replace_token(transfer: DerivTransfer) -> DerivTransfer:
    """As it comes from the rows: without code."""
    found = replace(transfer)
    found.verification_code = ""
    return found


@pytest.fixture(params=["ws_v3", "rest"])
def face(request, deriv_simulator, adapter, rest) -> Face:
    deriv_simulator.simulator.pending_s = 0.05
    if request.param == "ws_v3":
        return Face(DerivPlatform.WS_V3, adapter, deriv_simulator, AGENT, "CR100001", "jane-token")
    return Face(DerivPlatform.REST, rest, deriv_simulator, REST_AGENT, "jane", "jane-rest-token")


# --- credits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leg", [Leg.DERIV_CREDIT, Leg.DERIV_CREDIT_BACK])
def test_a_credit_is_done_with_the_id_by_which_the_agents_book_shows_it(face, leg):
    transfer = face.credit(leg=leg)

    outcome = face.send(transfer)

    assert isinstance(outcome, Done)
    assert face.find(transfer) == Found((outcome.reference,), (transfer.amount,))
    (entry,) = [entry for entry in face.api.book(face.agent, transfer.created_at) if entry.reference]
    assert (entry.id, entry.reference, entry.amount.amount) == (outcome.reference, transfer.reference, -10_25)
    assert entry.status == "complete"
    assert face.moved == [("transfer", "10.25")]


@pytest.mark.parametrize(
    ("fault", "took_effect"),
    [
        ("lost_answer_before_effect", False),
        ("lost_answer_after_effect", True),
        ("drop_socket_before_effect", False),
        ("drop_socket_after_effect", True),
        ("wrong_response_before", False),
        ("wrong_response_after", True),
        ("request_timeout_before", False),
        ("request_timeout_after", True),
        ("http_500_before", False),
        ("http_500_after", True),
        ("http_504_before", False),
        ("http_504_after", True),
    ],
)
def test_a_credit_without_a_clear_answer_is_unknown_and_the_look_up_tells(face, fault, took_effect):
    face.arm(fault, count=1)
    transfer = face.credit()

    assert isinstance(face.send(transfer), Unknown)
    found = face.find(transfer)

    assert isinstance(found, Found if took_effect else Absent)
    assert face.moved == ([("transfer", "10.25")] if took_effect else [])


def test_a_credit_that_deriv_refuses_moved_nothing(face):
    face.served.customer(status=["cashier_locked"])

    outcome = face.send(face.credit())

    assert isinstance(outcome, Refused)
    assert outcome.reason
    assert face.moved == []


@pytest.mark.parametrize(
    "order",
    [
        {"fault": "float_low"},
        {"fault": "rate_limited"},
        {"fault": "token_superseded"},
    ],
)
def test_what_is_our_own_trouble_waits(face, order):
    face.arm(**order, count=1)

    assert isinstance(face.send(face.credit()), NotSent)
    assert face.moved == []


def test_an_unknown_error_is_unknown(face):
    face.arm("error", code="BrandNewError", message="You have moved", count=1)

    assert isinstance(face.send(face.credit()), Unknown)


def test_past_its_moment_nothing_is_written(face):
    face.send(face.credit(1_00))

    credit = face.api.send(face.credit(), give_up_at=time.monotonic() - 0.001)
    debit = face.api.send(face.debit(), give_up_at=time.monotonic() - 0.001)

    assert (credit.code, debit.code) == ("send_before", "send_before")
    assert isinstance(credit, NotSent)
    assert isinstance(debit, NotSent)
    assert face.moved == [("transfer", "1.00")]


def test_nothing_is_called_inside_a_database_transaction(face):
    face.api._outside = lambda: False
    calls: list[Callable[[], object]] = [
        lambda: face.send(face.credit()),
        lambda: face.api.find(face.credit()),
        lambda: face.api.book(face.agent, datetime.now(UTC)),
        lambda: face.api.balance(face.agent),
        lambda: face.api.check_login(face.login, face.agent, TEN),
        lambda: face.api.identify(face.token),
        lambda: face.api.request_code(face.login, face.token, face.agent, TEN),
    ]

    for call in calls:
        with pytest.raises(InsideTransaction):
            call()


# --- debits -----------------------------------------------------------------------------------------------------------


def test_a_debit_is_accepted_and_proven_by_the_agents_own_book_alone(face):
    before = face.balance
    transfer = face.debit()

    outcome = face.send(transfer)
    found = face.find(transfer, wait_for=Found)

    assert isinstance(outcome, Accepted)
    (moved,) = face.served.simulator.control.books()
    assert found == Found((moved["agent_entry"],), (transfer.amount,))
    assert found.references != (moved["id"],)  # the customer's entry is another
    assert face.balance == before - 10_25
    (entry,) = [
        entry for entry in face.api.book(face.agent, transfer.created_at - timedelta(hours=1)) if entry.reference
    ]
    assert (entry.id, entry.amount.amount, entry.reference) == (moved["agent_entry"], 10_25, transfer.reference)


def test_a_debit_is_found_without_the_customers_token(face):
    transfer = face.debit()
    face.send(transfer)
    face.find(transfer, wait_for=Found)
    transfer.token = ""

    assert isinstance(face.find(transfer), Found)


@pytest.mark.parametrize(
    "fault",
    ["lost_answer_after_effect", "drop_socket_after_effect", "request_timeout_after", "http_500_after", "error_after"],
)
def test_a_debit_whose_answer_was_lost_is_unknown_and_found(face, fault):
    face.arm(fault, "withdraw", count=1, code="OutputValidationFailed")
    transfer = face.debit()

    outcome = face.send(transfer)

    assert isinstance(outcome, Unknown)
    assert isinstance(face.find(transfer, wait_for=Found), Found)


@pytest.mark.parametrize("fault", ["lost_answer_before_effect", "drop_socket_before_effect", "request_timeout_before"])
def test_a_debit_that_may_have_arrived_is_unknown_and_never_repeatable(face, fault):
    before = face.balance
    face.arm(fault, "withdraw", count=1)
    transfer = face.debit()

    outcome = face.send(transfer)
    found = face.find(transfer)

    assert isinstance(outcome, Unknown)
    assert isinstance(found, Absent)
    assert not found.repeatable
    assert face.balance == before


@pytest.mark.parametrize("code", ["00000000", "wrong", "", "000000", "12 456"])
def test_a_wrong_code_is_refused_in_words_and_nothing_moves(face, code):
    transfer = face.debit(verification_code=code)

    outcome = face.send(transfer)

    assert isinstance(outcome, Refused)
    assert "code" in outcome.reason
    assert face.moved == []


def test_a_used_or_expired_code_is_refused(face):
    first = face.debit()
    face.send(first)
    again = face.credit(leg=Leg.DERIV_DEBIT, token=face.token, verification_code=first.verification_code)
    late = face.debit()
    face.served.simulator.clock.advance(3601)

    assert isinstance(face.send(again), Refused)
    assert isinstance(face.send(late), Refused)
    face.find(first, wait_for=Found)
    assert face.moved == [("withdrawal", "10.25")]


def test_a_code_that_failed_for_another_reason_is_used_up(face):
    transfer = face.debit(60_00)  # jane holds 50.00
    again = face.credit(60_00, leg=Leg.DERIV_DEBIT, token=face.token, verification_code=transfer.verification_code)

    first = face.send(transfer)
    face.served.customer(deposit="100.00")

    assert isinstance(first, Refused)
    assert "balance" in first.reason
    assert isinstance(face.send(again), Refused)
    assert face.moved == []


def test_a_debit_with_another_customers_token_moves_nothing_of_theirs(face):
    face.served.customer("CR100002", nickname="bob", name="BOB", balance="50.00", token="bob-t", rest_token="bob-r")
    transfer = face.debit()
    transfer.token = {"ws_v3": "bob-t", "rest": "bob-r"}[face.platform]

    assert isinstance(face.send(transfer), Refused)
    assert face.moved == []


@pytest.mark.parametrize("token", ["no-such-token", "revoked"])
def test_a_dead_customers_token_is_a_refusal_and_not_our_trouble(face, token):
    transfer = face.debit()
    transfer.token = token

    outcome = face.send(transfer)

    assert isinstance(outcome, Refused)
    assert "token" in outcome.reason
    assert face.moved == []


def test_a_debit_without_a_token_is_not_sent(face):
    transfer = face.debit()
    transfer.token = ""

    assert face.send(transfer) == NotSent("customer_token_missing", 300, alert=True)


def test_two_customers_with_equal_amounts_at_the_same_second_are_told_apart(face):
    face.served.customer("CR100002", nickname="bob", name="BOB", balance="50.00", token="bob-t", rest_token="bob-r")
    bob = replace(face, account={"ws_v3": "CR100002", "rest": "bob"}[face.platform])
    bob.token = {"ws_v3": "bob-t", "rest": "bob-r"}[face.platform]
    ours, theirs = face.debit(), bob.debit()
    theirs.login = bob.login
    face.arm("error", "withdraw", code="InternalServerError", status=500, count=1)

    face.send(ours)  # without effect
    bob.send(theirs)

    assert isinstance(bob.find(theirs, wait_for=Found), Found)
    assert isinstance(face.find(ours), Absent)


# --- codes ------------------------------------------------------------------------------------------------------------


def test_a_code_is_sent_with_its_end_and_the_moment_of_the_next(face):
    sent = face.api.request_code(face.login, face.token, face.agent, TEN)

    left_s = (sent.expires_at - datetime.now(UTC)).total_seconds()
    assert 500 < left_s <= 3601
    assert sent.next_request_at < sent.expires_at
    assert face.served.simulator.last_code(face.account)
    assert face.moved == []


def test_a_code_for_a_dead_token_or_another_login_is_refused(face):
    with pytest.raises(DerivTokenRefused):
        face.api.request_code(face.login, "no-such-token", face.agent, TEN)
    with pytest.raises(DerivTokenRefused):
        face.api.request_code(face.login, "not a token\n", face.agent, TEN)
    with pytest.raises(WithdrawalRefused):
        face.api.request_code(DerivLogin(face.platform, "CR4242"), face.token, face.agent, TEN)
    assert not face.served.simulator.last_code(face.account)


def test_a_code_that_comes_too_soon_says_when(face):
    face.arm("error", "code", code={"ws_v3": "RateLimit", "rest": "OtpRateLimitExceeded"}[face.platform], count=1)

    with pytest.raises(CodeTooSoon) as raised:
        face.api.request_code(face.login, face.token, face.agent, TEN)

    assert raised.value.when > datetime.now(UTC)
    assert raised.value.extra["retry_after"] > 0


@pytest.mark.parametrize("fault", ["lost_answer_before_effect", "http_500_before", "wrong_response_before"])
def test_a_code_request_without_an_answer_is_unavailable(face, fault):
    face.arm(fault, "code", count=1)

    with pytest.raises(DerivUnavailable):
        face.api.request_code(face.login, face.token, face.agent, TEN)


# --- balances ---------------------------------------------------------------------------------------------------------


def test_the_agents_balance_is_what_it_holds_after_each_movement(face):
    before = face.api.balance(face.agent)

    face.send(face.credit(10_25))

    after = face.api.balance(face.agent)
    assert before.currency is after.currency is Currency.USD
    assert before.amount - after.amount == 10_25
    assert after.amount == face.held


@pytest.mark.parametrize("fault", ["lost_answer_before_effect", "http_500_before", "wrong_response_before"])
def test_a_balance_that_is_not_told_is_unreadable(face, fault):
    face.arm(fault, {"ws_v3": "balance", "rest": "wallet"}[face.platform])

    assert isinstance(face.api.balance(face.agent), Unreadable)
    assert isinstance(face.api.balance("CR4711"), Unreadable)


# --- who they are -----------------------------------------------------------------------------------------------------


def test_a_token_tells_whose_it_is(face):
    told = face.api.identify(face.token)

    assert (told.account, told.currency, told.is_virtual) == (face.account, "USD", False)
    with pytest.raises(DerivTokenRefused):
        face.api.identify("no-such-token")


def test_a_login_is_checked_before_anything_moves(face):
    unknown = replace(face.login, account={"ws_v3": "CR424242", "rest": "nobody"}[face.platform])

    assert isinstance(face.api.check_login(face.login, face.agent, TEN), Done)
    assert isinstance(face.api.check_login(unknown, face.agent, TEN), Refused)
    assert isinstance(face.api.check_login(face.login, face.agent, Money(5_000_00, Currency.USD)), Refused)
    assert isinstance(face.api.check_login(face.login, "CR4711", TEN), NotSent)
    assert face.moved == []


def test_neither_token_nor_code_is_in_any_log_text_or_exception(face, caplog):
    caplog.set_level(logging.DEBUG)
    transfer = face.debit()
    code = transfer.verification_code
    told = [repr(transfer), repr(face.send(transfer)), repr(face.find(transfer))]
    for call in (
        lambda: face.api.request_code(face.login, "secret-dead-token", face.agent, TEN),
        lambda: face.api.identify("secret-dead-token"),
    ):
        with pytest.raises(DerivTokenRefused) as raised:
            call()
        told += [repr(raised.value), str(raised.value.extra), repr(raised.value.__cause__)]
    told.append(repr(face.send(face.credit(leg=Leg.DERIV_DEBIT, token="secret-dead-token", verification_code=code))))

    everything = "\n".join([*told, caplog.text])
    for secret in (code, face.token, "secret-dead-token", "demo-agent-token", "demo-rest-agent-token", "jane@example"):
        assert secret not in everything
