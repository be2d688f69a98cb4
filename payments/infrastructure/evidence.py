"""The records of one Transaction, from the tables of all contexts, as of one moment."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from deriv_integration.facade import queries as deriv
from identity.facade import queries as identity
from mpesa_integration.facade import queries as mpesa
from payments import models
from payments.domain.evidence import TOLD, Records
from shared_kernel.domain.errors import Unprocessable
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.facade import AUDIT_CHAIN, chain_check, seals_of_rows
from shared_kernel.infrastructure.encryption import legible
from shared_kernel.queries import audit_of, events_of
from wallet.facade import entries_of, snapshot

LEDGER_CHAIN = "ledger_entries"
MOST_ENTRIES = 500  # what `entries_of` reads at most
_SEALED = {
    models.Transaction: ("phone", "deriv_account"),
    models.Proposal: ("reference", "phone", "deriv_account"),
    models.OrphanMovement: ("reference",),
}


class StoryTooLong(Unprocessable):
    """There is more than one file tells; nothing is left out of it silently."""


@dataclass(frozen=True)
class DjangoArchive:
    """Reads as many rows as there are, in a fixed number of SELECTs."""

    def records(self, id: TransactionId) -> Records | None:
        with snapshot():
            row = models.Transaction.objects.filter(pk=id).first()
            return None if row is None else _records(row)

    def hashes_told(self, id: UUID) -> set[str]:
        return {
            str(row["details"].get("sha256")) for row in audit_of([("transaction", str(id))]) if row["action"] == TOLD
        }

    def is_there(self, id: TransactionId) -> bool:
        return models.Transaction.objects.filter(pk=id).exists()


def _records(row: models.Transaction) -> Records:
    quote = models.Quote.objects.filter(pk=row.quote_id).values().first()
    requests, callbacks = mpesa.requests_of(row.id), mpesa.callbacks_of(row.id)
    transfers = deriv.transfers_of(row.id)
    orphans = _plain(models.OrphanMovement.objects.filter(transaction_id=row.id).order_by("found_at"))
    breaks = [
        dict(one) for one in models.ReconciliationBreak.objects.filter(transaction_id=row.id).order_by("pk").values()
    ]
    audit = audit_of(_targets(row, requests, callbacks, transfers, orphans, breaks))
    entries = _entries(row.id)
    return Records(
        transaction=_clear(row),
        quote=dict(quote or {}),
        customer=identity.party(row.user_id),
        device=_device(audit),
        mpesa=requests,
        callbacks=callbacks,
        deriv=transfers,
        events=events_of(row.id),
        entries=entries,
        proposals=_plain(models.Proposal.objects.filter(transaction_id=row.id).order_by("at")),
        reservations=[dict(one) for one in models.FloatReservation.objects.filter(pk=row.id).values()],
        orphans=orphans,
        breaks=breaks,
        audit=audit,
        seals=[*_seals(LEDGER_CHAIN, entries), *_seals(AUDIT_CHAIN, audit)],
    )


def _targets(row: models.Transaction, *of: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What audit rows about this Transaction may name as their target."""
    kinds = ("mpesa_request", "mpesa_callback", "deriv_transfer", "orphan", "reconciliation_break")
    parts = [(kind, str(one["id"])) for kind, rows in zip(kinds, of, strict=True) for one in rows]
    return [("transaction", str(row.id)), ("quote", str(row.quote_id)), *parts]


def _device(audit: list[dict[str, Any]]) -> dict[str, Any]:
    """The one that the command came from; what is not an id of ours (a machine's name) is no device of a customer."""
    try:
        return identity.device(UUID(audit[0]["device"])) if audit else {}
    except ValueError:
        return {}


def _entries(id: UUID) -> list[dict[str, Any]]:
    entries = entries_of(id)
    if len(entries) >= MOST_ENTRIES:
        raise StoryTooLong(f"{id} has {MOST_ENTRIES} ledger entries or more: its story does not fit into one file")
    return [asdict(entry) for entry in entries]


def _seals(chain: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Which Seal covers which of these rows, whether both are as they were sealed, and what the anchor says of it."""
    seqs = sorted(row["seq"] for row in rows)
    sealed = {seq: number for seq, (number, _) in seals_of_rows(chain, seqs).items()}
    for one in chain_check.look(chain, sealed):
        yield {
            "table": chain,
            "rows": _ranges(one.seqs),
            "seal": one.seal.number,
            "sealed_at": one.seal.sealed_at,
            "check": one.wrong or "as sealed",
            "anchor": one.anchor,
            "hash": one.seal.hash,
        }
    if open_ones := [seq for seq in seqs if seq not in sealed]:
        yield {"table": chain, "rows": _ranges(open_ones), "seal": "none", "check": "not sealed yet"}


def _ranges(seqs: list[int]) -> str:
    """`4, 7-9`"""
    runs: list[list[int]] = []
    for seq in seqs:
        if runs and seq == runs[-1][-1] + 1:
            runs[-1].append(seq)
        else:
            runs.append([seq])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _plain(rows: Any) -> list[dict[str, Any]]:
    return [_clear(row) for row in rows]


def _clear(row: Any) -> dict[str, Any]:
    sealed = _SEALED[type(row)]
    return {
        field.attname: legible(row, field.attname) if field.attname in sealed else getattr(row, field.attname)
        for field in row._meta.concrete_fields
    }
