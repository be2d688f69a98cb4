"""The REST edge of the wallet: what is held for a customer on its way, and their statement as JSON, CSV or PDF."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Any, TypeAlias, cast
from uuid import UUID

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from shared_kernel.api.answers import LIMIT, from_micros, micros, page_size, read_cursor, write_cursor
from shared_kernel.api.bodies import Body, IdField, MoneyField, TextField, money_json
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import now
from wallet.domain.statement import Holder, Line, Period, StatementTooLong, Total, description
from wallet.facade import (
    Place,
    StatementLine,
    StatementTotal,
    customer_balances,
    snapshot,
    statement_csv,
    statement_lines,
    statement_pdf,
    statement_totals,
)

HolderOf: TypeAlias = Callable[[UUID], Mapping[str, str]]  # a customer's masked `name` and `phone`

FORMATS, CURRENCIES = ["json", "csv", "pdf"], [str(currency) for currency in Currency]
MOST_PRINTED = 5_000  # lines of one PDF: a second's work, two hundred pages
AT_ONCE = 500  # lines that one SELECT reads for a document
CURSOR = "penpay.statement"
DAY, TIME = r"(2\d{3})-\d\d-\d\d", r"T\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)"
HOW = "Give a day, as in 2026-11-01, or a time with its zone, as in 2026-11-01T08:30:00Z."


@extend_schema_field({"type": "string", "example": "2026-11-01"})
class DayOrTimeField(serializers.Field[date, Any, str, Any]):
    """A day (`date`) or an exact time (`datetime`)."""

    def to_internal_value(self, data: Any) -> date:
        text = data if isinstance(data, str) else ""
        try:
            if re.fullmatch(DAY, text, re.ASCII):
                return date.fromisoformat(text)
            if re.fullmatch(DAY + TIME, text, re.ASCII):
                return datetime.fromisoformat(text)
        except ValueError:
            pass
        raise serializers.ValidationError(HOW, code="invalid_time")


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "amount": {"type": "string", "pattern": r"^-?[0-9]{1,14}\.[0-9]{2}$", "example": "-12.50"},
            "currency": {"type": "string", "enum": CURRENCIES},
        },
        "required": ["amount", "currency"],
        "additionalProperties": False,
    }
)
class BalanceField(MoneyField):
    """Money that may be below zero, as it goes out."""


class BalanceJSON(serializers.Serializer[Any]):
    """One currency: what is held on its way, what the customer owes, and the one less the other."""

    currency = serializers.ChoiceField(choices=CURRENCIES)
    in_transit = MoneyField()
    owed = MoneyField()
    balance = BalanceField()


class BalancesJSON(serializers.Serializer[Any]):
    """All currencies."""

    items = BalanceJSON(many=True)
    next = serializers.CharField(allow_null=True)


class TotalJSON(serializers.Serializer[Any]):
    """One currency of the whole period; `closing` is `opening` plus `money_in` less `money_out`."""

    currency = serializers.ChoiceField(choices=CURRENCIES)
    opening = BalanceField()
    money_in = MoneyField()
    money_out = MoneyField()
    closing = BalanceField()


class LineJSON(serializers.Serializer[Any]):
    """One line; one of `money_in` and `money_out` is null. `balance` is that of its currency after it."""

    at = serializers.DateTimeField()
    value_at = serializers.DateTimeField()
    description = serializers.CharField()
    transaction_id = IdField(allow_null=True)
    currency = serializers.ChoiceField(choices=CURRENCIES)
    money_in = MoneyField(allow_null=True)
    money_out = MoneyField(allow_null=True)
    balance = BalanceField()


class StatementJSON(serializers.Serializer[Any]):
    """One page, oldest first; `totals` are those of the whole period on every page."""

    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    totals = TotalJSON(many=True)
    items = LineJSON(many=True)
    next = serializers.CharField(allow_null=True)

    def get_fields(self) -> Any:
        """`from` is no name in Python."""
        fields = super().get_fields()
        return {"from": fields.pop("start"), "to": fields.pop("end"), **fields}


class Balances(APIView):
    """`GET wallet/balances`."""

    @extend_schema(responses=BalancesJSON, operation_id="read_balances")
    def get(self, request: Request) -> Response:
        """What is on its way for the customer now, and what they owe, in each currency."""
        found = {row.currency: (row.in_transit, row.owed) for row in customer_balances(str(_customer(request)))}
        items = [_balance_json(currency, *found.get(currency, (0, 0))) for currency in Currency]
        return Response({"items": items, "next": None})


def _customer(request: Request) -> UUID:
    return cast("UUID", request.user.id)


def _balance_json(currency: Currency, in_transit: int, owed: int) -> dict[str, Any]:
    amounts = {"in_transit": in_transit, "owed": owed, "balance": in_transit - owed}
    return {"currency": str(currency)} | {name: money_json(Money(a, currency)) for name, a in amounts.items()}


class Statement(APIView):
    """`GET wallet/statement`."""

    problems = (422,)
    holder_of: HolderOf | None = None  # given by `urls.patterns`

    class Filter(Body):
        since = DayOrTimeField(required=False)
        until = DayOrTimeField(required=False)
        currency = serializers.ChoiceField(choices=CURRENCIES, required=False)
        format = serializers.ChoiceField(choices=FORMATS, default="json")
        cursor = TextField(required=False, max_length=300)
        limit = TextField(required=False)

        def get_fields(self) -> Any:
            """`from` is no name in Python."""
            fields = super().get_fields()
            return {"from": fields.pop("since"), "to": fields.pop("until"), **fields}

        def validate(self, attrs: Any) -> Any:
            """Only JSON comes in pages."""
            if attrs["format"] != "json" and {"cursor", "limit"} & set(attrs):
                raise serializers.ValidationError("cursor and limit are for format=json: leave them out.", "json_only")
            return attrs

    @extend_schema(
        responses={
            (200, "application/json"): StatementJSON,
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/pdf"): OpenApiTypes.BINARY,
        },
        operation_id="read_statement",
        parameters=[
            OpenApiParameter("from", str, description="A day in Kenya, or an RFC 3339 time; 30 days before `to`"),
            OpenApiParameter("to", str, description="A day in Kenya, included, or a time, not included; now"),
            OpenApiParameter("currency", str, enum=CURRENCIES, description="Only this one"),
            OpenApiParameter("format", str, enum=FORMATS, default="json"),
            OpenApiParameter("cursor", str, description="For JSON; it keeps the period and currency of its first page"),
            OpenApiParameter("limit", LIMIT, description="For JSON"),
        ],
    )
    def get(self, request: Request) -> HttpResponseBase:
        """The customer's own account between M-Pesa and Deriv, line by line, with opening and closing balances."""
        wanted = self.Filter(data=request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        given, at = wanted.validated_data, now()
        if given["format"] == "json":
            return Response(self._page(request, given, at))
        asked = Asked.of(_customer(request), given, at)
        return _csv(asked) if given["format"] == "csv" else self._pdf(asked, at)

    def _page(self, request: Request, given: Mapping[str, Any], at: datetime) -> dict[str, Any]:
        limit, cursor = page_size(request), given.get("cursor", "")
        if not cursor:
            return _page_json(Asked.of(_customer(request), given, at), None, limit)
        asked, after = read_cursor(cursor, lambda *place: _continued(_customer(request), *place), CURSOR)
        return _page_json(asked, after, limit)

    def _pdf(self, asked: "Asked", at: datetime) -> HttpResponse:
        assert self.holder_of is not None
        holder = Holder(**self.holder_of(asked.customer), number=str(asked.customer))
        with snapshot():
            totals, lines = asked.totals(), list(islice(asked.lines(), MOST_PRINTED + 1))
        if len(lines) > MOST_PRINTED:
            raise StatementTooLong(f"a PDF holds {MOST_PRINTED} lines: take a shorter period, or format=csv")
        pages = statement_pdf(holder, asked.period, [_total(total) for total in totals], lines, issued_at=at)
        return HttpResponse(pages, content_type="application/pdf", headers=asked.named("pdf"))


def _csv(asked: "Asked") -> StreamingHttpResponse:
    """Streamed: each part is read when the client has taken the one before."""
    totals = [_total(total) for total in asked.totals()]
    parts = statement_csv(asked.period, totals, asked.lines())
    return StreamingHttpResponse(parts, content_type="text/csv; charset=utf-8", headers=asked.named("csv"))


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose statement, of when, in which currencies."""

    customer: UUID
    period: Period
    currencies: list[str]

    @classmethod
    def of(cls, customer: UUID, given: Mapping[str, Any], at: datetime) -> "Asked":
        """Raises `PeriodInFuture`, `PeriodBackwards`, `PeriodTooLong`."""
        currencies = [given["currency"]] if "currency" in given else CURRENCIES
        return cls(customer, Period.of(given.get("from"), given.get("to"), at=at), currencies)

    def totals(self, after: Place | None = None) -> list[StatementTotal]:
        """One SELECT."""
        return statement_totals(str(self.customer), self.period.start, self.period.end, self.currencies, after=after)

    def read(self, carried: Mapping[str, int], after: Place | None, limit: int) -> list[StatementLine]:
        """The next `limit` lines after a place, where `carried` are the balances."""
        owner, start, end = str(self.customer), self.period.start, self.period.end
        return statement_lines(owner, start, end, carried, after=after, limit=limit)

    def lines(self) -> Iterator[Line]:
        """All of them, read as they are taken, `AT_ONCE` at a time."""
        carried, after = {total.currency: total.opening for total in self.totals()}, None
        while rows := self.read(carried, after, AT_ONCE):
            for row in rows:
                carried[row.currency] = row.balance
                yield _line(row)
            after = rows[-1].at, rows[-1].seq

    def named(self, ending: str) -> dict[str, str]:
        """The headers by which a browser saves it."""
        first, last = self.period.days
        return {"Content-Disposition": f'attachment; filename="penpay-statement-{first}-to-{last}.{ending}"'}


def _continued(customer: UUID, at: int, seq: int, start: int, end: int, *currencies: str) -> tuple[Asked, Place]:
    """What a cursor holds: where the last page ended, and what was asked for on the first."""
    period = Period(from_micros(start), from_micros(end))
    return Asked(customer, period, list(currencies)), (from_micros(at), seq)


def _page_json(asked: Asked, after: Place | None, limit: int) -> dict[str, Any]:
    with snapshot():
        totals = asked.totals(after)
        rows = asked.read({total.currency: total.carried for total in totals}, after, limit + 1)
    shown, more, period = rows[:limit], rows[limit:], asked.period
    place = (micros(shown[-1].at), shown[-1].seq, micros(period.start), micros(period.end)) if more else ()
    return {
        "from": _time(period.start),
        "to": _time(period.end),
        "totals": [_total_json(_total(total)) for total in totals],
        "items": [_line_json(_line(row)) for row in shown],
        "next": write_cursor(*place, *asked.currencies, salt=CURSOR) if more else None,
    }


def _total(row: StatementTotal) -> Total:
    currency = Currency(row.currency)
    return Total(*(Money(amount, currency) for amount in (row.opening, row.money_in, row.money_out)))


def _line(row: StatementLine) -> Line:
    currency = Currency(row.currency)
    change, balance = Money(row.change, currency), Money(row.balance, currency)
    exchanged = Money(row.exchanged[0], Currency(row.exchanged[1])) if row.exchanged else None
    about = TransactionId(row.transaction_id) if row.transaction_id else None
    return Line(row.at, row.value_at, description(row.purpose, change, exchanged), about, change, balance)


def _total_json(total: Total) -> dict[str, Any]:
    return {
        "currency": str(total.currency),
        "opening": money_json(total.opening),
        "money_in": money_json(total.money_in),
        "money_out": money_json(total.money_out),
        "closing": money_json(total.closing),
    }


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "at": _time(line.at),
        "value_at": _time(line.value_at),
        "description": line.description,
        "transaction_id": str(line.transaction) if line.transaction else None,
        "currency": str(line.change.currency),
        "money_in": money_json(line.money_in) if line.money_in else None,
        "money_out": money_json(line.money_out) if line.money_out else None,
        "balance": money_json(line.balance),
    }


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
