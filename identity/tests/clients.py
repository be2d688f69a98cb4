"""A REST client that behaves like a browser: cookies by path, and the CSRF token repeated in its header."""

from typing import Any

import jwt
from django.test import Client

from identity.infrastructure.sms import outbox
from identity.models import Session
from identity.tests.factories import PASSWORD
from shared_kernel.infrastructure.persistence import now

API = "/api/v1/"
HOME = "197.232.61.7"  # a carrier's address
REFRESH_PATH = "/api/v1/auth"

BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def a_form(*parts: tuple[str, str | bytes | tuple[str, bytes, str]]) -> bytes:
    """The parts in their order: a name with a text, or with (file name, content, content type)."""
    lines = []
    for name, value in parts:
        file_name, content, kind = value if isinstance(value, tuple) else (None, value, None)
        raw = content.encode() if isinstance(content, str) else content
        shown = f'; filename="{file_name}"' if file_name is not None else ""
        typed = f"\r\nContent-Type: {kind}" if kind else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{shown}{typed}\r\n\r\n'
        lines.append(head.encode() + raw + b"\r\n")
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


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

    def patch(self, path: str, body: Any) -> Any:
        """`body` as JSON, with the CSRF header."""
        headers = {"X-CSRFToken": self.cookies["csrftoken"].value}
        return self.http.patch(API + path, body, "application/json", headers=headers)

    def post_form(self, path: str, body: bytes, content_type: str = FORM, **environ: Any) -> Any:
        """`body` as it is, such as `a_form` makes it."""
        headers = {"X-CSRFToken": self.cookies["csrftoken"].value}
        return self.http.generic("POST", API + path, body, content_type, headers=headers, **environ)

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


def a_browser(address: str = HOME, **headers: str) -> Browser:
    """One at this address."""
    browser = Browser()
    browser.http.defaults |= {"REMOTE_ADDR": address, **headers}
    return browser


def refused(answer: Any, code: str = "too_many_requests") -> bool:
    """Whether this is a whole 429; an `AssertionError` says what is not."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (429, code), body
    assert answer["Content-Type"] == "application/problem+json"
    assert int(answer["Retry-After"]) == body["retry_after"] >= 1
    return True
