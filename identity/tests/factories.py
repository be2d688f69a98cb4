"""Builders of identity's rows: straight into the database, valid, and taking what matters here."""

import itertools
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import factory
from django.contrib.auth.hashers import make_password

from identity import models
from identity.domain.contact import Email
from identity.infrastructure.persistence import account_index, email_index, phone_index
from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from shared_kernel.infrastructure.persistence import new_id

PASSWORD = "seven geese over Kisumu"
_numbers = itertools.count(secrets.randbelow(10**7))


def a_phone() -> str:
    """A number that no other row has, as M-Pesa writes it."""
    return f"2547{next(_numbers) % 10**8:08d}"


class UserFactory(factory.django.DjangoModelFactory[models.User]):
    """A row of `users`: a customer with a verified phone, and no password, for that costs a hash."""

    class Meta:
        model = models.User

    id = factory.LazyFunction(new_id)
    username = factory.LazyFunction(lambda: f"customer-{secrets.token_hex(12)}")
    password = "!"
    phone = factory.LazyFunction(a_phone)
    phone_index = factory.LazyAttribute(lambda row: phone_index(Phone(row.phone)))
    email = factory.LazyAttribute(lambda row: f"c{row.phone}@example.org")
    email_index = factory.LazyAttribute(lambda row: email_index(Email(row.email)))
    phone_verified_at = factory.LazyFunction(lambda: datetime.now(UTC))


class ProfileFactory(factory.django.DjangoModelFactory[models.Profile]):
    """What a customer told of themselves."""

    class Meta:
        model = models.Profile

    user = factory.SubFactory(UserFactory)
    full_name = "Amina Wanjiru Otieno"
    updated_at = factory.LazyFunction(lambda: datetime.now(UTC))


class ComplianceFactory(factory.django.DjangoModelFactory[models.Compliance]):
    """A standing: verified, in the tier `standard`."""

    class Meta:
        model = models.Compliance

    user = factory.SubFactory(UserFactory)
    kyc_status = "verified"
    kyc_status_at = factory.LazyFunction(lambda: datetime.now(UTC))
    tier = "standard"


class DerivLoginFactory(factory.django.DjangoModelFactory[models.DerivLogin]):
    """A bound Deriv account."""

    class Meta:
        model = models.DerivLogin

    id = factory.LazyFunction(new_id)
    user = factory.SubFactory(UserFactory)
    active_for = factory.SelfAttribute("user")
    platform = "ws_v3"
    account = factory.LazyFunction(lambda: f"CR{next(_numbers):08d}")
    account_index = factory.LazyAttribute(lambda row: account_index(DerivPlatform(row.platform), row.account))
    currency = "USD"
    full_name = "Amina Wanjiru Otieno"
    name_matches = True
    token = factory.LazyFunction(lambda: secrets.token_hex(16))
    bound_at = factory.LazyFunction(lambda: datetime.now(UTC))
    checked_at = factory.LazyAttribute(lambda row: row.bound_at)


@dataclass(frozen=True)
class ACustomer:
    """What a test needs to know of a customer that was built."""

    id: UserId
    phone: Phone
    email: str
    full_name: str
    deriv_login: DerivLogin | None
    row: models.User

    @property
    def pk(self) -> UUID:
        """The same as `id`."""
        return self.id


def a_customer(
    *,
    full_name: str = "Amina Wanjiru Otieno",
    kyc_status: str = "verified",
    tier: str = "standard",
    deriv_account: str | None = "",
    platform: str = "ws_v3",
    password: str | None = None,
    phone_verified: bool = True,
    **user: Any,
) -> ACustomer:
    """A customer who may deposit: verified phone and KYC, a Deriv login in the same name, all straight in the database.

    `deriv_account` None leaves the login out, empty makes one up; `password` (such as `PASSWORD`) lets them sign in;
    further names are columns of `users` (`phone="2547..."`, `frozen_at=...`).
    """
    if password is not None:
        user["password"] = make_password(password)
    if not phone_verified:
        user["phone_verified_at"] = None
    row = UserFactory.create(**user)
    ProfileFactory.create(user=row, full_name=full_name)
    ComplianceFactory.create(user=row, kyc_status=kyc_status, tier=tier)
    login = None
    if deriv_account is not None:
        chosen = {"account": deriv_account} if deriv_account else {}
        bound = DerivLoginFactory.create(user=row, platform=platform, full_name=full_name, **chosen)
        login = DerivLogin(DerivPlatform(bound.platform), bound.account, bound.currency)
    return ACustomer(UserId(row.id), Phone(row.phone), row.email, full_name, login, row)
