"""Deposits that are paid and wait for Deriv: many rows made from one real deposit, straight in the database.

Each has what a step reads and what `verify_ledger` compares: the Transaction, its quote, its paid prompt, the journal
of the payment, the reservation. What only tells of the past (callback, events, audit rows) is left out.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import models

from mpesa_integration.models import MpesaRequest
from payments.models import FloatAccount, FloatReservation, Quote, Transaction
from shared_kernel.domain.identifiers import Phone, TransactionId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as, unit_of_work
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import new_id, now
from shared_kernel.infrastructure.rows import insert
from tests.benchmarks.people import Person
from wallet.facade import ledger

PART = 500
M = TypeVar("M", bound=models.Model)


@dataclass(frozen=True)
class Waiting:
    """One customer and how many deposits of theirs wait."""

    person: Person
    count: int


@dataclass(frozen=True)
class Parts:
    """The other rows of a deposit."""

    quote: Quote
    prompt: MpesaRequest
    reservation: FloatReservation


def fill(pattern: UUID, waiting: Sequence[Waiting], *, due_in: timedelta) -> list[UUID]:
    """Deposits like `pattern`, a completed one, that stand where it stood once it was paid; due after `due_in`.

    In the order given: the first customer's came first, so that only the customers' turns let the others go before.
    """
    known = Transaction.objects.get(pk=pattern)
    parts = Parts(
        Quote.objects.get(pk=known.quote_id),
        MpesaRequest.objects.get(transaction_id=pattern),
        FloatReservation.objects.get(pk=pattern),
    )
    made: list[UUID] = []
    orders = list(_orders(waiting))
    for start in range(0, len(orders), PART):
        rows = [
            _rows(known, parts, person, behind, due_in + timedelta(milliseconds=start + place))
            for place, (person, behind) in enumerate(orders[start : start + PART])
        ]
        with acting_as(Context("system:bench")), unit_of_work():
            for each in zip(*rows, strict=True):
                insert(list(each))
            account = FloatAccount.objects.filter(pk=known.agent)
            account.update(reserved=models.F("reserved") + len(rows) * parts.reservation.amount)
            for transaction, _, prompt, _ in rows:
                ledger.post_deposit_received(
                    TransactionId(transaction.id), UserId(transaction.user_id),
                    Money(transaction.amount, Currency.KES), shortcode=prompt.shortcode,
                    provider_key=f"mpesa:{prompt.shortcode}:{prompt.receipt}", at=prompt.created_at,
                )  # fmt: skip
        made += [transaction.id for transaction, *_ in rows]
    return made


def _orders(waiting: Sequence[Waiting]) -> Iterator[tuple[Person, int]]:
    for one in waiting:
        for behind in range(one.count):
            yield one.person, behind


def _rows(
    known: Transaction, parts: Parts, person: Person, behind: int, due_in: timedelta
) -> tuple[Transaction, Quote, MpesaRequest, FloatReservation]:
    at, id, quote, prompt = now(), new_id(), new_id(), new_id()
    due, checkout = at + due_in, f"ws_CO_{id.hex}"
    transaction = _like(
        known, id=id, user_id=UUID(person.id), quote_id=quote, status="MPESA_CONFIRMED", version=3,
        phone=person.phone, phone_index=blind_index("transactions.phone", Phone(person.phone).number),
        deriv_account=person.account, lane=f"deriv:{known.agent}", priority=3, behind=behind,
        turn_at=due + behind * timedelta(seconds=30), next_step_at=due, deriv_transfer_id="", outflow="",
        created_at=at, confirmed_at=at, updated_at=at,
    )  # fmt: skip
    paid = _like(
        parts.prompt, id=prompt, transaction_id=id, reference=secrets.token_hex(6).upper(), phone=person.phone,
        callback_hash=secrets.token_hex(32), receipt=secrets.token_hex(5).upper(), checkout_request_id=checkout,
        checkout_index=blind_index("mpesa_requests.checkout_request_id", checkout), created_at=at,
    )  # fmt: skip
    return (
        transaction,
        _like(parts.quote, id=quote, user_id=UUID(person.id), transaction_id=id),
        paid,
        _like(parts.reservation, transaction_id=id, created_at=at, released_at=None),
    )


def _like(row: M, **changed: Any) -> M:
    """Another row with the same values but these; what is encrypted is encrypted for it."""
    columns = [field for field in row._meta.concrete_fields if not field.generated]
    return type(row)(**{field.attname: getattr(row, field.attname) for field in columns} | changed)
