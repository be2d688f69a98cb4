"""A REST client that behaves like a browser: cookies by path, and the CSRF token repeated in its header."""

from typing import Any

import jwt
from django.test import Client

from identity.infrastructure.sms import outbox
from identity.models import Session
from identity.tests.factories import PASSWORD
from shared_kernel.infrastructure.persistence import now

API = "/api/v1/"
REFRESH_PATH = "/api/v1/auth"


class Browser:
    """One device. `cookies` may be read and changed by a test."""

    def __init__(self) -> None:
        self.http = Client(enforce_csrf_checks=True)
        self.cookies = self.http.cookies
        self.get("auth/csrf")

    def get(self, path: str) -> Any:
        """Path below `/api/v1/`."""
        return self.http.get(API + path)

    def post(self, path: str, body: Any = None, *, csrf: bool = True) -> Any:
        """`body` as JSON."""
        headers = {"X-CSRFToken": self.cookies["csrftoken"].value} if csrf else {}
        return self.http.post(API + path, body if body is not None else {}, "application/json", headers=headers)

    def delete(self, path: str) -> Any:
        """With the CSRF header."""
        return self.http.delete(API + path, headers={"X-CSRFToken": self.cookies["csrftoken"].value})

    def sign_in(self, identifier: str, password: str = PASSWORD, device: str = "phone-1", **more: str) -> Any:
        """`device` is the id that the device goes by."""
        shown = {"id": device, "name": "Amina's phone", "platform": "android"}
        return self.post("auth/login", {"identifier": identifier, "password": password, "device": shown, **more})

    def enrol(self, identifier: str, password: str = PASSWORD, device: str = "phone-2") -> Any:
        """Signs in on a device that is new to the account, with the code that comes by SMS (`SMS_URL=memory://`)."""
        asked = self.sign_in(identifier, password, device)
        assert asked.json()["code"] == "device_code_required", asked.json()
        code = outbox.sent[-1][1].split("code: ")[1][:6]
        return self.sign_in(identifier, password, device, code=code)

    def steps_up(self) -> None:
        """As if this session had just been stepped up: for tests whose matter is another one."""
        claims = jwt.decode(self.cookies["penpay_access"].value, options={"verify_signature": False})
        assert Session.objects.filter(pk=claims["sid"]).update(stepped_up_at=now())

    def is_signed_in(self) -> bool:
        """Whether `GET me` lets it in."""
        return self.get("me").status_code == 200

    def twin(self) -> "Browser":
        """Somebody with the same cookies, at this moment."""
        twin = Browser()
        for name, morsel in self.cookies.items():
            twin.cookies[name] = morsel.value
        return twin
