"""STK pushes as M-Pesa sees them, and what subscribers do with them."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

PAID = "The service request is processed successfully."

# What a subscriber does with the prompt: the result's code and text. `pay` depends on the money, `ignore` on the time.
BEHAVIOURS: dict[str, tuple[int | str, str]] = {
    "pay": (0, PAID),
    "no_funds": (1, "The balance is insufficient for the transaction."),
    "over_limit": (4, "The transaction would exceed the customer's daily limit."),
    "wrong_pin": (2001, "The initiator information is invalid."),
    "cancel": (1032, "Request cancelled by user"),
    "expire": (1019, "Transaction has expired"),
    "unreachable": (1037, "DS timeout user cannot be reached"),
    "ignore": (1037, "No response from user."),
    "not_shown": (1025, "An error occurred while sending a push request"),
    "pin_locked": (8006, "The security credential is locked."),
    "system_error": (9999, "An error occurred while sending a push request"),
    "misconfigured": ("SFC_IC0003", "The operator does not exist."),
    "never": (4999, "The transaction is still under processing"),
}


@dataclass(slots=True, eq=False)
class Prompt:
    """One STK push that was accepted."""

    merchant_request_id: str
    checkout_request_id: str
    phone: str
    shortcode: str
    amount: Decimal
    reference: str
    callback_url: str
    pushed_at: datetime
    faults: dict[str, dict[str, Any]]
    result: tuple[int | str, str] | None = None
    receipt: str = ""
    paid_at: datetime | None = None
    timer: asyncio.TimerHandle | None = None
    called_back: asyncio.Event | None = None


@dataclass(slots=True)
class Subscriber:
    """A phone and what its owner does; `balance` None is enough for everything."""

    behaviour: str = "pay"
    balance: Decimal | None = None
    delay_s: float | None = None
