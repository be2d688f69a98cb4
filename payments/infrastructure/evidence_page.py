"""An evidence document as one HTML file: a page to read and print, and the very document in it as JSON.

The page is a function of the document alone, so that a page whose words were changed differs from what its document
gives. It loads nothing and runs nothing.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.template.loader import render_to_string
from django.utils.safestring import mark_safe

from payments.domain.evidence import NotEvidence

OPENS = '<script type="application/json" id="evidence">'
_DOCUMENT = re.compile(re.escape(OPENS) + r"(.*?)</script>", re.DOTALL)
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(\.\d+)?Z")
MOST_IN_A_LINE = 76
_STYLE = Path(__file__).parent.parent / "templates" / "payments" / "evidence.css"
_SAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})  # nothing in the JSON ends its script element


@dataclass(frozen=True)
class Layout:
    """How a section is shown: `columns` make it a table, without them each row is a card of all its fields.

    `a+b` is one column with `b` below `a`.
    """

    title: str
    about: str
    columns: tuple[str, ...] = ()


LAYOUTS = {
    "story": Layout("The story", "All that happened, oldest first. Details are in the section named on the right.",
                    ("at", "what", "who", "section")),
    "intent": Layout("What was asked", "The order, who gave it, from where, and what became of it."),
    "customer": Layout("The customer", "As known today."),
    "quote": Layout("Quote and locked rate", "What was offered and accepted. A rate is KES for one USD."),
    "steps": Layout("Status by status", "Each change, with who or what made it.",
                    ("at", "before", "after", "why", "by+request")),
    "requests": Layout("What the providers were asked",
                       "Each attempt: what was fixed before it was sent, and its outcome."),
    "messages": Layout("What the providers said",
                       "Messages as they are stored. The fingerprint is of the stored text."),
    "entries": Layout("Ledger entries", "Each with what this Transaction had done to both accounts up to it.",
                      ("seq", "recorded_at", "purpose", "amount", "debit+debit_stands_at", "credit+credit_stands_at",
                       "provider_key+reverses")),
    "accounts": Layout("What it left on each account", "Debits less credits of the entries above.",
                       ("account", "left")),
    "decisions": Layout("Decisions of staff", "What one person proposed, and who approved it."),
    "holds": Layout("Holds", "Internal: whether and why money is held may not be told to the customer.",
                    ("at", "action", "why", "actor", "details")),
    "reservations": Layout("Float reserved", "Money that was kept ready for the payout.",
                           ("at", "account", "amount", "released_at")),
    "orphans": Layout("Money that no step explains", "Found in a provider's book."),
    "breaks": Layout("Differences between the books", "What reconciliation found, and what became of it."),
    "events": Layout("Events and their delivery", "Told to the other parts of the system.",
                     ("seq", "occurred_at", "type", "published_at", "attempts", "parked_at", "error", "payload")),
    "audit": Layout("Audit log", "Every row about it, as written.",
                    ("seq", "at", "action+why", "before+after", "details", "actor+address+request_id")),
    "seals": Layout("Seals over the rows",
                    "Each covers rows of the ledger or of the audit log by their hashes, and follows the Seal before;"
                    " its own hash is anchored outside of the database.",
                    ("table", "rows", "seal", "sealed_at", "check", "anchor", "hash")),
}  # fmt: skip


def page(made: Mapping[str, Any]) -> str:
    """The whole file."""
    parts = [_part(number, name, one) for number, (name, one) in enumerate(made["sections"].items(), 1)]
    head = {name: value for name, value in made.items() if name != "sections"}
    head["made_at"] = _cell("made_at", made["made_at"])["text"]
    embedded = json.dumps(made, indent=1, ensure_ascii=True).translate(_SAFE)
    intent = made["sections"]["intent"]["rows"][0]
    known = {"head": head, "parts": parts, "intent": intent, "opens": mark_safe(OPENS), "document": mark_safe(embedded)}  # noqa: S308 - escaped above
    return render_to_string("payments/evidence.html", known | {"style": mark_safe(style())})  # noqa: S308 - our own file


def document_of(text: str) -> dict[str, Any]:
    """The document in a page. Raises `NotEvidence`."""
    found = _DOCUMENT.findall(text)
    if len(found) != 1:
        raise NotEvidence("this is no evidence file: there is no document in it, or more than one")
    try:
        made = json.loads(found[0])
    except (ValueError, RecursionError) as damaged:
        raise NotEvidence("this is no evidence file: the document in it is damaged") from damaged
    if not isinstance(made, dict):
        raise NotEvidence("this is no evidence file: there is no document in it")
    return made


def is_page_of(text: str, made: Mapping[str, Any]) -> bool:
    """Whether these are the words that this document gives."""
    try:
        return text == page(made)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return False


@cache
def style() -> str:
    """The page's style sheet."""
    return _STYLE.read_text()


