"""M-Pesa's customers: what the owner of a phone does with a prompt, and what becomes of money sent to them."""

from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from typing import Any

from mpesa_integration.simulator.fields import PHONE

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

# What becomes of a payout to them: the result's code and text, and the fate that Transaction Status tells. An empty
# text: no result is ever sent. `ok` still depends on the wallet's and the day's limit.
RECEIVING: dict[str, tuple[int | str, str, str]] = {
    "ok": (0, PAID, "Completed"),
    "unregistered": (
        2040,
        "Credit Party customer type (Unregistered or Registered Customer) can't be supported by the service.",
        "Declined",
    ),
    "over_wallet": (8, "Declined due to limit rule: would exceed the maximum balance.", "Declined"),
    "over_day": (4, "Declined due to limit rule: would exceed daily transfer limit", "Declined"),
    "not_on_mpesa": ("SFC_IC0003", "The operator does not exist.", "Declined"),
    "cancelled": (17, "System internal error.", "Cancelled"),
    "internal_error": (17, "System internal error.", "Declined"),
    "cached": (100000000, "The request is cached and waits to be resent.", "Authorized"),
    "expires": (0, "", "Expired"),
    "never": (0, "", "Initiated"),
    "never_authorized": (0, "", "Pending Authorized"),
}


@dataclass(slots=True)
class Customer:
    """A phone and its owner; `balance` None is enough for everything, and never too much."""

    behaviour: str = "pay"
    balance: Decimal | None = None
    delay_s: float | None = None
    receives: str = "ok"
    name: str = "JOHN DOE"
    received: dict[date, Decimal] = field(default_factory=dict)  # by day, for the day's limit

    @classmethod
    def of(cls, **given: Any) -> "Customer":
        """From the control side's fields. Raises `ValueError`."""
        unknown = given.keys() - {one.name for one in fields(cls) if one.name != "received"}
        if unknown:
            raise ValueError(f"no such field: {sorted(unknown)}")
        customer = cls(**given)
        if customer.behaviour not in BEHAVIOURS:
            raise ValueError(f"behaviour is one of {sorted(BEHAVIOURS)}")
        if customer.receives not in RECEIVING:
            raise ValueError(f"receives is one of {sorted(RECEIVING)}")
        customer.balance = None if customer.balance is None else Decimal(str(customer.balance))
        customer.delay_s = None if customer.delay_s is None else float(customer.delay_s)
        return customer


@dataclass
class Customers:
    """All customers by phone; one that nobody named pays and receives."""

    known: dict[str, Customer] = field(default_factory=dict)

    def at(self, phone: str) -> Customer:
        """The owner of `phone`."""
        return self.known.setdefault(phone, Customer())

    def set(self, phone: str, **given: Any) -> None:
        """What the owner of `phone` does from now on. Raises `ValueError`."""
        if not isinstance(phone, str) or not PHONE.fullmatch(phone):
            raise ValueError("phone is 2547XXXXXXXX or 2541XXXXXXXX")
        customer = Customer.of(**given)
        customer.received = self.at(phone).received
        self.known[phone] = customer
