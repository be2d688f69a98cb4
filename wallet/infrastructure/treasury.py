"""`treasury_movements` over Django, and the entries that belong to them."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Exists, OuterRef

from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.rows import insert
from wallet import models
from wallet.domain.ledger import Account, AccountKind, PostedEntry, keys_of, settlements_of
from wallet.domain.treasury import Kind, Leg, Movement, MovementNotFound, Status, Voucher, plain_key
from wallet.infrastructure.guards import DECIDED
from wallet.infrastructure.persistence import to_domain as to_entry, used_settlements

MOST_ENTRIES = 4  # of one leg that is no reversal: only such are looked for
_UNREVERSED = ~Exists(models.LedgerEntry.objects.filter(reverses=OuterRef("id")))
_UNDONE = Exists(models.LedgerEntry.objects.filter(reverses=OuterRef("id"), provider_key=None))


@dataclass(frozen=True)
class DjangoTreasuryBook:
    """Joins the caller's unit of work."""

    def add(self, movement: Movement) -> None:
        insert([to_row(movement)])

    def save(self, movement: Movement) -> None:
        to_row(movement).save(force_update=True, update_fields=DECIDED)

    def get(self, id: UUID) -> Movement:
        row = models.TreasuryMovement.objects.select_for_update().filter(pk=id).first()
        if row is None:
            raise MovementNotFound(f"no treasury movement {id}")
        return to_domain(row)

    def one_at_a_time(self) -> None:
        """By locking all that waits, in one order: whoever approves anything waits for whoever came first."""
        waiting = models.TreasuryMovement.objects.filter(status__in=[Status.PROPOSED, Status.ARRIVING])
        list(waiting.order_by("pk").select_for_update().values_list("pk"))

    def standing(self, movement: Movement) -> list[PostedEntry]:
        keys = {plain_key(key) for leg in Leg if (key := movement.provider_key(leg))}
        journals = [f"treasury:{movement.id}:{leg}" for leg in Leg]
        journals += [settles for key in sorted(keys) for settles in settlements_of(key)]
        posted = models.LedgerEntry.objects.select_related("debit_account", "credit_account").filter(
            _UNREVERSED,
            reference__in=[f"{name}:{number}" for name in journals for number in range(1, MOST_ENTRIES + 1)],
            purpose__in=[movement.purpose(leg) for leg in Leg],
        )
        return [to_entry(row) for row in posted.order_by("seq")]

    def undone(self, provider_keys: Collection[str]) -> set[str]:
        rows = models.LedgerEntry.objects.filter(_UNDONE, provider_key__in=list(provider_keys))
        return {str(key) for key in rows.values_list("provider_key", flat=True)}

    def in_suspense(self, provider_key: str) -> PostedEntry | None:
        posted = models.LedgerEntry.objects.select_related("debit_account", "credit_account")
        ways = ["suspense_in", "suspense_out"]
        row = posted.filter(_UNREVERSED, provider_key__in=keys_of(provider_key), purpose__in=ways).first()
        if row is None or any(used_settlements(settlements_of(provider_key)).values()):
            return None
        return to_entry(row)

    def is_opened(self, account: Account) -> bool:
        opened = models.TreasuryMovement.objects.filter(
            kind=Kind.OPENING_BALANCE, status=Status.POSTED, currency=account.currency
        )
        return opened.filter(target_kind=account.kind, target_owner=account.owner).exists()


def to_row(movement: Movement) -> models.TreasuryMovement:
    got, arrival = movement.got, movement.arrival
    return models.TreasuryMovement(
        id=movement.id,
        kind=movement.kind,
        status=movement.status,
        amount=movement.amount.amount,
        currency=movement.amount.currency,
        got=got.amount if got else None,
        got_currency=got.currency if got else "",
        source_kind=movement.source.kind,
        source_owner=movement.source.owner,
        target_kind=movement.target.kind,
        target_owner=movement.target.owner,
        reference=movement.voucher.reference,
        day=movement.voucher.day,
        why=movement.why,
        reverses=movement.reverses,
        drafted_by=movement.drafted_by,
        at=movement.at,
        by=movement.by,
        approved_by=movement.approved_by,
        approved_at=movement.approved_at,
        arrival_reference=arrival.reference if arrival else "",
        arrival_day=arrival.day if arrival else None,
        charge=movement.charge,
        lost=movement.lost,
        arrival_by=movement.arrival_by,
        arrival_approved_by=movement.arrival_approved_by,
        closed_by=movement.closed_by,
        closed_why=movement.closed_why,
        closed_at=movement.closed_at,
    )


def to_domain(row: models.TreasuryMovement) -> Movement:
    amount = Money(row.amount, Currency(row.currency))
    got = None if row.got is None else Money(row.got, Currency(row.got_currency))
    source_currency, target_currency = amount.currency, (got or amount).currency
    if row.kind == Kind.REVERSAL:
        source_currency, target_currency = target_currency, source_currency
    return Movement(
        id=row.id,
        kind=Kind(row.kind),
        status=Status(row.status),
        amount=amount,
        got=got,
        source=Account(AccountKind(row.source_kind), source_currency, row.source_owner),
        target=Account(AccountKind(row.target_kind), target_currency, row.target_owner),
        voucher=Voucher(row.reference, row.day),
        why=row.why,
        reverses=row.reverses,
        drafted_by=row.drafted_by,
        at=row.at,
        by=row.by,
        approved_by=row.approved_by,
        approved_at=row.approved_at,
        arrival=None if row.arrival_day is None else Voucher(row.arrival_reference, row.arrival_day),
        charge=row.charge,
        lost=row.lost,
        arrival_by=row.arrival_by,
        arrival_approved_by=row.arrival_approved_by,
        closed_by=row.closed_by,
        closed_why=row.closed_why,
        closed_at=row.closed_at,
    )
