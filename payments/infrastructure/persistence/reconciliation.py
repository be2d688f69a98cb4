"""`reconciliation_breaks` and `reconciliation_runs` over Django, and the ledger's float legs as providers know them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError

from payments import models
from payments.domain.orphan import Provider
from payments.domain.reconciliation import (
    Break,
    BreakKind,
    BreakNotFound,
    BreakStatus,
    FloatAccountKind,
    Leg,
    Report,
    Resolution,
    Result,
    RunsOverlap,
    money,
)
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import Leg as RequestLeg, MpesaRequest
from shared_kernel.infrastructure.persistence import current_context
from shared_kernel.infrastructure.rows import insert, same, update
from wallet.facade import FloatLeg, float_legs_recorded, float_legs_under

UUID_LENGTH = 36
MOST_SHOWN = 10  # breaks about one movement
CHANGES = (
    "theirs", "ours", "transaction_id", "provider_key", "status", "resolution", "resolved_by", "why", "resolved_at",
    "approved_by", "opened_at", "closed_at",
)  # fmt: skip

OF_BREAK = (
    "id", "account", "provider_key", "at", "opened_at", "owner", "resolved_by", "why", "resolved_at", "approved_by",
    "closed_at",
)  # fmt: skip
OF_RUN = (
    "id", "provider", "account", "sub_account", "since", "until", "read_since", "digest", "unchecked", "opened",
    "closed", "still_open", "at",
)  # fmt: skip


class DjangoBreakBook:
    """Joins the caller's unit of work."""

    def of(self, provider: Provider, account: str, sub_account: FloatAccountKind) -> list[Break]:
        rows = models.ReconciliationBreak.objects.select_for_update().filter(
            provider=provider, account=account, sub_account=sub_account
        )
        open_ones = rows.filter(status__in=[BreakStatus.OPEN, BreakStatus.PROPOSED])
        return [to_break(row) for row in open_ones.order_by("pk")]

    def closed(
        self, provider: Provider, account: str, sub_account: FloatAccountKind, names: Sequence[str]
    ) -> list[Break]:
        rows = models.ReconciliationBreak.objects.select_for_update().filter(
            provider=provider, account=account, sub_account=sub_account, known_as__in=list(names)
        )
        return [to_break(row) for row in rows.filter(status__in=[BreakStatus.RESOLVED, BreakStatus.MATCHED])]

    def get(self, id: UUID) -> Break:
        row = models.ReconciliationBreak.objects.select_for_update().filter(pk=id).first()
        if row is None:
            raise BreakNotFound(f"no break {id}")
        return to_break(row)

    def shown(self, provider: Provider, movement: str) -> list[Break]:
        rows = models.ReconciliationBreak.objects.select_for_update().filter(
            provider=provider, status=BreakStatus.OPEN, movement=movement
        )
        return [to_break(row) for row in rows.order_by("pk")[:MOST_SHOWN]]

    def add(self, breaks: Sequence[Break]) -> None:
        try:
            insert([to_row(found) for found in breaks])
        except IntegrityError as error:
            raise RunsOverlap(
                "another run found the same at this moment, and nothing was stored: run it again"
            ) from error

    def save(self, breaks: Sequence[Break]) -> None:
        update([to_row(found) for found in breaks], CHANGES)

    def reported(
        self, provider: Provider, account: str, digest: str, since: datetime, until: datetime
    ) -> Report | None:
        runs = models.ReconciliationRun.objects.filter(provider=provider, account=account, digest=digest)
        row = runs.filter(since=since, until__gte=until).order_by("pk").first()
        return None if row is None else to_report(row)

    def report(self, report: Report) -> None:
        counts = {str(result): report.counts[result] for result in Result}
        told = same(report, OF_RUN) | {"source": report.source[:128], "by": current_context().actor}
        insert([models.ReconciliationRun(**told, **counts)])


