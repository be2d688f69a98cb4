"""What comes in: strict JSON, and serializer fields that give domain types."""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import IO, Any, NoReturn
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import exceptions, serializers, status
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from shared_kernel.domain.identifiers import InvalidPhone, Phone
from shared_kernel.domain.money import Currency, InvalidAmount, Money

MAX_BODY = 64 * 1024
MAX_DEPTH = 32
MONEY = ("amount", "currency")
HOW = 'Write money as {"amount": "1300.00", "currency": "KES"}.'


class BodyTooLarge(exceptions.APIException):
    """More than `MAX_BODY` bytes."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"Send at most {MAX_BODY} bytes."
    default_code = "body_too_large"


class MalformedJSON(exceptions.ParseError):
    """Not JSON as RFC 8259 and I-JSON (RFC 7493) have it."""

    default_detail = "The body is not valid JSON."
    default_code = "malformed_json"


class StrictJSONParser(BaseParser):
    """JSON that means one thing: UTF-8, no key twice, no NaN, NUL or lone surrogate; numbers are `int` or `Decimal`."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Raises `MalformedJSON` (400) and `BodyTooLarge` (413)."""
        raw: bytes = stream.read(MAX_BODY + 1)
        if len(raw) > MAX_BODY:
            raise BodyTooLarge
        try:
            value = json.loads(
                raw.decode("utf-8"), parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_unique
            )
            _check(value)
        except RecursionError:
            raise MalformedJSON("The body is nested too deep.") from None
        except UnicodeError:
            raise MalformedJSON("The body is not valid UTF-8.") from None
        except json.JSONDecodeError as bad:
            raise MalformedJSON(f"The body is not valid JSON: line {bad.lineno}, column {bad.colno}.") from None
        except ValueError as bad:
            raise MalformedJSON(str(bad) if bad.args and isinstance(bad, _Refused) else None) from None
        return value


class _Refused(ValueError):
    """A refusal of our own; its text is fit for the caller."""


def _no_constant(name: str) -> NoReturn:
    raise _Refused("NaN and Infinity are not JSON.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("A key stands twice in one object.")
    return found


def _check(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise _Refused("The body is nested too deep.")
    match value:
        case str():
            if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
                raise _Refused("A text holds NUL or half of a surrogate pair.")
        case dict():
            for key, inner in value.items():
                _check(key)
                _check(inner, depth + 1)
        case list():
            for inner in value:
                _check(inner, depth + 1)


class Body(serializers.Serializer[Any]):
    """A request's body: unknown fields are refused (`unknown_field`), and nothing that was not sent is guessed."""

    @classmethod
    def read(cls, request: Request) -> dict[str, Any]:
        """The validated fields. Raises `ValidationError` (400, with `errors`)."""
        body = cls(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        return values

    def to_internal_value(self, data: Any) -> Any:
        unknown = [name for name in data if name not in self.fields] if isinstance(data, Mapping) else []
        errors: dict[str, Any] = {
            name[:64]: [exceptions.ErrorDetail("There is no such field.", code="unknown_field")]
            for name in unknown[:20]
        }
        try:
            values = super().to_internal_value(data)
        except exceptions.ValidationError as refused:
            found: Any = refused.detail
            raise serializers.ValidationError({**errors, **found}) from None
        if errors:
            raise serializers.ValidationError(errors)
        return values


class TextField(serializers.CharField):
    """A JSON string; DRF's own would turn numbers into text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "amount": {
                "type": "string",
                "pattern": r"^[0-9]{1,13}(\.[0-9]{1,2})?$",
                "example": "1300.00",
                "description": "A decimal string, never a JSON number.",
            },
            "currency": {"type": "string", "enum": [str(currency) for currency in Currency]},
        },
        "required": ["amount", "currency"],
        "additionalProperties": False,
    }
)
class MoneyField(serializers.Field[Money, Any, dict[str, str], Any]):
    """`{"amount": "1300.00", "currency": "KES"}` to and from `Money`; what comes in is positive and in `currencies`."""

    def __init__(self, *, currencies: Iterable[Currency] = tuple(Currency), **kwargs: Any) -> None:
        self.currencies = frozenset(currencies)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> Money:
        if not isinstance(data, dict):
            raise serializers.ValidationError(HOW, code="invalid")
        unknown = [name for name in data if name not in MONEY]
        errors = {name[:64]: _error("There is no such field.", "unknown_field") for name in unknown[:20]}
        errors |= {name: _error("This field is required.", "required") for name in MONEY if name not in data}
        text, code = data.get("amount"), data.get("currency")
        currency = next((known for known in self.currencies if known == code), None) if isinstance(code, str) else None
        if "currency" in data and currency is None:
            errors["currency"] = _error(f"Use {' or '.join(sorted(self.currencies))}.", "invalid_currency")
        if "amount" in data and not isinstance(text, str):
            errors["amount"] = _error('Write the amount as a string, as in "1300.00".', "not_a_string")
        elif isinstance(text, str):
            try:
                money = Money.parse(text, currency or Currency.KES)
            except InvalidAmount as bad:
                errors["amount"] = _error(bad.detail, bad.code)
            else:
                if money.amount <= 0:
                    errors["amount"] = _error("The amount must be more than zero.", "not_positive")
        if errors:
            raise serializers.ValidationError(errors)
        return money

    def to_representation(self, value: Money) -> dict[str, str]:
        return money_json(value)


def money_json(value: Money) -> dict[str, str]:
    """`{"amount": "1300.00", "currency": "KES"}`."""
    return {"amount": f"{value.decimal:.{value.currency.digits}f}", "currency": str(value.currency)}


def _error(detail: str, code: str) -> list[exceptions.ErrorDetail]:
    return [exceptions.ErrorDetail(detail, code=code)]


@extend_schema_field({"type": "string", "minLength": 9, "maxLength": 24, "example": "+254712345678"})
class PhoneField(serializers.Field[Phone, Any, str, Any]):
    """A Kenyan mobile number in any of its forms to `Phone`; shown masked."""

    def to_internal_value(self, data: Any) -> Phone:
        try:
            return Phone.parse(data)
        except InvalidPhone as bad:
            raise serializers.ValidationError(bad.detail, code=bad.code) from None

    def to_representation(self, value: Phone) -> str:
        return str(value)


@extend_schema_field({"type": "string", "format": "uuid"})
class IdField(serializers.Field[UUID, Any, str, Any]):
    """A UUID in its canonical 36 characters."""

    def to_internal_value(self, data: Any) -> UUID:
        if isinstance(data, str) and re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", data):
            return UUID(data)
        raise serializers.ValidationError("Give the id as it was given to you, a UUID.", code="invalid_id")

    def to_representation(self, value: UUID) -> str:
        return str(value)
