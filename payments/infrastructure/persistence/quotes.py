"""`quotes` over Django."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from django.db import connection

from payments import models
from payments.domain.quote import Quote
from payments.domain.transaction import TransactionType
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.infrastructure.rows import binary_mark


@dataclass(frozen=True)
class DjangoQuoteBook:
    """`quotes`."""

    def add(self, quote: Quote) -> None:
        models.Quote.objects.bulk_create(
            [
                models.Quote(
                    id=quote.id,
                    user_id=quote.user_id,
                    type=quote.type,
                    send_amount=quote.you_send.amount,
                    send_currency=quote.you_send.currency,
                    get_amount=quote.you_get.amount,
                    get_currency=quote.you_get.currency,
                    mid=quote.rate.mid,
                    rate=quote.rate.rate,
                    rate_source=quote.rate.source,
                    created_at=quote.created_at,
                    expires_at=quote.expires_at,
                )
            ]
        )

    def take(self, id: QuoteId, transaction: TransactionId | None) -> Quote | None:
        mark = binary_mark()
        locking = " FOR UPDATE" if connection.features.has_select_for_update else ""
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {QUOTE} FROM quotes WHERE id = {mark}{locking}", [id.bytes])  # noqa: S608 - our names
            row = cursor.fetchone()
            if row is None:
                return None
            user, kind, sent, send, got, get, mid, rate, source, created_at, expires_at, used_by, agent = row
            if used_by is None and transaction is not None:
                cursor.execute(
                    f"UPDATE quotes SET transaction_id = {mark} WHERE id = {mark}",  # noqa: S608 - our own names
                    [transaction.bytes, id.bytes],
                )
        type = TransactionType(kind)
        you_send, you_get = Money(sent, Currency(send)), Money(got, Currency(get))
        base, quote = (you_get, you_send) if type is TransactionType.DEPOSIT else (you_send, you_get)
        made, ends = as_utc(created_at), as_utc(expires_at)
        return Quote(
            id,
            UserId(UUID(bytes=bytes(user))),
            type,
            you_send,
            you_get,
            LockedRate(base.currency, quote.currency, Decimal(str(mid)), Decimal(str(rate)), source, made, ends),
            made,
            ends,
            TransactionId(UUID(bytes=bytes(used_by))) if used_by else None,
            agent,
        )

    def name_agent(self, id: QuoteId, agent: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE quotes SET agent = %s WHERE id = {binary_mark()}", [agent, id.bytes])  # noqa: S608


QUOTE = (
    "user_id, type, send_amount, send_currency, get_amount, get_currency, mid, rate, rate_source, "
    "created_at, expires_at, transaction_id, agent"
)


def as_utc(value: datetime | str) -> datetime:
    """A time as a raw cursor gives it: naive UTC, on SQLite as text."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC)
