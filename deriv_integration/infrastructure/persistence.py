"""`deriv_transfers` and `deriv_agents` over Django: a group is one statement."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

from django.db import connection
from django.db.models import Q, Sum

from deriv_integration import models
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.ports import AuditLog, AuditRecord
from shared_kernel.domain.requests import (
    REVERTED,
    SEND_WINDOW,
    DerivLogin,
    DerivPlatform,
    DerivTransfer,
    Leg,
    RequestStatus,
)
from shared_kernel.infrastructure.encryption import encrypt
from shared_kernel.infrastructure.rows import binary_mark, insert

CODE_LENGTH = 128
UNSETTLED = [status for status in RequestStatus if status.may_take_effect]
MAY_BE_SENT = (RequestStatus.SENDING, RequestStatus.NOT_SENT)
STAYS = "status <> 'done'"
STAYS_DEAD = "status NOT IN ('done', 'closed')"  # proof of absence outranks not knowing


@dataclass(frozen=True)
class DjangoTransferRepository:
    """Rows of `deriv_transfers`; the caller's unit of work holds the lock on their Transactions."""

    def known_entries(self, agent: str, ids: Sequence[str]) -> set[str]:
        rows = models.DerivTransfer.objects.filter(agent=agent, provider_transaction_id__in=list(ids))
        return {id for id in rows.values_list("provider_transaction_id", flat=True) if id}

    def transfers_by(self, references: Sequence[str]) -> Mapping[str, DerivTransfer]:
        rows = models.DerivTransfer.objects.filter(reference__in=list(references)).defer("answer").order_by("attempt")
        return {row.reference: to_domain(row) for row in rows}

    def overdue(self, before: datetime, most: int) -> list[DerivTransfer]:
        rows = models.DerivTransfer.objects.filter(status__in=UNSETTLED, send_before__lt=before).defer("answer")
        return [to_domain(row) for row in rows.order_by("send_before")[:most]]

    def in_flight(self, agent: str, made_since: datetime | None) -> tuple[int, int]:
        rows = models.DerivTransfer.objects.filter(agent=agent)
        if made_since is None:
            rows = rows.filter(status__in=UNSETTLED)
        else:  # made since then, or sent once more
            again = Q(fence__gt=1, send_before__gte=made_since + SEND_WINDOW)
            rows = rows.filter(status__in=list(RequestStatus), send_before__gte=made_since)
            rows = rows.filter(Q(created_at__gte=made_since) | again)
        sums = dict(rows.order_by().values_list("leg").annotate(Sum("amount")))
        coming = sums.pop(Leg.DERIV_DEBIT, 0)
        return int(coming), int(sum(sums.values()))

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        found: dict[TransactionId, list[DerivTransfer]] = {id: [] for id in transactions}
        rows = models.DerivTransfer.objects.filter(transaction_id__in=list(found)).defer("answer")
        for row in rows.order_by("transaction_id", "leg", "attempt"):
            found[TransactionId(row.transaction_id)].append(to_domain(row))
        return found

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        insert([to_row(transfer) for transfer in transfers if transfer.fence == 1])
        update_rows([sent_again(transfer) for transfer in transfers if transfer.fence > 1])

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]], *, at: datetime) -> None:
        update_rows([outcome_of(transfer, outcome, at) for transfer, outcome in outcomes])

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        update_rows([decided(transfer) for transfer in transfers])

    def wipe_codes(self, before: datetime) -> int:
        held = models.DerivTransfer.objects.filter(status__in=MAY_BE_SENT, created_at__lt=before)
        return held.exclude(verification_code="").update(verification_code="")


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


@dataclass(frozen=True, slots=True)
class Sql:
    """In place of a value: an expression over the row as it was."""

    text: str


Change = tuple[dict[str, Any], DerivTransfer, str, list[Any]]
"""New values by column, the transfer they are for, and the SQL condition (with parameters) under which they count."""


def sent_again(transfer: DerivTransfer) -> Change:
    """A new sending of a known attempt: that the one before was left open stays remembered."""
    values = {
        # first: MySQL assigns from left to right, and this looks at the status as it was
        "was_unknown": Sql(
            "CASE WHEN status IN ('sending', 'unknown', 'repeatable', 'accepted') THEN 1 ELSE was_unknown END"
        ),
        "status": transfer.status,
        "fence": transfer.fence,
        "send_before": transfer.send_before,
        "outcome_at": None,
    }
    return values, transfer, f"fence < %s AND {STAYS}", [transfer.fence]


