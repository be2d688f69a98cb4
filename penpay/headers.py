"""The response headers that browsers act on: a content security policy by place, and no stored API answers."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

COMMON = "base-uri 'none'; object-src 'none'; frame-ancestors 'none'; form-action 'self'"
PAGES = f"default-src 'self'; {COMMON}"
DOCS = (
    f"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; {COMMON}"  # Swagger UI styles inline
)
DATA = "default-src 'none'; frame-ancestors 'none'"


class SecurityHeadersMiddleware:
    """`Content-Security-Policy` for pages, docs and data; `Cache-Control: no-store` where an answer may be personal."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        docs = request.path_info.startswith("/api/v1/docs/")
        if docs:
            response.headers.setdefault("Content-Security-Policy", DOCS)
        elif response.headers.get("Content-Type", "").startswith("text/html"):
            response.headers.setdefault("Content-Security-Policy", PAGES)
        else:
            response.headers.setdefault("Content-Security-Policy", DATA)
            response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        response.headers.setdefault(
            "Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
        )
        return response
