"""What goes out, and the two headers that shape it: pages by cursor, and answers that are repeated."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.core import signing
from django.db.models import Model, Q, QuerySet
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.mediatypes import media_type_matches

from shared_kernel.domain.errors import BadRequest
from shared_kernel.domain.identifiers import IdempotencyKey

M = TypeVar("M", bound=Model)
T = TypeVar("T")
MAX_PAGE = 100
LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 20}  # `?limit=`, for the OpenAPI document
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class IdempotencyKeyMissing(BadRequest):
    """The request moves money and has no `Idempotency-Key`."""


class InvalidCursor(BadRequest):
    """Not a cursor that this list gave out."""


class InvalidLimit(BadRequest):
    """Not a page size."""


def idempotency_key(request: Request, scope: str) -> IdempotencyKey:
    """The key in `scope` (user and route). Raises `IdempotencyKeyMissing` (400), `InvalidIdempotencyKey` (422)."""
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        raise IdempotencyKeyMissing(
            "send an Idempotency-Key header: a new UUID for each intent, the same in its retries"
        )
    return IdempotencyKey(scope, key)


def accepted(body: dict[str, Any], *, location: str, replayed: bool = False) -> Response:
    """202 with `Location`; `replayed` tells the client that this is the first answer again."""
    headers = {"Location": location} | ({"Idempotency-Replayed": "true"} if replayed else {})
    return Response(body, status=202, headers=headers)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for, newest first: `limit` rows older than `after` (`created_at`, `id`)."""

    limit: int
    after: tuple[datetime, UUID] | None = None

    @classmethod
    def of(cls, request: Request) -> "Page":
        """From `?cursor=&limit=`. Raises `InvalidCursor`, `InvalidLimit`."""
        limit, cursor = page_size(request), request.query_params.get("cursor", "")
        return cls(limit, read_cursor(cursor, lambda at, id: (from_micros(at), UUID(id)))) if cursor else cls(limit)

    def rows(self, queryset: QuerySet[M]) -> list[M]:
        """Up to `limit + 1` rows (one more says that there is a next page), by `created_at` and `id`."""
        if self.after:
            at, id = self.after
            queryset = queryset.filter(Q(created_at__lt=at) | Q(created_at=at, id__lt=id))
        return list(queryset.order_by("-created_at", "-id")[: self.limit + 1])

    def answer(self, rows: list[M], show: Callable[[M], dict[str, Any]]) -> Response:
        """`{"items": [...], "next": cursor or null}` from what `rows` gave."""
        shown, more = rows[: self.limit], rows[self.limit :]
        return Response({"items": [show(row) for row in shown], "next": _cursor(shown[-1]) if more else None})


def _cursor(row: Any) -> str:
    return write_cursor(micros(row.created_at), str(row.id))


def page_size(request: Request) -> int:
    """From `?limit=`. Raises `InvalidLimit`."""
    limit = request.query_params.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= MAX_PAGE):
        raise InvalidLimit(f"limit is 1 to {MAX_PAGE}")
    return int(limit)


def write_cursor(*place: int | str, salt: str = "penpay.cursor") -> str:
    """Signed, so that only a place that a list gave out comes back; `salt` keeps lists of other places apart."""
    return signing.dumps(list(place), salt=salt)


def read_cursor(cursor: str, place: Callable[..., T], salt: str = "penpay.cursor") -> T:
    """`place` of what `write_cursor` was given. Raises `InvalidCursor`."""
    try:
        return place(*signing.loads(cursor, salt=salt))
    except (signing.BadSignature, ValueError, TypeError, OverflowError):
        raise InvalidCursor("give the cursor as the last page's next, unchanged") from None


def micros(at: datetime) -> int:
    """A time as a cursor holds it; `from_micros` is the way back."""
    return (at - EPOCH) // timedelta(microseconds=1)


def from_micros(count: int) -> datetime:
    """Raises `OverflowError`."""
    return EPOCH + timedelta(microseconds=count)


class FirstFormat(BaseContentNegotiation):
    """Answers in the view's first format whatever `Accept` says: a client that asks for HTML gets JSON, never a 406."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return next((parser for parser in parsers if media_type_matches(parser.media_type, request.content_type)), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type
