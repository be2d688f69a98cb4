"""The rate of all requests, by who sends them: one place, one round trip, before anything else is asked for them."""

import logging
from collections.abc import Callable
from dataclasses import replace

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse

from identity.api.authentication import ACCESS_COOKIE, DEVICE_COOKIE
from identity.domain.session import SessionEnded
from identity.facade import auth, door
from shared_kernel.api.context import client_address
from shared_kernel.api.problems import problem
from shared_kernel.domain.errors import TooManyRequests
from shared_kernel.domain.rate_limits import Counter, counters_of_address
from shared_kernel.facade import acting_as, current_context, limiter

log = logging.getLogger(__name__)
UNCOUNTED = ("/cb/", "/health/", "/metrics", "/admin/")
"""M-Pesa's callbacks, which tell of money and are never refused; what is asked inside; staff, whose tries count."""


class RateLimitMiddleware:
    """429 for whoever sends too much: a session by a token that we signed, else an address.

    Sessions count apart from their address, for a carrier puts thousands of them behind one; and each for itself, so
    that the token of one that has ended uses up nothing of its owner's.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(UNCOUNTED):
            try:
                count(request)
            except (TooManyRequests, DatabaseError) as refused:
                if (answer := problem(refused)) is not None:
                    return answer
                log.exception("not_counted: neither Redis nor the database could")  # as before the first migration
        return self.get_response(request)


def count(request: HttpRequest) -> None:
    """Raises `TooManyRequests`."""
    token = request.COOKIES.get(ACCESS_COOKIE, "")
    claims = auth.access.read(token) if token else None
    if claims is None:
        door.may_send(request.COOKIES.get(DEVICE_COOKIE, ""))
        return
    session = Counter("api.session", str(claims.session_id))
    who = replace(current_context(), actor=f"user:{claims.user_id}", device=str(claims.device_id))
    with acting_as(who):  # for the audit row of a refusal; nothing else is done in their name yet
        try:
            limiter.take(session, *counters_of_address("api.address_signed_in", client_address(request)))
        except TooManyRequests:
            limiter.take(session)
        else:
            return
    try:  # all who are signed in there together send too much: only who really is goes on
        auth.authenticate(token)
    except SessionEnded:
        door.may_send(request.COOKIES.get(DEVICE_COOKIE, ""))
