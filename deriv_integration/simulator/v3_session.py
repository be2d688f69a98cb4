"""One socket of the simulated v3: who is logged in on it, what it subscribed to, and how frames are written."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from deriv_integration.simulator.books import Account, Entry, number
from deriv_integration.simulator.calls import SENSITIVE
from shared_kernel.simulator import Send


class Dropped(Exception):
    """The connection ends here, without a close frame."""


class Unanswered(Exception):
    """No answer is ever sent to this call."""


@dataclass(eq=False)
class Session:
    """`streams` maps each subscription's name to its id and the head of each push."""

    send: Send
    app_id: int
    account: Account | None = None
    scopes: frozenset[str] = frozenset()
    streams: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    heard_at: float = 0.0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, message: Mapping[str, Any]) -> None:
        """Sends one frame, unless the socket is gone."""
        if not self.gone.is_set():
            with suppress(Exception):  # the other side may have left meanwhile
                await self.send({"type": "websocket.send", "text": json.dumps(message, default=plain)})

    @property
    def own(self) -> Account:
        """Who is logged in; asked only where somebody is."""
        assert self.account is not None
        return self.account


def masked(request: Mapping[str, Any]) -> dict[str, Any]:
    """`echo_req`: what is sensitive is not shown."""
    return {key: "<not shown>" if key in SENSITIVE else value for key, value in request.items()}


def head_of(request: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What every frame that answers a request starts with."""
    head: dict[str, Any] = {"echo_req": masked(request), "msg_type": name}
    return head | {key: request[key] for key in ("req_id", "passthrough") if key in request}


def balance_of(account: Account) -> dict[str, Any]:
    """As `balance` shows it."""
    return {"balance": number(account.balance), "currency": account.currency, "loginid": account.loginid}


def shown(entry: Entry, *, described: bool) -> dict[str, Any]:
    """An entry as `statement` shows it."""
    plain_entry = {
        "action_type": entry.action_type,
        "amount": number(entry.amount),
        "app_id": entry.app_id,
        "balance_after": number(entry.balance_after),
        "contract_id": None,
        "payout": None,
        "reference_id": None,
        "transaction_id": entry.id,
        "transaction_time": int(entry.at.timestamp()),
    }
    return {**plain_entry, "longcode": entry.longcode, "shortcode": None} if described else plain_entry


def plain(value: Any) -> Any:
    """Amounts that came in as exact decimals go out as numbers."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)
