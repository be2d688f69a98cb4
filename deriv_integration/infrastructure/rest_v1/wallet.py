"""The agent's wallet at Deriv: its entries, page by page, and which of them are a given transfer.

Source: Deriv contract, sections 1.6, 3.3 and 6.1. An entry's shape is known from others' code alone: what can't be read
as such makes the whole reading unusable.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from deriv_integration.domain.transfer import OURS
from deriv_integration.infrastructure.rest_v1.client import AgentCredential, RestClient
from shared_kernel.domain.money import Currency, InvalidAmount, Money
from shared_kernel.domain.requests import AgentEntry, DerivTransfer, Leg

log = logging.getLogger(__name__)

WALLETS = "/wallet/v1/wallets"
PATH = "/wallet/v1/transactions/payment_agent"
PAGE = 1000
MOST_PAGES = 40
SKEW = timedelta(seconds=120)  # how far Deriv's clock may be from ours
AMOUNT = re.compile(r"(?:0|[1-9][0-9]{0,13})(?:\.[0-9]{1,18})?")
MILLISECONDS = 10**11  # epoch numbers from here on count them


class Unusable(Exception):
    """A book that can't be used; `code` says why, without a word of its contents."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class WalletEntry:
    """One movement of the agent's wallet; `amount` is the net one, without a sign."""

    id: str
    request_id: str
    at: datetime
    incoming: bool
    channel: str
    status: str
    amount: Money
    counterpart: str = field(repr=False)

    @classmethod
    def parse(cls, raw: Any) -> "WalletEntry":
        """Raises `Unusable`."""
        about = raw.get("metadata") if isinstance(raw, Mapping) else None
        if not isinstance(about, Mapping):
            raise Unusable("wallet_entry_malformed")
        id, category, status = raw.get("transaction_id"), raw.get("category"), about.get("transaction_status")
        if type(id) is not int or category not in ("deposit", "withdrawal") or not isinstance(status, str):
            raise Unusable("wallet_entry_malformed")
        incoming = category == "deposit"
        return cls(
            id=str(id),
            request_id=_text(raw.get("request_id")),
            at=_time(raw.get("timestamp")),
            incoming=incoming,
            channel=_text(raw.get("channel")),
            status=status,
            amount=_money(about.get("transaction_net_amount"), about.get("transaction_currency")),
            counterpart=_text(about.get("source_client_id" if incoming else "destination_client_id")),
        )

    def is_like(self, transfer: DerivTransfer) -> bool:
        """A payment by an agent, in the transfer's direction."""
        return self.channel == "payment_agent" and self.incoming == (transfer.leg is Leg.DERIV_DEBIT)

    @property
    def public(self) -> AgentEntry:
        """As the sagas see it."""
        amount = self.amount if self.incoming else Money(-self.amount.amount, self.amount.currency)
        reference = self.request_id if self.request_id.startswith(OURS) else ""
        return AgentEntry(self.id, self.at, amount, self.status, reference, self.counterpart)


def named(entries: Sequence[WalletEntry], transfer: DerivTransfer) -> list[WalletEntry]:
    """Those that carry the transfer's own request id. Raises `Unusable` when one moved something else."""
    ours = [entry for entry in entries if entry.request_id == transfer.reference]
    if any(not entry.is_like(transfer) or entry.amount != transfer.amount for entry in ours):
        log.error("Deriv's wallet of agent %s holds %s otherwise than it was asked", transfer.agent, transfer.reference)
        raise Unusable("other_payment")
    return ours


def from_customer(
    entries: Sequence[WalletEntry], transfer: DerivTransfer, customer: frozenset[str]
) -> Sequence[WalletEntry]:
    """A debit's entries, once they are seen to be this customer's, as far as that is shown and can be known.

    A request id is anybody's to choose. `customer` holds Deriv's id of the customer only where their own token told it.
    Raises `Unusable` for another's.
    """
    known = len(customer) > 1 and transfer.leg is Leg.DERIV_DEBIT
    if known and any(entry.counterpart and entry.counterpart not in customer for entry in entries):
        log.error("Deriv's wallet of agent %s holds %s from another customer", transfer.agent, transfer.reference)
        raise Unusable("other_customer")
    return entries


