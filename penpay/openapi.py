"""How PenPay's authentication stands in the OpenAPI document."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.permissions import SAFE_METHODS

CSRF = {
    "type": "apiKey",
    "in": "header",
    "name": "X-CSRFToken",
    "description": "For unsafe methods: the value of the `csrftoken` cookie, which `GET auth/csrf` sets.",
}
COOKIE = {
    "type": "apiKey",
    "in": "cookie",
    "name": "penpay_access",
    "description": "Set by signing in; HttpOnly. In production its name is `__Host-penpay_access`.",
}


class CookieScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The access token's cookie, and for unsafe methods the CSRF header beside it."""

    target_class = "identity.api.authentication.CookieAuthentication"
    name = "cookie"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return COOKIE

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[str]]:
        return {"cookie": []} if auto_schema.method in SAFE_METHODS else {"cookie": [], "csrf": []}


class CsrfScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Views that anybody may call need the CSRF header for unsafe methods."""

    target_class = "identity.api.authentication.CsrfOnly"
    name = "csrf"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return CSRF

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[str]]:
        return {} if auto_schema.method in SAFE_METHODS else {"csrf": []}
