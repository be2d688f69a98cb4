"""`deriv_transfers` and `deriv_agents` over Django: a group is one statement."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

from django.db import connection

from deriv_integration import models
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.ports import AuditLog, AuditRecord
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, DerivTransfer, Leg, RequestStatus
from shared_kernel.infrastructure.encryption import encrypt
from shared_kernel.infrastructure.rows import insert

CODE_LENGTH = 128
STAYS = "status <> 'done'"
STAYS_DEAD = "status NOT IN ('done', 'closed')"  # proof of absence outranks not knowing


@dataclass(frozen=True)
class DjangoTransferRepository:
    """Rows of `deriv_transfers`; the caller's unit of work holds the lock on their Transactions."""

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        found: dict[TransactionId, list[DerivTransfer]] = {id: [] for id in transactions}
        rows = models.DerivTransfer.objects.filter(transaction_id__in=list(found)).defer("answer")
        for row in rows.order_by("transaction_id", "leg", "attempt"):
            found[TransactionId(row.transaction_id)].append(to_domain(row))
        return found

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        insert([to_row(transfer) for transfer in transfers if transfer.fence == 1])
        again = [transfer for transfer in transfers if transfer.fence > 1]
        update_rows(
            [
                (
                    {"status": t.status, "fence": t.fence, "send_before": t.send_before, "outcome_at": None},
                    t,
                    f"fence < %s AND {STAYS}",
                    [t.fence],
                )
                for t in again
            ]
        )

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]], *, at: datetime) -> None:
        update_rows([outcome_of(transfer, outcome, at) for transfer, outcome in outcomes])

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        update_rows(
            [
                (
                    {
                        "status": t.status,
                        "code": t.code[:CODE_LENGTH],
                        "outcome_at": t.outcome_at,
                        "asked_at": t.asked_at,
                        "absences": t.absences,
                        "provider_transaction_id": t.provider_transaction_id or None,
                    },
                    t,
                    STAYS,
                    [],
                )
                for t in transfers
            ]
        )


@dataclass(frozen=True)
class DjangoAgentRegistry:
    """Rows of `deriv_agents`: an agent without one was never frozen."""

    audit: AuditLog
    seen: list[frozenset[str]] = field(default_factory=lambda: [frozenset()])
    looked_at: list[float] = field(default_factory=lambda: [float("-inf")])  # on the monotonic clock

    def frozen(self, *, at_most_old_s: float = 0.0) -> frozenset[str]:
        if time.monotonic() - self.looked_at[0] < at_most_old_s:
            return self.seen[0]
        self.looked_at[0] = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute("SELECT loginid FROM deriv_agents WHERE frozen_at IS NOT NULL")
            self.seen[0] = frozenset(loginid for (loginid,) in cursor.fetchall())
        return self.seen[0]

    def frozen_lately(self) -> frozenset[str]:
        return self.seen[0]

    def freeze(self, agent: str, why: str, *, at: datetime) -> None:
        row, _ = models.DerivAgent.objects.select_for_update().get_or_create(loginid=agent)
        if row.frozen_at is None:
            row.frozen_at, row.frozen_why = at, why[:255]
            row.save(update_fields=["frozen_at", "frozen_why"])
            self.audit.append([AuditRecord("deriv_agent.frozen", "deriv_agent", agent, at, "in use", "frozen", why)])
        self.seen[0] |= {agent}


Change = tuple[dict[str, Any], DerivTransfer, str, list[Any]]
"""New values by column, the transfer they are for, and the SQL condition (with parameters) under which they count."""


def outcome_of(transfer: DerivTransfer, outcome: Outcome, at: datetime) -> Change:
    """What an outcome writes, and when it counts."""
    always: tuple[str, list[Any]] = (STAYS, [])
    while_open: tuple[str, list[Any]] = (STAYS_DEAD, [])
    newest: tuple[str, list[Any]] = (f"fence = %s AND {STAYS_DEAD}", [transfer.fence])
    id: str | None = None
    match outcome:
        case Done(reference):
            id = reference or None
            status, code, counts = RequestStatus.DONE, "", always
        case Accepted():
            status, code, counts = RequestStatus.ACCEPTED, "", while_open
        case Refused(code):
            status, counts = RequestStatus.REFUSED, newest
        case NotSent(code):
            status, counts = RequestStatus.NOT_SENT, newest
        case Unknown(code):
            status, counts = RequestStatus.UNKNOWN, while_open
        case _:
            assert_never(outcome)
    values = {
        "status": status,
        "code": code[:CODE_LENGTH],
        "outcome_at": at,
        "provider_transaction_id": id,
        "answer": outcome.answer and encrypt(outcome.answer, f"deriv_transfers.answer|{transfer.id}"),
    }
    return values, transfer, *counts


def update_rows(changes: Sequence[Change]) -> None:
    """One UPDATE for a group of rows, each under its own condition. All changes name the same columns.

    Django's multi-row upsert won't do: on MySQL a Deriv id that another row holds would change that row, not fail.
    """
    if not changes:
        return
    fields: Any = models.DerivTransfer._meta
    operations: Any = connection.ops
    binary: str = operations.binary_placeholder_sql(b"")
    columns = list(changes[0][0])
    ids = [transfer.id.bytes for _, transfer, _, _ in changes]
    when = f"WHEN {binary} THEN %s "
    parameters: list[Any] = []
    for column in columns:
        prepare = fields.get_field(column).get_db_prep_save
        for (values, *_), id in zip(changes, ids, strict=True):
            parameters += [id, prepare(values[column], connection)]
    sets = ", ".join(f"{column} = CASE id {when * len(changes)}END" for column in columns)
    conditions = " OR ".join(f"(id = {binary} AND {condition})" for _, _, condition, _ in changes)
    parameters += ids
    for (_, _, _, more), id in zip(changes, ids, strict=True):
        parameters += [id, *more]
    among = ", ".join([binary] * len(ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE deriv_transfers SET {sets} WHERE id IN ({among}) AND ({conditions})",  # noqa: S608 (names are ours)
            parameters,
        )


def to_domain(row: models.DerivTransfer) -> DerivTransfer:
    return DerivTransfer(
        id=RequestId(row.id),
        transaction_id=TransactionId(row.transaction_id),
        leg=Leg(row.leg),
        attempt=row.attempt,
        reference=row.reference,
        amount=Money(row.amount, Currency(row.currency)),
        send_before=row.send_before,
        created_at=row.created_at,
        status=RequestStatus(row.status),
        fence=row.fence,
        code=row.code,
        outcome_at=row.outcome_at,
        asked_at=row.asked_at,
        absences=row.absences,
        login=DerivLogin(DerivPlatform(row.platform), row.account, row.currency),
        agent=row.agent,
        provider_transaction_id=row.provider_transaction_id or "",
    )


def to_row(transfer: DerivTransfer) -> models.DerivTransfer:
    return models.DerivTransfer(
        id=transfer.id,
        transaction_id=transfer.transaction_id,
        leg=transfer.leg,
        attempt=transfer.attempt,
        reference=transfer.reference,
        platform=transfer.login.platform,
        agent=transfer.agent,
        account=transfer.login.account,
        amount=transfer.amount.amount,
        currency=transfer.amount.currency,
        status=transfer.status,
        fence=transfer.fence,
        code=transfer.code[:CODE_LENGTH],
        send_before=transfer.send_before,
        created_at=transfer.created_at,
        outcome_at=transfer.outcome_at,
        asked_at=transfer.asked_at,
        absences=transfer.absences,
        provider_transaction_id=transfer.provider_transaction_id or None,
    )
