"""Every refusal as a problem document (RFC 9457): the one exception handler, and Django's own error pages."""

import logging
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import csrf, defaults
from rest_framework import exceptions

from shared_kernel.domain.errors import DomainError
from shared_kernel.facade import current_context, lock_lost

log = logging.getLogger(__name__)

DATABASE_AWAY = {1040, 1053, 2002, 2003, 2006, 2013, 4031}  # MySQL: too many connections, shutting down, gone


def problem_response(status: int, code: str, detail: str = "", **extra: Any) -> JsonResponse:
    """A problem document; `extra["retry_after"]` (seconds) also becomes the header."""
    title = code.replace("_", " ").capitalize()
    body: dict[str, Any] = {
        "type": f"urn:penpay:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail or f"{title}.",
        "code": code,
        "request_id": current_context().request_id,
    }
    body |= {name: value for name, value in extra.items() if name not in body}
    response = JsonResponse(body, status=status, content_type="application/problem+json")
    response["Cache-Control"] = "no-store"
    if extra.get("retry_after") is not None:
        response["Retry-After"] = str(max(1, round(extra["retry_after"])))
    return response


def problem(error: Exception, context: dict[str, Any] | None = None) -> HttpResponse | None:
    """DRF's exception handler. `None` for what nobody foresaw: Django logs that, and `server_error` answers."""
    match error:
        case DomainError():
            return problem_response(error.status, error.code, error.detail, **error.extra)
        case exceptions.APIException():
            return _api_problem(error, (context or {}).get("view"))
        case Http404():
            return problem_response(404, "not_found", "There is nothing here for you.")
        case PermissionDenied():
            return problem_response(403, "permission_denied", "You may not do this.")
        case RequestDataTooBig():
            return problem_response(
                413, "body_too_large", f"Send at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes."
            )
        case SuspiciousOperation():
            return problem_response(400, "bad_request", "The request can't be understood.")
        case OperationalError() if lock_lost(error) or (error.args and error.args[0] in DATABASE_AWAY):
            log.warning("the database is busy or away: %s", error.args[:1])
            return problem_response(503, "busy", "Too much at once: repeat the request in a moment.", retry_after=1)
        case _:
            return None


def _api_problem(error: exceptions.APIException, view: Any) -> HttpResponse:
    if isinstance(error, exceptions.ValidationError):
        errors = list(_field_errors(error.get_full_details()))
        return problem_response(400, "invalid_request", "Correct the fields named in errors.", errors=errors)
    if isinstance(error, exceptions.UnsupportedMediaType):  # what was sent is not repeated to the sender
        taken = " or ".join(parser.media_type for parser in getattr(view, "parser_classes", ())) or "application/json"
        return problem_response(415, "unsupported_media_type", f"Send {taken}.")
    extra = {"retry_after": wait} if (wait := getattr(error, "wait", None)) else {}
    code = str(error.get_codes()) if isinstance(error.detail, str) else str(error.default_code)
    detail = str(error.detail) if isinstance(error.detail, str) else str(error.default_detail)
    missing = isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed)
    response = problem_response(401 if missing else error.status_code, code, detail, **extra)
    if missing:
        response["WWW-Authenticate"] = getattr(error, "auth_header", None) or "Cookie"
    return response


def _field_errors(details: Any, path: str = "") -> Iterable[dict[str, str]]:
    """DRF's tree of errors as flat rows; `field` is a dotted path, empty for the body as a whole."""
    match details:
        case {"message": message, "code": code} if not isinstance(message, dict | list):
            yield {"field": path, "code": str(code), "detail": str(message)}
        case dict():
            for name, inner in details.items():
                here = "" if name == "non_field_errors" else str(name)
                yield from _field_errors(inner, ".".join(part for part in (path, here) if part))
        case list():
            for inner in details:
                yield from _field_errors(inner, path)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler400`: also a refused Host header."""
    answer = problem(exception) if isinstance(exception, RequestDataTooBig) else None
    return answer or problem_response(400, "bad_request", "The request can't be understood.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler403`; the admin keeps Django's page."""
    if request.path_info.startswith("/admin/"):
        return defaults.permission_denied(request, exception)
    return problem_response(403, "permission_denied", "You may not do this.")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler404`; the admin keeps Django's page."""
    if request.path_info.startswith("/admin/"):
        return defaults.page_not_found(request, exception)
    return problem_response(404, "not_found", "There is nothing here for you.")


def server_error(request: HttpRequest) -> HttpResponse:
    """`handler500`: the last resort. What happened is in the log, under the request id, and nowhere else."""
    return problem_response(500, "internal_error", "This is our mistake. Give support the request_id.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's CSRF failure view; the admin keeps Django's page."""
    if request.path_info.startswith("/admin/"):
        return csrf.csrf_failure(request, reason=reason)
    return problem_response(403, "csrf_failed", "Repeat the csrftoken cookie's value in X-CSRFToken.")
