"""Where Deriv sends the customer's browser back to: no cookie comes along, and the query is secret, so never logged.

The page shows the code to whoever has just signed in at Deriv. Handing it to the session that began is theirs to do,
which is what keeps an account out of the hands of somebody who lured its owner into signing in (ADR 0030).
"""

import logging
import re

from django.http import HttpRequest, HttpResponse
from django.utils.html import escape

from identity.domain.deriv_authorization import DerivAuthorizationNotOpen
from identity.facade import deriv_authorizations
from shared_kernel.api.context import identify
from shared_kernel.domain.errors import DomainError

log = logging.getLogger(__name__)

STATE, CODE = re.compile(r"[A-Za-z0-9_-]{43}"), re.compile(r"[!-~]{1,2048}")
ERRORS = {"access_denied", "invalid_scope", "invalid_request", "server_error", "temporarily_unavailable",
          "unauthorized_client", "unsupported_response_type"}  # fmt: skip
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
BACK = "<p>Go back to PenPay and begin again.</p>"
PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>PenPay</title></head><body><h1>{title}</h1>{text}</body></html>"
)
SIGNED_IN = (
    "<p>To finish, enter this code in PenPay, where you began, within a few minutes:</p><p><code>{code}</code></p>"
    "<p><strong>Give it to nobody.</strong> Whoever enters it in their PenPay account may pay with your Deriv account. "
    "If you did not begin this in PenPay yourself, close this page: nothing has been connected.</p>"
)


def came_back(request: HttpRequest) -> HttpResponse:
    """`GET /oauth/deriv/return?code&state`, or with `error`: a page. 400 malformed, 409, 410 not open (any more)."""
    try:
        return _came_back(request)
    except Exception as error:  # Django would log the request, and the code in it
        log.exception("a return from Deriv was not taken: %s", type(error).__name__)
        return _page(500, "Something went wrong", BACK)


def _came_back(request: HttpRequest) -> HttpResponse:
    if request.method != "GET":  # a look ahead by HEAD uses nothing up
        response = _page(405, "Not here", BACK)
        response["Allow"] = "GET"
        return response
    identify(request, "system:deriv_return")
    states, codes, errors = (request.GET.getlist(name) for name in ("state", "code", "error"))
    if len(states) != 1 or not STATE.fullmatch(states[0]) or len(codes) + len(errors) != 1:
        return _page(400, "This link is not complete", BACK)
    if codes and not CODE.fullmatch(codes[0]):
        return _page(400, "This link is not complete", BACK)
    try:
        if errors:
            deriv_authorizations.denied(states[0], errors[0] if errors[0] in ERRORS else "other_error")
            return _page(200, "Deriv was not connected", f"<p>You, or Deriv, did not allow it.</p>{BACK}")
        deriv_authorizations.came_back(states[0], codes[0])
    except DerivAuthorizationNotOpen:
        return _page(410, "This link was used before, or is too old", BACK)
    except DomainError:
        return _page(409, "Your Deriv account can't be changed now", "<p>Please contact PenPay's support.</p>")
    return _page(200, "You have signed in at Deriv", SIGNED_IN.format(code=escape(codes[0])))


def _page(status: int, title: str, text: str) -> HttpResponse:
    """No script, no style, nothing from elsewhere, stored nowhere, and no address of it to wherever one goes next."""
    response = HttpResponse(PAGE.format(title=title, text=text), status=status)
    response["Content-Security-Policy"] = POLICY
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django logs what is refused, with its request
    return response