@cache
def policy() -> str:
    """The content security policy under which a browser shows the page: its own style, by hash, and nothing else."""
    own = b64encode(sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{own}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _part(number: int, name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    layout = LAYOUTS.get(name) or Layout(name, "")
    made = {"number": number, "name": name, "layout": layout, "sha256": one["sha256"], "count": len(one["rows"])}
    if layout.columns:
        columns = [column for column in layout.columns if any(_texts(column, row) for row in one["rows"])]
        rows = [[_joined(column, row) for column in columns] for row in one["rows"]]
        return made | {"columns": [_label(column.partition("+")[0]) for column in columns], "rows": rows}
    return made | {"cards": [list(_fields(row)) for row in one["rows"]]}


_KINDS = dict.fromkeys(("amount", "left", "seq"), "money") | dict.fromkeys(
    ("section", "before", "after", "who", "type"), "word"
)
_EMPTY: tuple[Any, ...] = (None, "", {}, [])


def _texts(column: str, row: Mapping[str, Any]) -> list[str]:
    return [cell["text"] for name in column.split("+") if (cell := _cell(name, row.get(name)))["text"]]


def _joined(column: str, row: Mapping[str, Any]) -> dict[str, Any]:
    is_one = "+" not in column
    return _cell(column, row.get(column)) if is_one else {"text": "\n".join(_texts(column, row)), "kind": "lines"}


def _fields(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in row.items():
        if value not in _EMPTY:
            yield {"label": _label(name), **_cell(name, value)}


def _cell(name: str, value: Any) -> dict[str, Any]:
    """Its text, and the class by which it is shown."""
    match value:
        case None | "":
            return {"text": "", "kind": ""}
        case dict() | list():
            return {"text": _json(value) if value else "", "kind": "json"}
        case str() if name in {"purpose", "table"}:
            return {"text": value.replace("_", " "), "kind": ""}  # so that it wraps between words
        case bool():
            return {"text": "yes" if value else "no", "kind": ""}
        case str() if found := _TIME.fullmatch(value):
            return {"text": _time(found), "kind": "time"}
        case _:
            return {"text": str(value), "kind": _KINDS.get(name, "wide" if len(str(value)) > 44 else "")}


def _json(value: Any, indent: str = "") -> str:
    """What fits into a line is one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= MOST_IN_A_LINE or not isinstance(value, dict | list):
        return line
    inner = f"{indent}  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_json(one, inner)}" for key, one in value.items()]
    else:
        parts = [_json(one, inner) for one in value]
    opens, closes = "{}" if isinstance(value, dict) else "[]"
    return opens + "".join(f"\n{inner}{part}," for part in parts)[:-1] + f"\n{indent}{closes}"


def _time(found: re.Match[str]) -> str:
    return f"{found[1]} {found[2]}{(found[3] or '.000')[:4]}"


def _label(name: str) -> str:
    return name.replace("_", " ")
