"""What tests of signing in at Deriv share: the simulated Deriv's real HTTP, and whoever signs in there."""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from django.test import Client

from deriv_integration import facade
from deriv_integration.tests.fixtures import ServedDeriv, a_rest, an_oauth
from identity.api import deriv_login, deriv_return
from identity.application.deriv_tokens import DerivTokens
from identity.facade import deriv_authorizations, deriv_logins, deriv_tokens
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from shared_kernel.domain.requests import DerivPlatform


@dataclass
class AtDeriv:
    """PenPay's sign-ins go to this simulator. `client` is ours there."""

    served: ServedDeriv
    client: Any
    tokens: DerivTokens

    @classmethod
    def of(cls, served: ServedDeriv, monkeypatch: Any) -> "AtDeriv":
        client = an_oauth(served)
        logins = replace(deriv_logins, deriv=replace(facade.deriv, platforms={DerivPlatform.REST: a_rest(served)}))
        authorizations = replace(deriv_authorizations, grants=client, logins=logins)
        monkeypatch.setattr(deriv_login, "deriv_logins", logins)
        for edge in (deriv_login, deriv_return):
            monkeypatch.setattr(edge, "deriv_authorizations", authorizations)
        served.customer("CR100001", nickname="jane", name="AMINA WANJIRU OTIENO", show_real_name=True)
        return cls(served, client, replace(deriv_tokens, grants=client))

    def signs_in(self, url: str, customer: str = "jane", **more: str) -> str:
        """Somebody opens the address and agrees; where Deriv sends their browser then."""
        answer = httpx.get(f"{url}&{httpx.QueryParams({'customer': customer, **more})}")
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    def calls(self, grant: str = "authorization_code") -> int:
        """How often the token endpoint was asked for that."""
        return self.served.simulator.calls_seen.get(f"oauth {grant}", 0)

    def forgets(self, customer: str = "jane") -> None:
        """The customer takes PenPay's access away, at Deriv."""
        bank = self.served.simulator.bank
        self.served.simulator.rest.oauth.revoke_all(bank.nicknames[customer])


def asked(url: str) -> dict[str, str]:
    """What an address carries."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def comes_back(location: str, **more: Any) -> Any:
    """A browser without any cookie follows Deriv's redirect."""
    return Client().get(f"{urlsplit(location).path}?{urlsplit(location).query}", **more)


def begins(browser: Browser) -> str:
    """The address at Deriv."""
    answer = browser.get("me/deriv-login/authorize")
    assert answer.status_code == 200, answer.json()
    return str(answer.json()["url"])


def finishes(browser: Browser, code: str, platform: str = "rest") -> Any:
    return browser.post("me/deriv-login", {"platform": platform, "code": code})


def somebody(device: str = "phone-1", **given: Any) -> Browser:
    """A signed-in customer without a Deriv login, stepped up."""
    person = a_customer(**{"password": PASSWORD, "deriv_account": None} | given)
    browser = Browser()
    assert browser.sign_in(person.email, device=device).status_code == 200
    browser.steps_up()
    browser.owner = person  # type: ignore[attr-defined]
    return browser
