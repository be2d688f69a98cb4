"""Who is asking: the request's id, the peer's address, and the acting `Context`."""

import ipaddress
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request

from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as, current_context, new_id

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")


def client_address(request: HttpRequest) -> str:
    """The peer's address, in canonical form; behind `TRUSTED_PROXY_COUNT` proxies, what the outermost of them saw.

    What stands further left in `X-Forwarded-For` is the peer's own word and is never read.
    """
    proxies: int = settings.TRUSTED_PROXY_COUNT
    peer = request.META.get("REMOTE_ADDR", "")
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if proxies else []
    for candidate in ([hops[-proxies]] if len(hops) >= proxies > 0 else []) + [peer]:
        try:
            address = ipaddress.ip_address(_without_port(candidate.strip()).partition("%")[0])
        except ValueError:
            continue
        return str(getattr(address, "ipv4_mapped", None) or address)
    return ""


def _without_port(text: str) -> str:
    """As some balancers write a hop: `1.2.3.4:5555`, `[2001:db8::1]:5555`."""
    host, _, _ = text.removeprefix("[").partition("]") if text.startswith("[") else text.rpartition(":")
    return host if text.startswith("[") or text.count(":") == 1 else text


class ContextMiddleware:
    """Gives each request its id (`X-Request-ID`, the caller's when it is a sane one) and its acting `Context`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(new_id())
        with ExitStack() as acting:
            acting.enter_context(acting_as(Context("anonymous", "", client_address(request), request_id)))
            request.acting = acting  # type: ignore[attr-defined]
            response = self.get_response(request)
        response["X-Request-ID"] = request_id
        return response


def identify(request: Request | HttpRequest, actor: str, device: str = "") -> None:
    """From here on `actor` (`user:<id>`, `staff:<id>`) acts in this request; authentication calls it when sure."""
    http: HttpRequest = getattr(request, "_request", request)
    http.acting.enter_context(acting_as(replace(current_context(), actor=actor, device=device)))  # type: ignore[attr-defined]
