"""Who sends a request, by its cookies; and that it was really sent by their client.

Stands apart from the views because DRF imports it while it imports its own.
"""

from copy import copy

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from identity.domain.ports import SignedIn
from identity.domain.session import SessionEnded
from identity.facade import auth, door
from shared_kernel.api.context import identify
from shared_kernel.domain.errors import Forbidden

ACCESS_COOKIE = f"{'__Host-' if settings.PRODUCTION else ''}penpay_access"
SECURE = "__Secure-" if settings.PRODUCTION else ""
DEVICE_COOKIE = f"{SECURE}penpay_device"  # only to the paths of signing in; stays when its user signs out


class CsrfFailed(Forbidden):
    """An unsafe request without the token that only our own pages and clients can read."""


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


def _any_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class CsrfOnly(BaseAuthentication):
    """For views that anybody may call: nobody is signed in, and unsafe methods need `X-CSRFToken`."""

    def authenticate(self, request: Request) -> tuple[SignedIn, None] | None:
        """Raises `CsrfFailed`."""
        if request.method not in SAFE_METHODS:
            # For a POST Django looks for the token in the body first, and for that takes in a form of any size, files
            # into plain temporary ones, before anybody knows who sends it.
            asked, check = copy(request._request), _CsrfCheck(_any_view)
            asked.method = "PUT"
            check.process_request(asked)
            if reason := check.process_view(asked, _any_view, (), {}):
                raise CsrfFailed(f"{str(reason).rstrip('.')}: repeat the csrftoken cookie's value in X-CSRFToken")
        return None

    def authenticate_header(self, request: Request) -> str:
        return "Cookie"


class CookieAuthentication(CsrfOnly):
    """The access token's cookie, and for unsafe methods `X-CSRFToken`. A dead token is nobody's."""

    def authenticate(self, request: Request) -> tuple[SignedIn, None] | None:
        """`request.user` becomes a `SignedIn`. One query. Raises `CsrfFailed`, `TooManyRequests`."""
        super().authenticate(request)
        token = request.COOKIES.get(ACCESS_COOKIE, "")
        try:
            signed_in = auth.authenticate(token)
        except SessionEnded:
            if token and auth.access.read(token) is not None:  # so far it was counted as its session's
                door.may_send(request.COOKIES.get(DEVICE_COOKIE, ""))
            return None
        identify(request, f"user:{signed_in.id}", str(signed_in.device_id))
        return signed_in, None
