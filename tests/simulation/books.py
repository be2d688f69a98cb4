"""The providers' own books: what really moved, whatever PenPay's rows say."""

from collections.abc import Callable
from dataclasses import dataclass, field

from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.requests import Leg
from wallet.domain.ledger import Account

LATE = "late"  # of a payment after M-Pesa itself said that there would be none: its callback is on the way


@dataclass(slots=True)
class Movement:
    """One entry of a provider's: `delta` in minor units, above zero what our account got.

    `transaction`, `leg` and `request` are whose it is in truth; the provider itself does not know them. A fee or a
    taking back stands as a movement of its own, `about` the one that it belongs to.
    """

    id: str
    account: Account
    delta: int
    transaction: TransactionId
    leg: Leg
    request: RequestId | None
    at: float
    is_fee: bool = False
    taken_back: bool = False  # by the provider, so that it counts for nothing
    about: str = ""


@dataclass
class Books:
    """All movements, by Transaction, and the balance of each of our accounts."""

    balances: dict[Account, int] = field(default_factory=dict)
    by_transaction: dict[TransactionId, list[Movement]] = field(default_factory=dict)
    under_way: dict[RequestId, int] = field(default_factory=dict)  # attempts that the provider, or the net, still has
    moved: Callable[[Movement], None] = lambda movement: None

    def open(self, account: Account, amount: Money) -> None:
        """What is there in the beginning."""
        self.balances[account] = self.balances.get(account, 0) + amount.amount

    def move(self, movement: Movement) -> None:
        self.balances[movement.account] = self.balances.get(movement.account, 0) + movement.delta
        self.by_transaction.setdefault(movement.transaction, []).append(movement)
        self.moved(movement)

    def of(self, transaction: TransactionId) -> list[Movement]:
        return self.by_transaction.get(transaction, [])

    def taken(self, request: RequestId) -> None:
        """The attempt is on its way to, or in the hands of, the provider."""
        self.under_way[request] = self.under_way.get(request, 0) + 1

    def settled(self, request: RequestId) -> None:
        """One sending of it is decided, or surely never arrives."""
        self.under_way[request] = self.under_way.get(request, 0) - 1
