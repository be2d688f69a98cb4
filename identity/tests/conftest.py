"""What identity's tests share."""

from dataclasses import dataclass, field, replace

import pytest

from deriv_integration.domain.transfer import DerivTokenRefused, DerivUnavailable
from identity.api import views
from identity.infrastructure.sms import outbox
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.requests import DerivPlatform


@dataclass(frozen=True)
class Holder:
    """A `DerivAccount`."""

    account: str
    full_name: str = "Amina Wanjiru Otieno"
    currency: str = "USD"
    is_virtual: bool = False


@dataclass
class InMemoryDeriv:
    """`DerivIdentity` over a dict of tokens."""

    holders: dict[str, Holder] = field(default_factory=dict)
    is_down: bool = False

    def identify(self, platform: DerivPlatform, token: str) -> Holder:
        if self.is_down:
            raise DerivUnavailable("Deriv can't be reached: try again later")
        if token not in self.holders:
            raise DerivTokenRefused("Deriv does not accept this token")
        return self.holders[token]


@pytest.fixture
def deriv(monkeypatch) -> InMemoryDeriv:
    """Deriv, as the REST edge asks it."""
    deriv = InMemoryDeriv()
    monkeypatch.setattr(views, "deriv_logins", replace(views.deriv_logins, deriv=deriv))
    return deriv


@pytest.fixture
def sms(settings) -> list[tuple[Phone, str]]:
    """The texts that were sent in this test."""
    settings.SMS_URL = "memory://"
    outbox.sent.clear()
    return outbox.sent
