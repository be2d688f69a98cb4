"""Customers for the benchmarks and the runs over real processes:

many, signed in, with a quote each, straight in the database.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from identity import models as identity
from identity.domain.ports import AccessClaims
from identity.infrastructure.persistence import account_index, phone_index
from identity.infrastructure.tokens import JwtAccessTokens
from payments import models as payments
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.infrastructure.persistence import new_id, now

NAME = "Amina Wanjiru Otieno"
MID, RATE, BACK_RATE = Decimal("129.50000000"), Decimal("131.96050000"), Decimal("127.03950000")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody signed in: the cookies of their browser, their phone and Deriv account, a quote to accept.

    `token` is what they gave PenPay for their Deriv account.
    """

    id: str
    access: str
    phone: str
    account: str
    quote: str
    token: str


def people(
    count: int, *, shillings: int = 1300, dollars: int = 0, valid: timedelta = timedelta(hours=1)
) -> list[Person]:
    """`count` customers who may deposit `shillings`, or withdraw `dollars`; a few multi-row statements."""
    at, start = now(), secrets.randbelow(10**6) * 100
    users, profiles, standings, logins = [], [], [], []
    devices, sessions, quotes = [], [], []
    for number in range(start, start + count):
        phone, account = f"2547{number % 10**8:08d}", f"CR{number:08d}"
        user = identity.User(
            id=new_id(), username=f"bench-{secrets.token_hex(12)}", password="!", phone=phone,
            phone_index=phone_index(Phone(phone)), phone_verified_at=at,
        )  # fmt: skip
        device = identity.Device(id=new_id(), user=user, client_id=secrets.token_hex(8), name="bench", platform="web",
                                 secret_hash=secrets.token_hex(32), slot=1, created_at=at, last_seen_at=at)  # fmt: skip
        users.append(user)
        profiles.append(identity.Profile(user=user, full_name=NAME, updated_at=at))
        standings.append(identity.Compliance(user=user, kyc_status="verified", kyc_status_at=at, tier="standard"))
        logins.append(
            identity.DerivLogin(
                id=new_id(), user=user, active_for=user, platform="ws_v3", account=account,
                account_index=account_index(DerivPlatform.WS_V3, account), currency="USD", full_name=NAME,
                name_matches=True, token=secrets.token_hex(16), bound_at=at, checked_at=at,
            )
        )  # fmt: skip
        devices.append(device)
        sessions.append(
            identity.Session(
                id=new_id(), user=user, device=device, token_epoch=0, created_at=at, expires_at=at + timedelta(days=1)
            )
        )
        terms = withdrawn(dollars) if dollars else deposited(shillings)
        quotes.append(
            payments.Quote(
                id=new_id(), user_id=user.id, mid=MID, rate_source="bench", created_at=at, expires_at=at + valid,
                **terms,
            )
        )  # fmt: skip
    tables: list[list[Any]] = [users, profiles, standings, logins, devices, sessions, quotes]
    for rows in tables:
        type(rows[0])._default_manager.bulk_create(rows, batch_size=500)
    return [
        Person(str(user.id), _access(session), user.phone, login.account, str(quote.id), login.token)
        for user, session, login, quote in zip(users, sessions, logins, quotes, strict=True)
    ]


def step_up(everybody: Sequence[Person]) -> None:
    """As if each had just given a code: withdrawals can be ordered for five minutes."""
    identity.Session.objects.filter(user_id__in=[one.id for one in everybody]).update(stepped_up_at=now())


def deposited(shillings: int) -> dict[str, Any]:
    """The terms of a deposit's quote."""
    gets = int(Decimal(shillings * 100) / RATE)
    return {"type": "deposit", "send_amount": shillings * 100, "send_currency": "KES", "get_amount": gets,
            "get_currency": "USD", "rate": RATE}  # fmt: skip


def withdrawn(dollars: int) -> dict[str, Any]:
    """The terms of a withdrawal's quote."""
    gets = int(dollars * BACK_RATE) * 100
    return {"type": "withdrawal", "send_amount": dollars * 100, "send_currency": "USD", "get_amount": gets,
            "get_currency": "KES", "rate": BACK_RATE}  # fmt: skip


def _access(session: identity.Session) -> str:
    return JwtAccessTokens().issue(AccessClaims(session.user_id, session.id, session.device_id), at=now())


def at_the_providers(
    everybody: Sequence[Person], *, prompt_s: float = 0.0, balance: str = "0.00"
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """What the control sides of M-Pesa and Deriv are told of these people; `balance` is what they have at Deriv."""
    phones: list[dict[str, object]] = [
        {"phone": one.phone, "behaviour": "pay", "delay_s": prompt_s} for one in everybody
    ]
    accounts: list[dict[str, object]] = [
        {"loginid": one.account, "name": NAME, "balance": balance, "token": one.token,
         "email": f"{one.account.lower()}@example.com"}
        for one in everybody
    ]  # fmt: skip
    return phones, accounts
