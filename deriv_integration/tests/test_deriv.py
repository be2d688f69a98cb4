"""The gateway that other contexts get: which agent, which adapter, and that it is the port that payments ask for."""

import inspect
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from uuid import UUID

import pytest

from deriv_integration.application.deriv import Deriv
from deriv_integration.domain.transfer import DerivPlatformUnsupported, DerivUnavailable, reference_of
from deriv_integration.infrastructure.persistence import DjangoAgentRegistry, DjangoTransferRepository
from deriv_integration.tests.fixtures import AGENT, a_transfer
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Done, NotSent, Unreadable
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, Leg, RequestStatus
from shared_kernel.infrastructure.persistence import DjangoAuditLog, new_id, now, unit_of_work

JANE = DerivLogin(DerivPlatform.WS_V3, "CR100001")
ON_REST = DerivLogin(DerivPlatform.REST, "jane")
TEN = Money(10_00, Currency.USD)


@pytest.fixture
def deriv(adapter):
    return a_deriv(adapter)


def a_deriv(api):
    return Deriv(
        transfers=DjangoTransferRepository(),
        agents=DjangoAgentRegistry(DjangoAuditLog()),
        platforms={DerivPlatform.WS_V3: api},
        clock=now,
        ids=new_id,
    )


@pytest.mark.parametrize(
    ("port", "own"),
    [
        ("payments.domain.ports", "DerivGateway"),
        ("payments.domain.ports", "WithdrawalCodes"),
        ("identity.domain.ports", "DerivIdentity"),
    ],
)
def test_it_fits_the_ports_of_those_who_ask(port, own):
    protocol = getattr(import_module(port), own)
    methods = {name: value for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"}

    assert methods
    for name, method in methods.items():
        wanted, given = inspect.signature(method), inspect.signature(getattr(Deriv, name))
        assert [(p.name, p.kind, p.annotation) for p in wanted.parameters.values()] == [
            (p.name, p.kind, p.annotation) for p in given.parameters.values()
        ], name
        if name != "identify":  # its answer fits a protocol of its own
            assert wanted.return_annotation == given.return_annotation, name


def test_a_reference_is_short_plain_and_the_same_for_every_attempt():
    one, other = (TransactionId(new_id()) for _ in range(2))

    references = {reference_of(id, Leg.DERIV_CREDIT) for id in (one, one, other)}

    assert len(references) == 2
    assert all(re.fullmatch(r"[A-Z0-9]{1,30}", reference) for reference in references)


def test_a_new_attempt_has_its_own_id_and_a_moment_after_which_it_is_not_sent(deriv):
    at = datetime(2026, 11, 22, tzinfo=UTC)
    id = TransactionId(new_id())

    first, second = (deriv.new_transfer(id, Leg.DERIV_CREDIT, attempt, JANE, AGENT, TEN, at=at) for attempt in (1, 2))

    assert first.id != second.id
    assert first.reference == second.reference == reference_of(id, Leg.DERIV_CREDIT)
    assert first.send_before == at + timedelta(seconds=60)
    assert (first.status, first.fence, first.created_at) == (RequestStatus.SENDING, 1, at)


def test_a_platform_without_an_adapter_is_said_so(deriv):
    with pytest.raises(DerivPlatformUnsupported):
        deriv.identify(DerivPlatform.REST, "token")
    transfer = a_transfer(login=ON_REST)
    assert isinstance(deriv.check_login(ON_REST, AGENT, TEN), NotSent)
    assert isinstance(deriv.send(transfer, give_up_at=time.monotonic() + 1), NotSent)
    assert deriv.find(transfer) == Unreadable("platform_unsupported")


@pytest.mark.django_db(transaction=True)
def test_an_agent_for_a_platform_without_an_adapter_is_refused(deriv):
    with unit_of_work(), pytest.raises(DerivPlatformUnsupported):
        deriv.agent_for(DerivPlatform.REST)


@pytest.mark.django_db(transaction=True)
def test_a_frozen_agent_gets_no_new_transaction_and_sends_no_recorded_one(deriv, deriv_simulator):
    transfer = deriv.new_transfer(TransactionId(new_id()), Leg.DERIV_CREDIT, 1, JANE, AGENT, TEN, at=now())
    with unit_of_work():
        assert deriv.agent_for(DerivPlatform.WS_V3) == AGENT
        deriv.record([transfer])
    with unit_of_work():
        deriv.freeze(AGENT, "booked twice")

    elsewhere = replace(deriv, agents=DjangoAgentRegistry(DjangoAuditLog()))  # another process
    again = deriv.new_transfer(TransactionId(new_id()), Leg.DERIV_CREDIT, 1, JANE, AGENT, TEN, at=now())
    with unit_of_work(), pytest.raises(DerivUnavailable):
        replace(deriv, agents=DjangoAgentRegistry(DjangoAuditLog())).agent_for(DerivPlatform.WS_V3)
    with unit_of_work():
        elsewhere.record([again])

    for gateway, what in ((deriv, transfer), (elsewhere, again)):
        assert gateway.send(what, give_up_at=time.monotonic() + 1) == NotSent("agent_frozen", 300, alert=True)
    assert deriv_simulator.received() == []


@pytest.mark.django_db(transaction=True)
def test_work_is_spread_over_the_agents_that_are_not_frozen(adapter):
    class Three:
        agents = ("CR1", "CR2", "CR3")

    deriv = a_deriv(Three())
    with unit_of_work():
        deriv.freeze("CR2", "why not")
    with unit_of_work():
        chosen = {deriv.agent_for(DerivPlatform.WS_V3) for _ in range(100)}

    assert chosen == {"CR1", "CR3"}


@pytest.mark.django_db(transaction=True)
def test_a_transfer_goes_from_intent_to_proof_through_the_rows(deriv, deriv_simulator):
    id = TransactionId(UUID(str(new_id())))
    transfer = deriv.new_transfer(id, Leg.DERIV_CREDIT, 1, JANE, AGENT, Money(10_25, Currency.USD), at=now())
    with unit_of_work():
        deriv.record([transfer])

    outcome = deriv.send(transfer, give_up_at=time.monotonic() + 5)
    with unit_of_work():
        deriv.record_outcomes([(transfer, outcome)])
        (row,) = deriv.transfers_of([id])[id]

    assert isinstance(outcome, Done)
    assert (row.status, row.provider_transaction_id) == (RequestStatus.DONE, outcome.reference)
    assert deriv.find(row).references == (outcome.reference,)
    assert deriv_simulator.received() == [10_25]


@pytest.mark.django_db(transaction=True)
def test_the_facades_own_gateway_is_wired_to_the_settings(deriv_at_simulator):
    from deriv_integration.facade import deriv

    assert deriv.check_login(JANE, AGENT, TEN).reference == "JANE DOE"
    with unit_of_work(), pytest.raises(RuntimeError):
        deriv.check_login(JANE, AGENT, TEN)


def test_on_rest_each_attempt_has_its_own_request_id_in_derivs_pattern(deriv):
    id = TransactionId(new_id())
    references = {
        deriv.new_transfer(id, leg, attempt, ON_REST, "7001", TEN, at=now()).reference
        for leg in (Leg.DERIV_CREDIT, Leg.DERIV_DEBIT, Leg.DERIV_CREDIT_BACK)
        for attempt in (1, 2, 65535)
    }

    assert len(references) == 9
    assert all(re.fullmatch(r"pp-[\w-]{1,61}", reference, re.ASCII) for reference in references)
    assert len({deriv.new_transfer(id, Leg.DERIV_DEBIT, n, JANE, AGENT, TEN, at=now()).reference for n in (1, 2)}) == 1


@pytest.fixture
def both(adapter, rest):
    return replace(a_deriv(adapter), platforms={DerivPlatform.WS_V3: adapter, DerivPlatform.REST: rest})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("login", [JANE, ON_REST])
def test_a_withdrawal_goes_from_code_to_proof_through_the_rows_on_either_platform(both, deriv_simulator, login):
    deriv_simulator.simulator.pending_s = 0.01
    token = "jane-token" if login is JANE else "jane-rest-token"
    with unit_of_work():
        agent = both.agent_for(login.platform)
    both.request_code(login, token, agent, TEN)
    debit = both.new_transfer(TransactionId(new_id()), Leg.DERIV_DEBIT, 1, login, agent, TEN, at=now())
    debit.verification_code = deriv_simulator.simulator.last_code(login.account)
    with unit_of_work():
        both.record([debit])
    (row,) = read(both, debit)
    row.token = token

    outcome = both.send(row, give_up_at=time.monotonic() + 5)
    with unit_of_work():
        both.record_outcomes([(row, outcome)])
    time.sleep(0.1)
    (row,) = read(both, debit)
    found = both.find(row)

    (moved,) = deriv_simulator.simulator.control.books()
    assert (row.status, row.verification_code, row.token) == (RequestStatus.ACCEPTED, "", "")
    assert found.references == (moved["agent_entry"],)
    assert [entry.id for entry in both.book(agent, debit.created_at) if entry.reference] == [moved["agent_entry"]]


def read(deriv, transfer):
    with unit_of_work():
        return deriv.transfers_of([transfer.transaction_id])[transfer.transaction_id]


@pytest.mark.django_db(transaction=True)
def test_a_frozen_agent_gets_no_code_and_its_book_can_be_read(both, deriv_simulator):
    with unit_of_work():
        both.freeze(AGENT, "booked twice")

    with pytest.raises(DerivUnavailable):
        both.request_code(JANE, "jane-token", AGENT, TEN)
    assert not deriv_simulator.simulator.last_code("CR100001")
    assert not isinstance(both.book(AGENT, now()), Unreadable)
    assert both.book("nobody", now()) == Unreadable("agent_unknown")


@pytest.mark.django_db(transaction=True)
def test_codes_that_expired_are_wiped_through_the_gateway(both):
    debit = both.new_transfer(TransactionId(new_id()), Leg.DERIV_DEBIT, 1, JANE, AGENT, TEN, at=now())
    debit.verification_code = "Abc12345"
    with unit_of_work():
        both.record([debit])
        assert both.wipe_codes(debit.created_at) == 0
        assert both.wipe_codes(debit.created_at + timedelta(seconds=1)) == 1

    assert read(both, debit)[0].verification_code == ""
    assert "Abc12345" not in repr(debit)


@pytest.mark.django_db(transaction=True)
def test_the_facade_has_both_platforms_of_the_settings(deriv_at_simulator):
    from deriv_integration.facade import deriv

    assert isinstance(deriv.check_login(ON_REST, "7001", TEN), Done)
    assert deriv.identify(DerivPlatform.REST, "jane-rest-token").account == "jane"
    with unit_of_work():
        assert (deriv.agent_for(DerivPlatform.WS_V3), deriv.agent_for(DerivPlatform.REST)) == (AGENT, "7001")
