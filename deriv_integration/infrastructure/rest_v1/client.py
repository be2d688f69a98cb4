"""Calls to Deriv's REST API, and the three families of envelopes that its answers come in.

Source: Deriv contract, sections 1.1 and 1.2.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from shared_kernel.infrastructure import http

TIMEOUT = http.TIMEOUT  # read by each call


@dataclass(frozen=True, slots=True)
class AgentCredential:
    """An agent's: its number at Deriv, and the token that moves its money."""

    agent_id: int
    token: str = field(repr=False)
    currency: str = "USD"

    @property
    def name(self) -> str:
        """By which rows and ledger know it."""
        return str(self.agent_id)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of an answer: its code, and what else it says. The text may name people."""

    code: str
    facts: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that came. `body` is empty when it was not a JSON object."""

    status: int
    text: str = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)

    @property
    def is_good(self) -> bool:
        """A success without a word of an error."""
        return 200 <= self.status < 300 and not self.body.get("errors") and "data" in self.body

    @property
    def data(self) -> Any:
        """What a good answer carries."""
        return self.body.get("data")

    @property
    def problems(self) -> list[Problem]:
        """The errors, of whichever family; empty when there are none, or none that can be read."""
        errors = self.body.get("errors")
        if not isinstance(errors, list) or not all(isinstance(error, dict) for error in errors):
            return []
        return [Problem(_text(error.get("code")), _facts(error)) for error in errors]

    @property
    def code(self) -> str:
        """The first error's code, or the HTTP status: never a text."""
        return next((problem.code for problem in self.problems if problem.code), f"http_{self.status}")


@dataclass(frozen=True)
class RestClient:
    """`base_url` and our app's id at Deriv, which goes with every call."""

    base_url: str
    app_id: str

    def get(self, path: str, token: str) -> Answer:
        """Raises `http.NotConnected`, `http.NoAnswer`."""
        return self._call("GET", path, token, None, None)

    def post(self, path: str, token: str, data: Mapping[str, Any], *, give_up_at: float | None = None) -> Answer:
        """`data` goes wrapped. Raises `http.TooLate`, `http.NotConnected`, `http.NoAnswer`."""
        return self._call("POST", path, token, json.dumps({"data": data}).encode(), give_up_at)

    def _call(self, method: str, path: str, token: str, content: bytes | None, give_up_at: float | None) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Deriv-App-ID": self.app_id}
        reply = http.exchange(method, self.base_url, path, headers, content, give_up_at=give_up_at, timeout=TIMEOUT)
        return Answer(reply.status, reply.text, read_object(reply.text))


def read_object(text: str) -> Mapping[str, Any]:
    """A JSON object, its decimals exact; empty for anything else, a key that stands twice included."""
    try:
        value = json.loads(text, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError, InvalidOperation):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _text(value: Any) -> str:
    plain = isinstance(value, str) and value.isascii() and value.isprintable()
    return str(value)[:64] if plain else ""


def _facts(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """What goes with a code: under `detail` in one family, beside the code in the others."""
    detail = error.get("detail")
    return detail if isinstance(detail, dict) else error
