"""What identity's tests share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import time_machine
from django.core.mail import EmailMessage

from deriv_integration import facade
from deriv_integration.tests.fixtures import ServedDeriv
from identity.api import deriv_login
from identity.application.deriv_login import DerivLogins
from identity.facade import account, deriv_logins, notices
from identity.infrastructure import tokens
from identity.infrastructure.sms import outbox
from identity.models import User
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, ACustomer, a_customer
from identity.tests.offices import NOON
from shared_kernel.domain.events import Event, NoticeDue, PasswordResetAsked
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.facade import limiter
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import DomainEvent
from shared_kernel.tests.staff import a_factor

FOLLOWERS: dict[type[Event], Callable[[list[Event]], None]] = {  # as penpay/subscriptions.py has them
    NoticeDue: notices.send,
    PasswordResetAsked: account.send_reset_codes,
}


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
    monkeypatch.setattr(deriv_login, "deriv_logins", logins)
    return Deriv(deriv_simulator, logins)


@pytest.fixture
def sms(settings) -> list[tuple[Phone, str]]:
    """The texts that were sent in this test."""
    settings.SMS_URL = "memory://"
    outbox.sent.clear()
    return outbox.sent


@pytest.fixture
def clock():
    """It is noon, and stays so until it is shifted."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.fixture
def mary():
    return User.objects.create_staff("mary", "mary@example.org", PASSWORD, "support")


@pytest.fixture
def enrolled(mary):
    a_factor(mary)
    return mary


@pytest.fixture
def everybody_may_try(monkeypatch):
    """For tests of what happens at once: nobody is refused for being one of many, or waits in vain for their hash."""
    monkeypatch.setattr(tokens, "turns", tokens.Turns(1, strangers=1000, known=1000))
    monkeypatch.setattr(tokens, "HASHING_WAIT_S", 60.0)
    monkeypatch.setattr(limiter, "limits", {name: replace(one, most=10**6) for name, one in limiter.limits.items()})


@pytest.fixture
def customer() -> ACustomer:
    """Somebody with a verified phone and address, who may sign in."""
    return a_customer(password=PASSWORD, email_verified_at=now())


@pytest.fixture
def signed_in(customer) -> Browser:
    """Their browser, on their first device."""
    browser = Browser()
    assert browser.sign_in(customer.email).status_code == 200
    return browser


@pytest.fixture
def told(settings, sms, mails) -> Callable[[], list[tuple[str, str]]]:
    """Delivers what the outbox holds; the texts and mails of this test since the last call: to whom, and what."""

    def deliver() -> list[tuple[str, str]]:
        sms.clear()
        mails.clear()
        for row in DomainEvent.objects.filter(type__in=["NoticeDue", "PasswordResetAsked"]).order_by("pk"):
            event = Event.from_payload(row.type, row.payload)
            FOLLOWERS[type(event)]([event])
        return [(phone.number, text) for phone, text in sms] + [(mail.to[0], mail.body) for mail in mails]

    return deliver


@pytest.fixture
def mails(mailoutbox) -> list[EmailMessage]:
    """The e-mails that were sent in this test."""
    return mailoutbox
