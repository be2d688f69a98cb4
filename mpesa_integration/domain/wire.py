"""Reading what M-Pesa sends: JSON with exact decimals, codes and amounts that are numbers or text.

Whatever cannot be read is None or empty; nothing here raises. Source: the contract, section 2.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from shared_kernel.domain.money import Currency, Money

MAX_DIGITS = 15


def read_object(raw: bytes | str) -> dict[str, Any] | None:
    """A JSON object; None for anything else: not JSON, NaN, a key twice in one object, nested too deep."""
    try:
        value = json.loads(raw, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError, InvalidOperation):
        return None
    return value if isinstance(value, dict) else None


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def code_of(value: Any) -> str:
    """A code as text, whether it came as a number or as text; what is no code is empty, which is never "0"."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**MAX_DIGITS:
        return str(value)
    return _plain(value, 64)


def id_of(value: Any) -> str:
    """An id of the provider's, at most 128 visible ASCII characters; anything else is empty."""
    return _plain(value, 128)


def _plain(value: Any, most: int) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return text if re.fullmatch(r"[\x21-\x7e]+", text) and len(text) <= most else ""


def text_of(value: Any) -> str:
    """A message; anything but text is empty."""
    return value[:1000] if isinstance(value, str) else ""


def kes_of(value: Any) -> Money | None:
    """An amount in shillings, as a number or as text; None when it is none, or has more decimals than KES."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        amount = Decimal(value.strip() if isinstance(value, str) else value)
        if not amount.is_finite() or amount.adjusted() > MAX_DIGITS - 3:  # before 1E+999999 becomes an integer
            return None
        minor = amount.scaleb(Currency.KES.digits)
        return Money(int(minor), Currency.KES) if minor == minor.to_integral_value() else None
    except (InvalidOperation, ValueError):
        return None


def items_of(value: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list, or one bare object: M-Pesa sends either."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield item
