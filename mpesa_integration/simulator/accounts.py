"""M-Pesa's own book-keeping: the sub-accounts of each shortcode, the payments, and every movement between them.

An account is named `<shortcode>/<kind>` (`600992/utility`), a customer's is the phone, `safaricom` gets the fees.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from mpesa_integration.simulator.customers import Customers
from shared_kernel.simulator import Books

KINDS = ("working", "float", "utility", "charges_paid", "settlement")
SAFARICOM = "safaricom"

# What the business pays for a payout, by its upper limit in KES (contract, section 15: published tariffs, changing).
TARIFF = ((100, 0), (1_500, 5), (5_000, 9), (20_000, 11), (250_000, 13))


def fee(amount: Decimal) -> Decimal:
    """What a payout of `amount` costs the business, in KES."""
    return Decimal(next(charge for most, charge in TARIFF if amount <= most))


@dataclass(slots=True, eq=False, kw_only=True)
class Payment:
    """One transaction of M-Pesa's core, whatever became of it. A deposit has no ids of ours: the gateway made them."""

    kind: str  # `b2c`, `c2b` or `reversal`
    receipt: str
    originator_id: str
    conversation_id: str
    phone: str
    shortcode: str
    amount: Decimal
    reference: str
    initiated_at: datetime
    finalised_at: datetime | None = None
    fate: str = "Initiated"
    fee: Decimal = Decimal(0)
    reversed_by: str = ""


@dataclass
class Accounts:
    """Balances and payments. All money moves through `move`, so that balances are openings and movements."""

    books: Books
    customers: Customers
    balances: dict[str, Decimal] = field(default_factory=dict)
    by_receipt: dict[str, Payment] = field(default_factory=dict)
    by_id: dict[str, Payment] = field(default_factory=dict)  # by OriginatorConversationID

    def forget(self) -> None:
        """Empties everything."""
        self.books.movements.clear()
        for kept in (self.customers.known, self.balances, self.by_receipt, self.by_id):
            kept.clear()

    def keep(self, payment: Payment) -> Payment:
        """Remembers a payment, for ever."""
        self.by_receipt[payment.receipt] = self.by_id[payment.originator_id] = payment
        return payment

    def of(self, shortcode: str, kind: str) -> Decimal:
        """What an account holds."""
        return self.balances.get(f"{shortcode}/{kind}", Decimal(0))

    def move(
        self, id: str, reference: str, source: str, target: str, amount: Decimal, at: datetime, **more: Any
    ) -> None:
        """Moves money and writes it down; nothing is checked here."""
        for account, change in ((source, -amount), (target, amount)):
            if "/" in account:
                self.balances[account] = self.balances.get(account, Decimal(0)) + change
            elif account != SAFARICOM and (customer := self.customers.at(account)).balance is not None:
                customer.balance += change
        self.books.enter(id, reference, source, target, amount, "KES", at, **more)

    def take_back(self, payment: Payment, receipt: str, account: str, at: datetime, fate: str) -> None:
        """Reverses a payment that came in: from `account` back to its payer, as a movement of its own."""
        payment.reversed_by, payment.fate = receipt, fate
        self.move(
            receipt,
            payment.receipt,
            account,
            payment.phone,
            payment.amount,
            at,
            kind="reversal",
            reverses=payment.receipt,
        )
