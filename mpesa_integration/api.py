"""M-Pesa's callbacks: stored and answered, nothing more. A URL here holds a secret, so that it is never logged."""

import json
import logging
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from mpesa_integration.domain.callback import CallbackKind
from mpesa_integration.facade import Received, callbacks
from shared_kernel.api.context import client_address, identify
from shared_kernel.domain.errors import TooManyRequests
from shared_kernel.domain.rate_limits import Counter, counters_of_address
from shared_kernel.facade import limiter, lock_lost, now

log = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024
ACCEPTED = b'{"ResultCode": 0, "ResultDesc": "Accepted"}'
VALID = b'{"ResultCode": "0", "ResultDesc": "Accepted"}'  # a validation's code is text: the contract's section 9
KEPT_OUT = {"COOKIE", "AUTHORIZATION"}


@csrf_exempt
def callback(request: HttpRequest, kind: str, token: str) -> HttpResponse:
    """`POST /cb/{kind}/{token}`: 200 once stored; 404 for a wrong token or address, 413 above 64 KiB, all audited."""
    try:
        return _callback(request, kind, token)
    except Exception as error:  # Django would log the path, and the token in it
        log.exception("a callback was not stored: %s", type(error).__name__)
        return _refusal(500)


def _callback(request: HttpRequest, kind: str, token: str) -> HttpResponse:
    identify(request, "system:mpesa_callback")
    peer, at = client_address(request), now()
    if request.method != "POST" or kind not in set(CallbackKind):
        return _refusal(404)
    if not is_allowed(peer, tuple(settings.MPESA_CALLBACK_ALLOWED_IPS)):
        if _is_news(peer):
            log.warning("a callback came from a foreign address: %s", peer)
            callbacks.refuse(kind, "foreign_address", peer, at=at)
        return _refusal(404)
    body = request.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        callbacks.refuse(kind, "too_large", peer, at=at)
        return _refusal(413)
    headers = {name[5:]: value for name, value in request.META.items() if name.startswith("HTTP_")}
    text = json.dumps({name: value[:512] for name, value in headers.items() if name not in KEPT_OUT})
    received = Received(kind=CallbackKind(kind), token=token, body=body, headers=text, peer=peer, at=at)
    known = _retried(lambda: callbacks.receive(received))
    if not known:
        log.warning("a callback came with a token that is none of ours, from %s", peer)
    answer = VALID if kind == CallbackKind.VALIDATION else ACCEPTED
    return HttpResponse(answer, content_type="application/json") if known else _refusal(404)


def _is_news(peer: str) -> bool:
    """Strangers can't fill the audit log: beyond the limit they are told the same, and nobody writes it down."""
    try:
        limiter.take(*counters_of_address("foreign_callbacks.address", peer), Counter("foreign_callbacks.all"))
    except TooManyRequests:
        return False
    return True


def _retried(receive: Callable[[], bool]) -> bool:
    """Once more when the database gave up a lock: the same callback may be coming in fifty times at once."""
    for _ in range(3):
        try:
            return receive()
        except OperationalError as error:
            if not lock_lost(error):
                raise
    return receive()


def _refusal(status: int) -> HttpResponse:
    response = HttpResponse(b"{}", status=status, content_type="application/json")
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django logs the path of what is refused
    return response


@lru_cache(maxsize=1024)
def is_allowed(peer: str, allowed: tuple[str, ...]) -> bool:
    """Whether `peer` is one of `allowed`: addresses, or networks as in 196.201.214.0/24."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in ip_network(entry.strip(), strict=False) for entry in allowed)
