"""Who may move money now, and where a payout may go."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payments.domain.limits import KycRequired
from payments.domain.ports import Customer
from shared_kernel.domain.errors import Conflict, Forbidden
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.money import Money
from shared_kernel.domain.requests import DerivLogin


class PhoneNotVerified(Forbidden):
    """Money moves only from and to a verified phone."""


class AccountFrozen(Forbidden):
    """Nothing moves for now."""


class CustomerOwes(Forbidden):
    """No payout leaves to a customer who owes us; the words are what they are told."""

    def __init__(self) -> None:
        super().__init__(
            "a payment of yours was taken back after it had been passed on to you, and that is not settled yet: "
            "you can withdraw again once it is; please contact support"
        )


class DerivLoginMissing(Conflict):
    """No Deriv login is bound, or its name is not the customer's."""


class DerivLoginExpired(Conflict):
    """The customer's sign-in at Deriv has run out."""


class DerivLoginLost(Conflict):
    """Deriv no longer takes the customer's token."""


def own_phone(customer: Customer) -> Phone:
    """The customer's verified one. Raises `AccountFrozen`, `PhoneNotVerified`, `KycRequired`."""
    if customer.is_frozen:
        raise AccountFrozen("payments are stopped for this account: please contact support")
    if customer.phone is None:
        raise PhoneNotVerified("verify your phone number first")
    if customer.kyc_status != "verified":
        raise KycRequired("complete the identity check first")
    return customer.phone


def own_login(customer: Customer) -> DerivLogin:
    """The bound one. Raises `DerivLoginMissing`."""
    if customer.deriv_login is None or not customer.deriv_name_matches:
        raise DerivLoginMissing("bind a Deriv account that is in your own name first")
    return customer.deriv_login


def usable_login(customer: Customer, *, by_token: bool) -> DerivLogin:
    """The bound one, as good as it has to be. Raises what `own_login` and `must_be_usable` do."""
    login = own_login(customer)
    must_be_usable(customer, by_token=by_token)
    return login


def must_be_usable(customer: Customer, *, by_token: bool) -> None:
    """Nothing is wrong with the login, if there is one. What Deriv disowned takes and gives nothing; only what goes by
    the customer's token, as a withdrawal does, needs one that has not run out.

    Raises `DerivLoginExpired`, `DerivLoginLost`.
    """
    if customer.deriv_login_state == "expired" and by_token:
        raise DerivLoginExpired("your sign-in at Deriv has run out: bind your Deriv account again first")
    if customer.deriv_login_state == "lost":
        raise DerivLoginLost("Deriv no longer accepts your sign-in: bind your Deriv account again first")


class PayoutSessions(Protocol):
    """What identity says of the session from which a payout is asked for. Both join the caller's unit of work.

    `ordered` says what this customer has ordered since a moment from sessions that had to wait (KES).
    """

    def may_ask(self, session: UUID, amount: Money, ordered: Callable[[datetime], Money], *, at: datetime) -> None:
        """Whether it may prepare one of `amount` (KES). Raises `DeviceTooNew`."""

    def may_order(self, session: UUID, amount: Money, ordered: Callable[[datetime], Money], *, at: datetime) -> bool:
        """Whether it has to wait; raises `DeviceTooNew` if it has to with this amount, and `StepUpRequired`."""


class PayoutPolicy(Protocol):
    """Whether a customer may be paid out now, and to which phone."""

    def payout_phone(self, customer: Customer, *, at: datetime) -> Phone:
        """Raises `AccountFrozen`, `PhoneNotVerified`, `KycRequired`, and what else holds a payout."""


@dataclass(frozen=True)
class OwnVerifiedPhone:
    """Payouts go to the customer's own verified phone only; from which session, `PayoutSessions` judges."""

    def payout_phone(self, customer: Customer, *, at: datetime) -> Phone:
        return own_phone(customer)
