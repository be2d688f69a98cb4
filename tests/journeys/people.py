"""The journeys' customers, on either of Deriv's platforms; runs inside of `manage.py shell`, beside the database."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from identity import models as identity
from identity.infrastructure.persistence import account_index
from shared_kernel.domain.requests import DerivPlatform
from tests.benchmarks.people import NAME, Person, people


def people_as_json(count: int, *, shillings: int, platform: str) -> str:
    """`count` signed-in customers, each with what Deriv has to know of them."""
    made = people(count, shillings=shillings)
    logins = logins_of(made)
    return json.dumps([on_platform(person, logins[UUID(person.id)], DerivPlatform(platform)) for person in made])


def logins_of(made: Sequence[Person]) -> dict[UUID, identity.DerivLogin]:
    found = identity.DerivLogin.objects.filter(user_id__in=[person.id for person in made])
    return {login.user_id: login for login in found}


def on_platform(person: Person, login: identity.DerivLogin, platform: DerivPlatform) -> dict[str, Any]:
    """The login as it is on that platform; Deriv's simulator gets to know it by the very token that we hold."""
    account = person.account
    own = {"name": NAME, "show_real_name": True, "email": f"{account.lower()}@example.com"}
    if platform is DerivPlatform.REST:
        account = f"nick{account.lower()}"
        login.platform, login.account, login.account_index = platform.value, account, account_index(platform, account)
        login.save()
        own |= {"nickname": account, "rest_token": login.token}
    else:
        own |= {"loginid": account, "token": login.token}
    return asdict(person) | {"account": account, "platform": platform.value, "at_deriv": own}
