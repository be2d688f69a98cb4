"""The kernel's Celery tasks: the relay of the outbox, the delivery of events to their subscribers, and
sealing."""

import logging
from typing import Any
from uuid import UUID

from celery import shared_task
from django.db import close_old_connections

from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.ports import Context, Letter
from shared_kernel.facade import delivery, relay, sealed_tables, sealing, wake

SETTLED_AFTER_S = 10  # longer than a statement takes from the seq that it is given to the row that it stores

log = logging.getLogger(__name__)

_down: list[str] = []  # the error that keeps this process from publishing; told once, and again when it is over


@shared_task  # type: ignore[untyped-decorator]
def relay_outbox() -> None:
    """Publishes what waits. Woken after commits and by beat."""
    drain()


def drain() -> int | None:
    """How many events were published; None if the broker or the database could not be reached: they go next time."""
    close_old_connections()
    try:
        published = relay.drain()
    except Exception as error:
        if not _down:
            log.exception("relay_cannot_publish")
            _down.append(type(error).__name__)
        return None
    if _down:
        log.info("relay_publishes_again", extra={"after": _down.pop()})
    return published


@shared_task(bind=True)  # type: ignore[untyped-decorator]
def deliver_events(self: Any, *, type_name: str, events: list[dict[str, Any]]) -> None:
    """`events` of one type (`id`, `aggregate_id`, `payload` as JSON text, `context`) to its subscribers."""
    letters = [
        Letter(
            UUID(event["id"]), type_name, UUID(event["aggregate_id"]), event["payload"], Context.known(event["context"])
        )
        for event in events
    ]
    delivery.deliver(letters, redelivered=bool((self.request.delivery_info or {}).get("redelivered")))
    wake()  # the relay may have held events back while this message waited


@shared_task  # type: ignore[untyped-decorator]
def find_unsealed() -> None:
    """Looks how far the chains reach now, and has them sealed up to there a little later. By beat."""
    for chain in sealed_tables():
        up_to = sealing.horizon(chain)
        seal_rows.apply_async(kwargs={"chain": chain, "up_to": up_to}, countdown=SETTLED_AFTER_S, expires=300)


@shared_task  # type: ignore[untyped-decorator]
def seal_rows(*, chain: str, up_to: int) -> None:
    """Seals the rows of `chain` up to a horizon of some seconds ago. A lost message costs a minute."""
    try:
        sealing.seal(chain, up_to)
    except DomainError as refused:  # the anchor contradicts, or is out of reach: nothing is sealed
        log.error("sealing_refused", extra={"chain": chain, "reason": refused.detail})
