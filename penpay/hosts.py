"""One host for staff and another for the API, where `STAFF_HOSTS` says so: neither answers for the other's pages."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port

from shared_kernel.api.problems import problem_response

STAFF = "/admin/"
BOTH = ("/health/", "/metrics")  # asked for by address, inside


class StaffHostMiddleware:
    """404 for the back-office on any other host, and for all but it on a host of staff's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.STAFF_HOSTS and not request.path_info.startswith(BOTH):
            host, _ = split_domain_port(request.get_host())
            if (host in settings.STAFF_HOSTS) is not request.path_info.startswith(STAFF):
                return problem_response(404, "not_found", "There is nothing here for you.")
        return self.get_response(request)