def to_row(found: Break) -> models.ReconciliationBreak:
    either = found.theirs if found.theirs is not None else found.ours
    return models.ReconciliationBreak(
        **same(found, OF_BREAK),
        kind=found.kind,
        provider=found.provider,
        sub_account=found.sub_account,
        known_as=found.known_as[:96],
        movement=found.movement[:96],
        reference=found.reference[:96],
        theirs=None if found.theirs is None else found.theirs.amount,
        ours=None if found.ours is None else found.ours.amount,
        currency=either.currency if either is not None else "",
        transaction_id=found.transaction,
        status=found.status,
        resolution=found.resolution or "",
    )


def to_break(row: models.ReconciliationBreak) -> Break:
    return Break(
        **same(row, (*OF_BREAK, "known_as", "movement", "reference")),
        kind=BreakKind(row.kind),
        provider=Provider(row.provider),
        sub_account=FloatAccountKind(row.sub_account),
        theirs=money(row.theirs, row.currency),
        ours=money(row.ours, row.currency),
        transaction=TransactionId(row.transaction_id) if row.transaction_id else None,
        status=BreakStatus(row.status),
        resolution=Resolution(row.resolution) if row.resolution else None,
    )


def to_report(row: models.ReconciliationRun) -> Report:
    kinds = {"provider": Provider(row.provider), "sub_account": FloatAccountKind(row.sub_account)}
    counts = {str(result): getattr(row, result) for result in Result}
    return Report(**same(row, OF_RUN) | kinds, source=row.source, by=row.by, counts=counts)


@dataclass(frozen=True)
class LedgerLegs:
    """The ledger's float legs; those of M-Pesa by the receipts of the attempts that their keys name."""

    attempts: Callable[[Sequence[RequestId], Sequence[str]], Sequence[MpesaRequest]]

    def recorded(self, kind: FloatAccountKind, account: str, since: datetime, until: datetime) -> list[Leg]:
        return self._named(float_legs_recorded(kind, account, since, until))

    def under(self, provider_keys: Iterable[str]) -> list[Leg]:
        return self._named(float_legs_under(sorted(set(provider_keys))))

    def _named(self, legs: Sequence[FloatLeg]) -> list[Leg]:
        ids = {id for leg in legs if (id := _request_of(leg.provider_key)) is not None}
        requests = {request.id: request for request in self.attempts(sorted(ids), [])} if ids else {}
        return [_leg(leg, requests) for leg in legs]


def _leg(leg: FloatLeg, requests: dict[RequestId, MpesaRequest]) -> Leg:
    name, *more = leg.provider_key.split(":")[2:]
    id = _request_of(leg.provider_key)
    reference, request = "", requests.get(id) if id is not None else None
    if request is not None:
        name = request.about if request.leg is RequestLeg.REVERSAL else request.receipt or f"request {request.id}"
        more = ["reverted"] if request.leg is RequestLeg.REVERSAL else more
        reference = "" if request.receipt or request.leg is not RequestLeg.STK_PUSH else request.reference
    suffix = ":fee" if "fee" in more else ":reverted" if {"reverted", "reversed"} & set(more) else ""
    return Leg(
        id=name + suffix,
        provider_key=leg.provider_key,
        kind=FloatAccountKind(leg.kind),
        account=leg.owner,
        amount=Money(leg.amount, Currency(leg.currency)),
        effective_at=leg.effective_at,
        recorded_at=leg.recorded_at,
        transaction=TransactionId(leg.transaction_id) if leg.transaction_id else None,
        purpose=leg.purpose,
        reference=reference.upper(),
    )


def _request_of(provider_key: str) -> RequestId | None:
    """A key of M-Pesa's names our attempt where M-Pesa's own receipt may come later."""
    provider, _, name = provider_key.partition(":")
    name = name.partition(":")[2].partition(":")[0]
    if provider != Provider.MPESA or len(name) != UUID_LENGTH:
        return None
    try:
        return RequestId(UUID(name))
    except ValueError:
        return None
