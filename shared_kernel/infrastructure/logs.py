"""Logs as JSON lines, each with who is acting; secrets and personal data are taken out by key and by pattern.

`settings.LOGGING` names `formatter`. Loggers are the standard library's: what a line should carry goes into `extra`;
structlog's write through them. What libraries log of messages, headers and arguments is text here, so keys are looked
for in texts as well. A name or a password that stands alone in a sentence nothing shows: never log one.
"""

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from django.apps import apps

HIDDEN = "[hidden]"
KEYS = re.compile(
    r"passw|secret|token|authori[sz]|cookie|penpay_|^(?:kw)?args(?:repr)?$|credential|passkey|private|api_?key|signature|session"
    r"|phone|msisdn|party_?[ab]$|e_?mail|(full|first|last|middle|customer)_?name|^name$|birth|id_number|passport|kra_?pin"
    r"|^pin$|otp|verification_code|login_?id|nickname|receipt|^answer$|payload|body",
    re.IGNORECASE,
)
QUOTED_KEY = re.compile(
    r"""(?P<pair>\(b?)?(?<!\\)(?P<quote>\\*["'])(?P<key>[\w.-]{1,40})(?P=quote)\s*(?P<to>[:,])\s*"""
)
# A value in whatever quotes, to its end or, where the log cut it, to the end of all; or bare. Not an object or a list:
# the keys in those are looked at in turn.
QUOTED_VALUE = re.compile(
    r"""[bu]?(?:(?P<quote>\\*["'])(?:.*?(?<!\\)(?P=quote)|.*)|[^\s,}\])\[({"'\\][^\s,}\])]*)""", re.DOTALL
)
ASSIGNED = re.compile(r"""(?P<key>[\w.-]{1,40})=(?P<value>[^\s&;,'"}\])]+)""")
HEADER = re.compile(r"^(?P<start>(?:[<>] )?(?P<key>[A-Za-z][\w-]{1,40}):[ \t]*)(?P<value>[^\r\n]+)", re.MULTILINE)
PATTERNS = (
    (re.compile(r"\(args:\(.*", re.DOTALL), "(args: [hidden])"),  # Celery's, a task's whole message
    (re.compile(r"(?<![\w.-])\+?(?:254|0)[ -]?[17]\d{2}[ -]?\d{3}[ -]?\d{3}(?!\w)"), "[phone]"),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), "[email]"),
    (re.compile(r"\b(?:Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), "[token]"),
    (re.compile(r"\beyJ[\w-]{5,}(?:\.[\w-]*)*"), "[token]"),
    (re.compile(r"\b[AP]\d{9}[A-Z]\b"), "[kra_pin]"),
    (re.compile(r"\ba1-\w{16,}"), "[token]"),  # Deriv's OAuth tokens
    (re.compile(r"(/cb/\w{1,2}/)[\w-]+"), r"\1[token]"),  # the secret in a callback's address
    (  # one-time codes, as our messages tell them and forms carry them; "short code", "ResultCode" are none
        re.compile(
            r"""(?<!short )(?<!short-)((?<![a-z_])(?:code|otp)(?:["'\\:=\s+]|%3A|%20|%22|\b(?:is|was)\b){1,8})"""
            r"\d{3}(?:[ -]|%20|\+)?\d{3}(?!\w)",
            re.IGNORECASE,
        ),
        r"\1[code]",
    ),
    (re.compile(r"(?<!\w)\d{3}[ -]?\d{3}(?= is (?:your|the) )"), "[code]"),
    (re.compile(r"(/oauth/deriv/return)\?[^\s'\"<>]*"), r"\1?[hidden]"),  # a code and a state
    (re.compile(r"\bory_[ar][ct]_[\w.-]{8,}"), "[token]"),  # Deriv's OAuth codes and tokens, as its server makes them
    (re.compile(r"(\w://[^\s:/@]*):[^\s@/]+@"), r"\1:[password]@"),
    (re.compile(r"(Duplicate entry )'.*?'( for key)"), r"\1[value]\2"),  # MySQL quotes what was to be stored
    (
        re.compile(r"((?:password|secret|token|api_?key|pin|otp)['\"]?\s*[=:]\s*)['\"]?[^\s'\",}&]+", re.IGNORECASE),
        r"\1[hidden]",
    ),
)


def redact(text: str) -> str:
    """`text` without phone numbers, addresses, tokens and passwords, as far as their form or what stands before them
    shows it: a key in quotes, as in JSON and in what `repr` makes, `key=value`, or a header.
    """
    text = ASSIGNED.sub(_without_value, HEADER.sub(_without_header, _without_quoted(text)))
    for pattern, instead in PATTERNS:
        text = pattern.sub(instead, text)
    return text


def _without_quoted(text: str) -> str:
    parts, at = [], 0
    for found in QUOTED_KEY.finditer(text):
        is_pair = found["to"] == ":" or found["pair"]  # ('Cookie', '...') as lists of headers have them
        if found.start() < at or not is_pair or not KEYS.search(found["key"]):
            continue
        if value := QUOTED_VALUE.match(text, found.end()):
            quote = value["quote"] or ""
            parts += [text[at : found.end()], f"{quote}{HIDDEN}{quote}"]
            at = value.end()
    return "".join([*parts, text[at:]])


def _without_value(found: re.Match[str]) -> str:
    return f"{found['key']}={HIDDEN}" if KEYS.search(found["key"]) else found[0]


def _without_header(found: re.Match[str]) -> str:
    return f"{found['start']}{HIDDEN}" if KEYS.search(found["key"]) else found[0]


def formatter() -> logging.Formatter:
    """For `settings.LOGGING`: one JSON object a line. Has structlog's loggers write through the standard library's."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            _who,
            structlog.processors.format_exc_info,
            _redacted,
            structlog.processors.JSONRenderer(default=str),
        ],
    )


def _who(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds actor, request and, where a single aggregate is worked on, its id. Django logs before it has models."""
    if apps.models_ready:
        from shared_kernel.infrastructure.persistence import current_context, current_target

        who = current_context(line.get("transaction_id"))
        line.setdefault("actor", who.actor)
        if who.request_id:
            line.setdefault("request_id", who.request_id)
        if target := current_target():
            line.setdefault("aggregate_id", target)
    return line


def _redacted(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _without_secrets(key, value) for key, value in line.items() if not key.startswith("_")}


def _without_secrets(key: str, value: Any) -> Any:
    if KEYS.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(inner): _without_secrets(str(inner), part) for inner, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets("", part) for part in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))
