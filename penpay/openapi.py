"""How PenPay's authentication stands in the OpenAPI document."""

from drf_spectacular.extensions import OpenApiAuthenticationExtension


class CookieScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The access token's cookie; `csrf` (in the settings' components) stands beside it for unsafe methods."""

    target_class = "identity.api.authentication.CookieAuthentication"
    name = "cookie"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "penpay_access",
            "description": "Set by signing in; HttpOnly. In production its name is `__Host-penpay_access`.",
        }
