"""What M-Pesa takes for a well-formed field: tables of rules, read by each product."""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

PHONE = re.compile(r"254[17][0-9]{8}")
SHORTCODE = re.compile(r"[0-9]{5,7}")
FREE_TEXT = re.compile(r"[A-Za-z0-9 -]+")
RECEIPT = re.compile(r"[A-Z0-9]{10}")
ORIGINATOR_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
FORBIDDEN_IN_URLS = ("mpesa", "safaricom", "exe", "exec", "cmd", "sql", "query")

Rule: TypeAlias = Callable[[Any], bool]


def matching(pattern: re.Pattern[str]) -> Rule:
    """A text that is of `pattern` from end to end."""
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def text(least: int, most: int) -> Rule:
    """Plain words of `least` to `most` characters; the rest is reported to fail silently, here it is refused."""
    return lambda value: isinstance(value, str) and least <= len(value) <= most and bool(FREE_TEXT.fullmatch(value))


def one_of(*words: str) -> Rule:
    """One of these, exactly."""
    return lambda value: isinstance(value, str) and value in words


def optional(rule: Rule) -> Rule:
    """Absent, empty, or as `rule` says."""
    return lambda value: value is None or value == "" or rule(value)


def is_amount(value: Any) -> bool:
    """Whole shillings from 1: digits, as a text or a number. The product has its own limits."""
    digits = str(value) if type(value) is int or isinstance(value, str) else ""
    return re.fullmatch(r"[1-9][0-9]{0,8}", digits) is not None


def is_credential(value: Any) -> bool:
    """A SecurityCredential by its form: 256 bytes in base64, 344 characters. Whether it opens is the core's matter."""
    try:
        return isinstance(value, str) and len(b64decode(value, validate=True)) == 256
    except ValueError:
        return False


def is_callback_url(value: Any, *, plain_http: bool) -> bool:
    """An https URL without M-Pesa's forbidden words; with `plain_http` also http on this machine."""
    if not isinstance(value, str) or any(word in value.lower() for word in FORBIDDEN_IN_URLS):
        return False
    parts = urlsplit(value)
    local = plain_http and parts.hostname in {"127.0.0.1", "localhost", "::1"}
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))


def first_wrong(body: Mapping[str, Any], rules: Mapping[str, Rule]) -> str | None:
    """The first field that is missing, wrong or misspelt, or None. A field that has no rule is refused by its name.

    Refusing what is not known is an assumption on the strict side: it shows `Occasion` where `Occassion` is meant.
    """
    for name, rule in rules.items():
        if not rule(body.get(name)):
            return name
    return next((name for name in body if name not in rules), None)
