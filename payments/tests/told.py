"""Real stories to tell evidence of: over HTTP, with both providers' simulators and M-Pesa's callbacks."""

import time
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from payments import models
from payments.domain.transaction import FINAL, TransactionStatus as S, TransactionType
from payments.facade import SAGAS, Propose, people, timing
from payments.tests.withdrawing import V3, Withdrawer
from shared_kernel.domain.identifiers import TransactionId

NAME, PHONE, EMAIL, DEVICE = "Wanjiku Muthoni Kamau", "254712345678", "wanjiku.kamau@example.org", "Wanjiku's phone"


@dataclass
class Story:
    """A Transaction that is over, or before a person, and what of it must never be told."""

    id: UUID
    caller: Withdrawer
    secrets: dict[str, str]


def a_caller(**over: Any) -> Withdrawer:
    return Withdrawer(V3, **{"full_name": NAME, "phone": PHONE, "email": EMAIL} | over)


def a_told_deposit(caller: Withdrawer, *statuses: S, shillings: str = "1300.00") -> Story:
    """Asked for over HTTP and driven to one of these statuses, or to its end."""
    quote = caller.quote(shillings).json()["id"]
    answer = caller.deposit(quote)
    assert answer.status_code == 202, answer.json()
    id = UUID(answer.json()["transaction"]["id"])
    bring(id, *statuses)
    return Story(id, caller, {"token": caller.face.token})


def a_told_withdrawal(caller: Withdrawer, served: Any, *statuses: S) -> Story:
    """With the code that Deriv sent."""
    quote, code = caller.coded(served)
    id = UUID(caller.withdrawn(quote, code))
    bring(id, *statuses)
    return Story(id, caller, {"token": caller.face.token, "code": code})


def bring(id: UUID, *statuses: S, within_s: float = 20.0) -> None:
    """As the sweeper does it."""
    until, wanted = time.monotonic() + within_s, set(statuses) or FINAL
    while (row := models.Transaction.objects.get(pk=id)).status not in wanted:
        assert time.monotonic() < until, (row.status, row.failure_code)
        saga: Any = SAGAS[TransactionType(row.type)]
        replace(saga, timing=replace(timing, scale=0.001)).drive([id])
        time.sleep(0.01)


def decided(story: Story, **given: Any) -> None:
    """Mary proposes, John approves."""
    row = models.Transaction.objects.get(pk=story.id)
    asked = Propose(
        transaction_id=TransactionId(story.id), type=TransactionType(row.type), by="mary",
        why="seen in the portal", **given,
    )  # fmt: skip
    people.approve(people.propose(asked), by="john")
