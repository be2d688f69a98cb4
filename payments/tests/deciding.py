"""Mary proposes, John approves: how two people decide in tests."""

from types import SimpleNamespace
from typing import Any

from payments.application.people import People, Propose
from payments.domain.eligibility import OwnVerifiedPhone
from payments.domain.proposal import (
    Decision as D,
)
from payments.domain.transaction import Transaction, TransactionStatus as S
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, ProviderRequest
from tests.in_memory import CUSTOMER, InMemoryAudit, SagaBench
from tests.in_memory_world import InMemoryProposals


def people(bench: SagaBench[Any]) -> People:
    bench.users.customers.setdefault(CUSTOMER, a_customer())
    return People(
        sagas={bench.saga.type: bench.saga},
        proposals=InMemoryProposals(bench.world),
        users=bench.users,
        policy=OwnVerifiedPhone(),
        audit=InMemoryAudit(bench.world),
        unit_of_work=bench.world.unit_of_work,
        clock=bench.world.clock,
        new_id=bench.world.new_id,
    )


def a_customer(**over: Any) -> Any:
    known = {"phone": Phone("254712345678"), "is_frozen": False, "kyc_status": "verified", "deriv_name_matches": True,
             "deriv_login_state": "active"}  # fmt: skip
    login = DerivLogin(DerivPlatform.WS_V3, "CR100001")
    return SimpleNamespace(**{**known, "id": CUSTOMER, "deriv_login": login, **over})


def decide(
    bench: SagaBench[Any], transaction: Transaction, decision: D, request: ProviderRequest | None = None, **over: Any
) -> S:
    """Mary proposes, John approves."""
    given = {"by": "mary", "why": "seen in the portal", "request_id": request.id if request else None, **over}
    asked = Propose(transaction_id=transaction.id, type=transaction.type, decision=decision, **given)
    return people(bench).approve(people(bench).propose(asked), by="john")
