"""Somebody of staff in a browser, for tests of the back-office: with a second factor, and signed in by it."""

from typing import Any, TypeVar

from django.apps import apps
from django.test import Client
from django.utils import timezone
from django.utils.module_loading import import_string

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
C = TypeVar("C", bound=Client)


def a_factor(user: Any, secret: str = SECRET) -> Any:
    """A confirmed one, whose secret is known; the same again for who has one."""
    made, _ = apps.get_model("identity.StaffFactor")._default_manager.get_or_create(
        user=user, defaults={"secret": secret, "created_at": timezone.now(), "confirmed_at": timezone.now()}
    )
    if made.confirmed_at is None:
        made.confirmed_at = timezone.now()
        made.save()
    return made


def signed_in(user: Any, client: C | None = None) -> C | Client:
    """As the sign-in leaves a session once both factors are proven; without its hash and its codes."""
    browser = client or Client(headers={"Host": "localhost"})
    browser.force_login(user)
    session = browser.session
    import_string("identity.api.staff.prove")(session, a_factor(user).pk)
    session.save()
    return browser
