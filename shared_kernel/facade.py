"""The shared kernel's door for edges (views, workers, admin, commands): they reach its adapters through here."""

from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.utils.module_loading import import_string

from shared_kernel import models
from shared_kernel.application.continuing import Continuation, Continuing, Ends
from shared_kernel.application.delivery import DeadLetters, Delivery, Relay, Subscriptions, retry_after
from shared_kernel.application.sealing import LATE as SEALING_STANDS, ChainCheck, ChainReport, Sealing
from shared_kernel.domain.budgets import Budgets
from shared_kernel.infrastructure import append_only
from shared_kernel.infrastructure.anchor import FileAnchor
from shared_kernel.infrastructure.broker import CeleryBroker, wake
from shared_kernel.infrastructure.budgets import SharedBudgets
from shared_kernel.infrastructure.consents import DjangoConsents
from shared_kernel.infrastructure.coordination import DjangoLeases
from shared_kernel.infrastructure.encryption import BlindIndexField, EncryptedField, key_ids as encryption_key_ids
from shared_kernel.infrastructure.grants import too_wide
from shared_kernel.infrastructure.outbox import DjangoOutboxQueue, DjangoParkedEvents
from shared_kernel.infrastructure.persistence import (
    DjangoAuditLog,
    DjangoIdempotencyKeys,
    acting_as,
    current_context,
    lock_lost,
    new_id,
    now,
    unit_of_work,
)
from shared_kernel.infrastructure.rate_limits import SharedLimiter
from shared_kernel.infrastructure.retention import Expired, expired_counters, expired_keys, rows_of
from shared_kernel.infrastructure.rotation import (
    Held,
    Rotated,
    held as encryption_keys_held,
    rotate as rotate_encryption_keys,
)
from shared_kernel.infrastructure.seals import AUDIT_LOGS, DjangoSealBook, sealed_tables
from shared_kernel.infrastructure.spreadsheets import Cell, SheetFull, write_workbook
from shared_kernel.queries import event, oldest_waiting, outbox_state, parked_events, seals_of_rows

__all__ = [
    "AUDIT_CHAIN",
    "SEALING_STANDS",
    "BlindIndexField",
    "Cell",
    "ChainReport",
    "Continuation",
    "EncryptedField",
    "Ends",
    "Expired",
    "Held",
    "Rotated",
    "SheetFull",
    "acting_as",
    "audit",
    "budgets",
    "chain_check",
    "continuing",
    "current_context",
    "dead_letters",
    "delivery",
    "encryption_key_ids",
    "encryption_keys_held",
    "event",
    "expired_counters",
    "expired_keys",
    "limiter",
    "lock_lost",
    "missing_guards",
    "new_id",
    "now",
    "oldest_waiting",
    "outbox_queue",
    "outbox_state",
    "parked_events",
    "relay",
    "rotate_encryption_keys",
    "rows_of",
    "sealed_tables",
    "sealing",
    "seals_of_rows",
    "subscriptions",
    "too_wide",
    "unit_of_work",
    "unsealed_since",
    "wake",
    "write_workbook",
]


def unsealed_since() -> dict[str, datetime | None]:
    """For each chain when its oldest row was recorded that has no Seal yet; one SELECT each."""
    return {chain: seal_book.unsealed_since(chain) for chain in sealed_tables()}


def subscriptions() -> Subscriptions:
    """Who follows which event: the table that `settings.SUBSCRIPTIONS` names, loaded when it is first needed."""
    table: Subscriptions = import_string(settings.SUBSCRIPTIONS)
    return table


audit = DjangoAuditLog()
outbox_queue = DjangoOutboxQueue(retry_after)
relay = Relay(outbox_queue, CeleryBroker(), subscriptions, hold_at=settings.RELAY_HOLD_AT)
dead_letters = DeadLetters(DjangoParkedEvents(), audit, unit_of_work, now)
AUDIT_CHAIN = AUDIT_LOGS.name
missing_guards = append_only.missing
_anchor = FileAnchor(lambda: Path(settings.SEAL_ANCHOR), lambda: str(settings.SEAL_ANCHOR_KEY), now)
seal_book = DjangoSealBook()
sealing = Sealing(seal_book, _anchor, DjangoLeases(), unit_of_work, new_id, now)
chain_check = ChainCheck(seal_book, _anchor, now)
continuing = Continuing(
    sealing,
    chain_check,
    DjangoConsents(models.AnchorContinuation, Continuation),
    audit,
    DjangoLeases(),
    unit_of_work,
    new_id,
    now,
)
budgets: Budgets = SharedBudgets(settings.BUDGET_RATES, settings.REDIS_URL, shares=settings.BUDGET_SHARES)
limiter = SharedLimiter(settings.RATE_LIMITS, settings.REDIS_URL)
delivery = Delivery(outbox_queue, CeleryBroker(), DjangoIdempotencyKeys(), unit_of_work, acting_as, subscriptions)
