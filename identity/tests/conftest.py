"""What identity's tests share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from django.core.mail import EmailMessage

from deriv_integration import facade
from deriv_integration.tests.fixtures import ServedDeriv
from identity.api import views
from identity.application.deriv_login import DerivLogins
from identity.facade import deriv_logins
from identity.infrastructure.sms import outbox
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.requests import DerivPlatform


@dataclass
class Deriv:
    """The simulated Deriv that the REST edge asks, over its real wire."""

    served: ServedDeriv
    logins: DerivLogins

    def holds(self, token: str, account: str, name: str = "AMINA OTIENO", **order: Any) -> None:
        """From now on `token` is for `account`."""
        self.served.customer(account, name=name, token=token, **order)

    def goes_down(self) -> None:
        """No socket opens any more."""
        self.served.arm("down", call="connect")


@pytest.fixture
def deriv(deriv_simulator: ServedDeriv, adapter_of: Callable[..., Any], monkeypatch) -> Deriv:
    gateway = replace(facade.deriv, platforms={DerivPlatform.WS_V3: adapter_of()})
    logins = replace(deriv_logins, deriv=gateway)
    monkeypatch.setattr(views, "deriv_logins", logins)
    return Deriv(deriv_simulator, logins)


@pytest.fixture
def sms(settings) -> list[tuple[Phone, str]]:
    """The texts that were sent in this test."""
    settings.SMS_URL = "memory://"
    outbox.sent.clear()
    return outbox.sent


@pytest.fixture
def mails(mailoutbox) -> list[EmailMessage]:
    """The e-mails that were sent in this test."""
    return mailoutbox
