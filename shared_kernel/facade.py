"""The shared kernel's door for edges (views, workers, admin, commands): they reach its adapters through here."""

from django.conf import settings
from django.utils.module_loading import import_string

from shared_kernel.application.delivery import DeadLetters, Delivery, Relay, Subscriptions, retry_after
from shared_kernel.domain.budgets import Budgets
from shared_kernel.infrastructure.broker import CeleryBroker, wake
from shared_kernel.infrastructure.budgets import SharedBudgets
from shared_kernel.infrastructure.encryption import BlindIndexField, EncryptedField
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
from shared_kernel.queries import event, oldest_waiting, outbox_state, parked_events

__all__ = [
    "BlindIndexField",
    "EncryptedField",
    "acting_as",
    "audit",
    "budgets",
    "current_context",
    "dead_letters",
    "delivery",
    "event",
    "lock_lost",
    "new_id",
    "now",
    "oldest_waiting",
    "outbox_queue",
    "outbox_state",
    "parked_events",
    "relay",
    "subscriptions",
    "too_wide",
    "unit_of_work",
    "wake",
]


def subscriptions() -> Subscriptions:
    """Who follows which event: the table that `settings.SUBSCRIPTIONS` names, loaded when it is first needed."""
    table: Subscriptions = import_string(settings.SUBSCRIPTIONS)
    return table


audit = DjangoAuditLog()
outbox_queue = DjangoOutboxQueue(retry_after)
relay = Relay(outbox_queue, CeleryBroker(), subscriptions, hold_at=settings.RELAY_HOLD_AT)
dead_letters = DeadLetters(DjangoParkedEvents(), audit, unit_of_work, now)
budgets: Budgets = SharedBudgets(settings.BUDGET_RATES, settings.REDIS_URL, shares=settings.BUDGET_SHARES)
delivery = Delivery(outbox_queue, CeleryBroker(), DjangoIdempotencyKeys(), unit_of_work, acting_as, subscriptions)