def decided(transfer: DerivTransfer) -> Change:
    """What the saga made of an attempt; its one-time code goes unless it may still be sent. Only what Deriv itself
    took back is no longer done.
    """
    values = {
        "was_unknown": True if transfer.status is RequestStatus.UNKNOWN else Sql("was_unknown"),
        "status": transfer.status,
        "code": transfer.code[:CODE_LENGTH],
        "outcome_at": transfer.outcome_at,
        "asked_at": transfer.asked_at,
        "absences": transfer.absences,
        "provider_transaction_id": transfer.provider_transaction_id or None,
        "verification_code": Sql("verification_code") if transfer.status in MAY_BE_SENT else "",
    }
    return values, transfer, "1 = 1" if transfer.code == REVERTED else STAYS, []


def outcome_of(transfer: DerivTransfer, outcome: Outcome, at: datetime) -> Change:
    """What an outcome writes, and when it counts."""
    always: tuple[str, list[Any]] = (STAYS, [])
    while_open: tuple[str, list[Any]] = (STAYS_DEAD, [])
    newest: tuple[str, list[Any]] = (f"fence = %s AND {STAYS_DEAD}", [transfer.fence])
    id: str | None = None
    status: RequestStatus | Sql
    match outcome:
        case Done(reference):
            id = reference or None
            status, code, counts = RequestStatus.DONE, "", always
        case Accepted():
            status, code, counts = RequestStatus.ACCEPTED, "", while_open
        case Refused(code):  # of a repetition: it says nothing about the sending that was left open
            status, counts = Sql("CASE WHEN was_unknown = 1 THEN 'unknown' ELSE 'refused' END"), newest
        case NotSent(code):
            status, counts = Sql("CASE WHEN was_unknown = 1 THEN 'unknown' ELSE 'not_sent' END"), newest
        case Unknown(code):
            status, counts = RequestStatus.UNKNOWN, while_open
        case _:
            assert_never(outcome)
    values = {
        "was_unknown": True if isinstance(outcome, Unknown) else Sql("was_unknown"),
        "status": status,
        "code": code[:CODE_LENGTH],
        "outcome_at": at,
        "provider_transaction_id": id,
        "verification_code": Sql("verification_code") if isinstance(outcome, NotSent) else "",
        "answer": outcome.answer and encrypt(outcome.answer, f"deriv_transfers.answer|{transfer.id}"),
    }
    return values, transfer, *counts


def update_rows(changes: Sequence[Change]) -> None:
    """One UPDATE for a group of rows, each under its own condition. All changes name the same columns.

    Django's multi-row upsert won't do: on MySQL a Deriv id that another row holds would change that row, not fail.
    """
    if not changes:
        return
    binary = binary_mark()
    ids = [transfer.id.bytes for _, transfer, _, _ in changes]
    sets, parameters = [], list[Any]()
    for column in changes[0][0]:
        cases, more = _cases(column, [values[column] for values, *_ in changes], ids, binary)
        sets.append(f"{column} = CASE id {cases} END")
        parameters += more
    conditions = " OR ".join(f"(id = {binary} AND {condition})" for _, _, condition, _ in changes)
    parameters += ids
    for (_, _, _, needed), id in zip(changes, ids, strict=True):
        parameters += [id, *needed]
    among = ", ".join([binary] * len(ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE deriv_transfers SET {', '.join(sets)} WHERE id IN ({among}) AND ({conditions})",  # noqa: S608 (names are ours)
            parameters,
        )


def _cases(column: str, values: Sequence[Any], ids: Sequence[bytes], binary: str) -> tuple[str, list[Any]]:
    """`WHEN id THEN value` for each row, and the parameters."""
    fields: Any = models.DerivTransfer._meta
    prepare = fields.get_field(column).get_db_prep_save
    cases, parameters = [], list[Any]()
    for value, id in zip(values, ids, strict=True):
        cases.append(f"WHEN {binary} THEN {value.text if isinstance(value, Sql) else '%s'}")
        parameters += [id] if isinstance(value, Sql) else [id, prepare(value, connection)]
    return " ".join(cases), parameters


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
        was_unknown=row.was_unknown,
        login=DerivLogin(DerivPlatform(row.platform), row.account, row.currency),
        agent=row.agent,
        provider_transaction_id=row.provider_transaction_id or "",
        verification_code=row.verification_code,
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
        was_unknown=transfer.was_unknown,
        provider_transaction_id=transfer.provider_transaction_id or None,
        verification_code=transfer.verification_code,
    )
