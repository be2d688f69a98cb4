"""Customers with their phones and logins, the rates and limits that they meet, and what they ask for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from payments.domain.limits import PROVIDER_LEGS, LimitRule, Moved
from payments.domain.ports import RateStale
from payments.domain.transaction import TransactionType
from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.rate_limits import RateLimit
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from tests.simulation.faults import Dice

TIER = "full"


@dataclass
class Customer:
    """As payments sees one."""

    id: UserId
    phone: Phone | None
    deriv_login: DerivLogin | None
    token: str = "token"
    full_name: str = "Jane Doe"
    kyc_status: str = "verified"
    tier: str = TIER
    is_frozen: bool = False
    deriv_name_matches: bool = True
    deriv_login_state: str = "active"
    deriv_checked_at: datetime | None = None


@dataclass
class Customers:
    """The directory, by identity."""

    by_id: dict[UserId, Customer] = field(default_factory=dict)

    @classmethod
    def of(cls, many: int) -> "Customers":
        """On both of Deriv's platforms in turn."""
        customers = cls()
        for number in range(many):
            platform = DerivPlatform.WS_V3 if number % 2 else DerivPlatform.REST
            id = UserId(UUID(int=(1 << 64) + number))
            account = f"CR{200_000 + number}"
            customers.by_id[id] = Customer(id, Phone(f"2547120000{number:02d}"), DerivLogin(platform, account))
        return customers

    def customer(self, user: UserId) -> Customer:
        return self.by_id[user]

    def deriv_tokens(self, logins: Mapping[UserId, DerivLogin]) -> Mapping[UserId, str]:
        return {user: self.by_id[user].token for user in logins if self.by_id[user].token}

    def frozen(self, users: Collection[UserId]) -> set[UserId]:
        return {user for user in users if self.by_id[user].is_frozen}


OFTEN = {name: RateLimit(10**9, 3600) for name in ("deposits.user", "withdrawals.user")}


class Wide:
    """Limits that stop nobody: they are tested elsewhere."""

    def rules(self, subjects: Sequence[str], *, at: datetime) -> Mapping[tuple[str, Currency], LimitRule]:
        return {
            (subject, currency): LimitRule(subject, Money(1, currency), Money(10**9, currency))
            for subject in (f"tier:{TIER}", *PROVIDER_LEGS)
            for currency in Currency
        }

    def standing(
        self, subject: str, user: UserId, type: TransactionType, currency: Currency, *, lately: datetime, at: datetime
    ) -> tuple[LimitRule | None, Moved]:
        nothing = Money(0, currency)
        return LimitRule(subject, Money(1, currency), Money(10**9, currency)), Moved(nothing, nothing)

    def ordered_while_waiting(self, user: UserId, since: datetime) -> Money:
        return Money(0, Currency.KES)


@dataclass
class Rates:
    """A rate that moves, and now and then is too old."""

    dice: Dice

    def lock(self, type: TransactionType, *, at: datetime) -> LockedRate:
        if self.dice.happens("unreadable") and self.dice.chance(0.3):
            raise RateStale("no rate is valid now")
        mid = Decimal(self.dice.random.randrange(12_800, 13_100)) / 100
        margin = Decimal(self.dice.random.randrange(50, 300)) / 100
        rate = mid + margin if type is TransactionType.DEPOSIT else mid - margin
        return LockedRate(Currency.USD, Currency.KES, mid, rate, "sim", at, at + timedelta(hours=1))