def nameless(entries: Sequence[WalletEntry], transfer: DerivTransfer, customer: frozenset[str]) -> list[WalletEntry]:
    """The one that carries none of our request ids and is this customer's (`customer`: all that we know them by).

    Raises `Unusable` when an entry might be it and can't be told apart: of a counterpart that is not shown or not
    known to us, or one of several.
    """
    alike = [
        entry
        for entry in entries
        if entry.is_like(transfer) and entry.amount == transfer.amount and not entry.request_id.startswith(OURS)
    ]
    theirs = [entry for entry in alike if entry.counterpart in customer]
    if len(theirs) > 1 or (not theirs and alike):
        log.error("Deriv's wallet of agent %s may hold %s", transfer.agent, transfer.reference)
        raise Unusable("may_be_in_wallet")
    return theirs


def entries_named(client: RestClient, agent: AgentCredential, request_id: str) -> list[WalletEntry]:
    """What the wallet shows under a request id. Raises `Unusable`, and what the client raises."""
    return _read(client, agent, {"request_id": request_id})


def entries_since(client: RestClient, agent: AgentCredential, since: datetime) -> list[WalletEntry]:
    """All entries since then, newest first. Raises `Unusable`, and what the client raises."""
    entries = _read(client, agent, {"start_date_time": str(int(since.timestamp()))})
    return [entry for entry in entries if entry.at >= since - timedelta(seconds=1)]


def held_by(client: RestClient, agent: AgentCredential) -> Money:
    """What the agent's wallet holds. Raises `Unusable`, and what the client raises."""
    answer = client.get(WALLETS, agent.token)
    wallets = answer.data if answer.is_good and isinstance(answer.data, list) else None
    if wallets is None:
        raise Unusable(f"wallet:{answer.code}")
    ours = [wallet for wallet in wallets if isinstance(wallet, Mapping) and wallet.get("type") == "payment_agent"]
    balances = ours[0].get("balances") if len(ours) == 1 else None
    if not isinstance(balances, Mapping):
        raise Unusable("wallet_balance_malformed")
    held = balances.get(agent.currency)
    if isinstance(held, str) and held.startswith("-"):  # overdrawn: a balance can be, no movement is
        below = _money(held[1:], agent.currency)
        return Money(-below.amount, below.currency)
    return _money(held, agent.currency)


def _read(client: RestClient, agent: AgentCredential, window: Mapping[str, str]) -> list[WalletEntry]:
    query: Mapping[str, str] = {"transaction_currency": agent.currency, "per_page": str(PAGE), **window}
    found: dict[str, WalletEntry] = {}
    for _ in range(MOST_PAGES):
        answer = client.get(f"{PATH}?{urlencode(query)}", agent.token)
        rows = answer.data.get("transactions") if answer.is_good and isinstance(answer.data, dict) else None
        if not isinstance(rows, list):
            raise Unusable(f"wallet:{answer.code}")
        found |= {entry.id: entry for entry in map(WalletEntry.parse, rows)}
        cursor = _next(answer.body.get("links"), full=len(rows) >= PAGE)
        if not rows or not cursor:
            return list(found.values())
        query = {"page_cursor": cursor}
    raise Unusable("wallet_too_long")


def _next(links: Any, *, full: bool) -> str:
    """The cursor of the next page, or empty at the end. Of a link only the cursor is taken, never where it leads.

    Live answers have lacked `links`: then a page that is not full is the last one. Raises `Unusable` for a full one.
    """
    if not isinstance(links, Mapping):
        if full:
            raise Unusable("wallet_links_missing")
        return ""
    link = links.get("next")
    if link is None or link == "":
        return ""
    if not isinstance(link, str):
        raise Unusable("wallet_links_malformed")
    cursors = parse_qs(urlsplit(link).query).get("page_cursor")
    if cursors is None and ("/" in link or "?" in link):
        raise Unusable("wallet_links_malformed")
    return cursors[0] if cursors else link


def _text(value: Any) -> str:
    return value[:128] if isinstance(value, str) else ""


def _time(value: Any) -> datetime:
    """ISO 8601, or an epoch number in seconds or milliseconds. Raises `Unusable`."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            number = float(value)
            return datetime.fromtimestamp(number / 1000 if number >= MILLISECONDS else number, tz=UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise Unusable("wallet_time_malformed")


def _money(amount: Any, currency: Any) -> Money:
    """A decimal text and a currency. Raises `Unusable`."""
    if not isinstance(amount, str) or not AMOUNT.fullmatch(amount):
        raise Unusable("wallet_amount_malformed")
    try:
        return Money.of_decimal(Decimal(amount), Currency(currency))
    except (InvalidAmount, ValueError):
        raise Unusable("wallet_amount_malformed") from None
