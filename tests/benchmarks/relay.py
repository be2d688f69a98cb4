"""Events a second from the outbox to the broker, by one relay; and the floor: the same rows and bytes by hand."""

import json
import time
from dataclasses import replace
from typing import Any

import MySQLdb
import redis
from django.conf import settings

from shared_kernel import models
from shared_kernel.domain.events import TransactionCreated
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import relay
from shared_kernel.infrastructure.broker import celery_app
from shared_kernel.infrastructure.persistence import new_id, now
from tests.benchmarks.world import options

BATCH, GROUP = 500, 100


def fill(count: int) -> None:
    """`count` events that wait, of a type that has a subscriber, about Transactions that are not there."""
    at = now()
    for start in range(0, count, 2000):
        made = []
        for _ in range(min(2000, count - start)):
            id = new_id()
            event = TransactionCreated(
                transaction_id=TransactionId(id), user_id=UserId(id), type="deposit", quote_id=QuoteId(id),
                amount=Money(130000, Currency.KES), occurred_at=at,
            )  # fmt: skip
            made.append(
                models.DomainEvent(
                    id=new_id(), type="TransactionCreated", aggregate_id=id, payload=event.to_payload(),
                    context={"actor": f"user:{id}", "device": str(id), "address": "127.0.0.1", "request_id": id.hex},
                    occurred_at=at,
                )
            )  # fmt: skip
        models.DomainEvent.objects.bulk_create(made)


def per_s(count: int) -> float:
    """Events a second of the relay, in this process."""
    fill(count)
    began = time.perf_counter()
    published = replace(relay, hold_at=0).drain()  # no worker takes what it publishes
    took = time.perf_counter() - began
    forget()
    left = models.DomainEvent.objects.filter(published_at=None).count()
    assert not left, f"{left} of {count} events are left, {published} went"
    return published / took


def floor_per_s(count: int) -> float:
    """The same by hand: lock 500, push them as 5 messages in one round trip, mark them, commit; no Celery, no ORM."""
    fill(count)
    connection, broker = MySQLdb.connect(**options()), redis.Redis.from_url(settings.CELERY_BROKER_URL)
    cursor, done = connection.cursor(), 0
    began = time.perf_counter()
    while rows := _claim(cursor):
        pipeline = broker.pipeline(transaction=False)
        for start in range(0, len(rows), GROUP):
            pipeline.lpush("bench-floor", json.dumps([_plain(row) for row in rows[start : start + GROUP]]))
        pipeline.execute()
        places = ", ".join(str(row[0]) for row in rows)
        cursor.execute(f"UPDATE domain_events SET published_at = NOW(6) WHERE seq IN ({places})")
        connection.commit()
        done += len(rows)
    took = time.perf_counter() - began
    broker.delete("bench-floor")
    connection.close()
    return done / took


def _claim(cursor: Any) -> list[tuple[Any, ...]]:
    cursor.execute(
        "SELECT seq, id, type, aggregate_id, payload, context FROM domain_events WHERE published_at IS NULL "
        f"ORDER BY seq LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
    )
    return list(cursor.fetchall())


def _plain(row: tuple[Any, ...]) -> dict[str, str]:
    return {"id": row[1].hex(), "aggregate_id": row[3].hex(), "payload": row[4], "context": row[5]}


def forget() -> None:
    """Takes the messages out of the queues again, and the events that nobody should deliver."""
    with celery_app().connection_for_write() as connection:
        for queue in ("steps", "relay"):
            connection.default_channel.queue_purge(queue)
