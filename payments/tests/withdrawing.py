"""What tests of withdrawals over HTTP share: customers of both Deriv platforms, and what a command may have written."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from django.apps import apps
from django.conf import settings
from django.db import connection
from django.db.models import Sum

from payments import models
from payments.domain.transaction import FINAL, TransactionStatus as S
from payments.facade import timing, withdrawals
from payments.tests.factories import SELLS, a_quote, kes
from payments.tests.test_api import Caller
from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog, DomainEvent, IdempotencyKey
from wallet.facade import FloatKind, TreasuryKind, ledger, mpesa_utility, treasury_movements
from wallet.tests.treasuring import JOHN, MARY, a_command

User, DerivLogin, DerivTransfer, MpesaRequest, LedgerEntry = map(
    apps.get_model,
    (
        "identity.User",
        "identity.DerivLogin",
        "deriv_integration.DerivTransfer",
        "mpesa_integration.MpesaRequest",
        "wallet.LedgerEntry",
    ),
)
B2C = settings.MPESA_B2C_SHORTCODE


@dataclass(frozen=True)
class Face:
    """A customer of the simulated Deriv, as one platform knows them."""

    platform: str
    account: str
    token: str
    agent: str


V3 = Face("ws_v3", "CR100001", "jane-token", "CR900001")
REST = Face("rest", "jane", "jane-rest-token", "7001")
BOB = {
    "ws_v3": Face("ws_v3", "CR100002", "bob-token", "CR900001"),
    "rest": Face("rest", "bob", "bob-rest-token", "7001"),
}


def bob_comes(served: Any) -> None:
    """Deriv has a second customer."""
    served.customer(
        "CR100002", nickname="bob", name="BOB", email="bob@example.com", balance="50.00", token="bob-token",
        rest_token="bob-rest-token",
    )  # fmt: skip


class Withdrawer(Caller):
    """A signed-in customer's browser, with a Deriv login that the simulator knows."""

    def __init__(self, face: Face = V3, **customer: Any) -> None:
        super().__init__(**{"deriv_account": face.account, "platform": face.platform} | customer)
        self.browser.steps_up()
        self.face = face
        self.bind(face.token)

    def bind(self, token: str) -> None:
        """Keeps this one as their token at Deriv, if they have a login."""
        for login in DerivLogin.objects.filter(user_id=self.id):
            login.token, login.lost_at = token, None
            login.save()

    def offer(self, dollars: str = "10.00") -> str:
        """The id of a new quote."""
        answer = self.quote(dollars, "USD", type="withdrawal")
        assert answer.status_code == 201, answer.json()
        return str(answer.json()["id"])

    def verify(self, quote: Any, **more: Any) -> Any:
        return self.post("withdrawals/verification", {"quote_id": str(quote), **more})

    def withdraw(self, quote: Any, code: Any = "12345678", key: str | None = None, **more: Any) -> Any:
        body = {"quote_id": str(quote), "verification_code": code, **more}
        return self.post("withdrawals", body, **{"Idempotency-Key": str(uuid4()) if key is None else key})

    def withdrawn(self, quote: Any, code: str) -> str:
        """The id of an accepted withdrawal."""
        answer = self.withdraw(quote, code)
        assert answer.status_code == 202, answer.json()
        return str(answer.json()["transaction"]["id"])

    def coded(self, served: Any, dollars: str = "10.00") -> tuple[str, str]:
        """A quote and the code that Deriv sent for it."""
        quote = self.offer(dollars)
        assert self.verify(quote).status_code == 202
        return quote, served.simulator.last_code(self.face.account)

    def twin(self) -> "Withdrawer":
        """The same customer, as a thread of its own needs it."""
        other = object.__new__(Withdrawer)
        other.customer, other.browser, other.face = self.customer, self.browser.twin(), self.face
        return other


def an_offer(user: UUID, **over: Any) -> UUID:
    """The id of a row of `quotes`: ten dollars, which give 1,270 shillings."""
    given: dict[str, Any] = {
        "type": "withdrawal", "send_amount": 10_00, "send_currency": "USD", "get_amount": 1270_00,
        "get_currency": "KES", "rate": SELLS,
    } | over  # fmt: skip
    id: UUID = a_quote(user, **given).id
    return id


def a_payout_float(shillings: int = 1_000_000) -> None:
    """An opening balance on the account that payouts leave from."""
    with unit_of_work():
        ledger.post_opening(mpesa_utility(B2C), kes(shillings), reference=f"test:{new_id()}", at=now())


def owes(customer: Any, amount: Money) -> None:
    """This much more than before, as if it had left without cover."""
    kind: FloatKind = "mpesa_utility" if amount.currency is Currency.KES else "deriv_agent"
    key = f"test:{new_id()}"
    with unit_of_work():
        ledger.post_uncovered(
            TransactionId(new_id()), UserId(customer.id), amount, paid_by=kind, owner="600000", provider_key=key,
            at=now(),
        )  # fmt: skip


def recovers(customer: Any, amount: Money) -> None:
    """Two people book that this much of it came to the bank."""
    source = f"customer_receivable:{customer.id}"
    movement = treasury_movements.propose(
        a_command(TreasuryKind.RECEIVABLE_RECOVERED, source=source, amount=amount), by=MARY
    )
    treasury_movements.approve(movement.id, by=JOHN)


def everything() -> dict[str, Any]:
    """What a command may write, as numbers."""
    return {
        "transactions": models.Transaction.objects.count(),
        "events": DomainEvent.objects.count(),
        "audit": AuditLog.objects.filter(target_type="transaction").count(),
        "reservations": models.FloatReservation.objects.count(),
        "reserved": models.FloatAccount.objects.aggregate(sum=Sum("reserved"))["sum"] or 0,
        "keys": IdempotencyKey.objects.count(),
        "quotes": models.Quote.objects.count(),
        "quotes used": models.Quote.objects.exclude(transaction_id=None).count(),
        "entries": LedgerEntry.objects.count(),
        "transfers": DerivTransfer.objects.count(),
        "at M-Pesa": MpesaRequest.objects.count(),
    }


@contextmanager
def nothing_moves(served: Any = None) -> Iterator[None]:
    """Neither here nor, where it is given, in Deriv's books."""

    def seen() -> Any:
        return everything(), served.simulator.control.books() if served else None

    before = seen()
    yield
    assert seen() == before


def saga() -> Any:
    """As the facade has it, but every wait is a thousandth."""
    return replace(withdrawals, timing=replace(timing, scale=0.001))


def drive(id: str, *statuses: S, within_s: float = 10.0) -> models.Transaction:
    """As the sweeper does it, until it stands in one of these, or has ended."""
    until, wanted, going = time.monotonic() + within_s, set(statuses) or FINAL, saga()
    while (row := models.Transaction.objects.get(pk=id)).status not in wanted:
        assert time.monotonic() < until, (row.status, row.failure_code)
        going.drive([row.id])
        time.sleep(0.01)
    return row


def stored_with(secret: str) -> list[str]:
    """The columns of all tables in which this text stands."""
    found = []
    whole = re.compile(rf"(?<![0-9A-Za-z]){re.escape(secret)}(?![0-9A-Za-z])")
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                for name, value in zip(names, row, strict=True):
                    text = value.decode("latin-1") if isinstance(value, bytes) else value
                    if isinstance(text, str) and whole.search(text):  # JSON comes as text
                        found.append(f"{table}.{name}")
    return found
