"""Subscribers whose effects can be counted: audit rows. What they do is told by an event's `reason`."""

import os
import signal

from django.utils import timezone

from shared_kernel.application.delivery import Keyed, Lasting, Subscriptions
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.events import AttentionNeeded, MpesaCallbackReceived, TransactionEnded
from shared_kernel.domain.identifiers import RequestId, TransactionId, UserId
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.infrastructure.persistence import DjangoAuditLog, new_id, unit_of_work


class Poisoned(Exception):
    pass


def note(events):
    """Notes each event in the caller's unit of work."""
    for event in events:
        if event.reason == "poison":
            raise Poisoned(f"cannot digest +254712345678 of {event.aggregate_id}")
        if event.reason.startswith("full"):
            raise Unavailable("no room", retry_after=int(event.reason.removeprefix("full")))
        if event.reason == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
    DjangoAuditLog().append(
        AuditRecord("test.noted", "transaction", str(event.aggregate_id), timezone.now()) for event in events
    )


def see(events):
    """Notes that each event was seen, in a unit of work of its own."""
    with unit_of_work():
        DjangoAuditLog().append(
            AuditRecord("test.seen", "transaction", str(event.aggregate_id), timezone.now()) for event in events
        )


SUBSCRIPTIONS: Subscriptions = {
    AttentionNeeded: [Keyed("tests.note", note)],
    TransactionEnded: [Lasting(see)],
    MpesaCallbackReceived: [see],
}


def attention(reason="", transaction_id=None):
    """An event for `note`."""
    return AttentionNeeded(
        transaction_id=transaction_id or TransactionId(new_id()),
        user_id=UserId(new_id()),
        reason=reason,
        occurred_at=timezone.now(),
    )


def callback(transaction_id=None):
    """An event for `see`."""
    return MpesaCallbackReceived(
        transaction_id=transaction_id or TransactionId(new_id()),
        request_id=RequestId(new_id()),
        occurred_at=timezone.now(),
    )


def ended(transaction_id=None):
    """An event for `see` that must not be missed."""
    return TransactionEnded(
        transaction_id=transaction_id or TransactionId(new_id()),
        user_id=UserId(new_id()),
        type="deposit",
        status="FAILED",
        reason="",
        occurred_at=timezone.now(),
    )
