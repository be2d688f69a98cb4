"""Whether PenPay is alive and ready, and its metrics. Strangers learn little: details are for `METRICS_ALLOWED_IPS`."""

import ipaddress
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import redis
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from payments.facade import queries
from penpay.celery import app
from shared_kernel.api.context import client_address
from shared_kernel.api.problems import problem_response
from shared_kernel.facade import oldest_waiting, outbox_state, too_wide

log = logging.getLogger(__name__)

OUTBOX_LATE_S = 60  # an event that waits longer than this means that no relay is running
PROBE_TIMEOUT_S = 2
RIGHTS_HOLD_S = 600  # for so long what the database user may do is not looked at again


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is looked at, so that a broken database restarts no process."""
    return JsonResponse({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """200 when database, its user, broker, cache and outbox are fine, else 503; which is not, only for insiders."""
    failing = {name: reason for name, check in CHECKS.items() if (reason := _reason(check))}
    for name, reason in failing.items():
        log.warning("not ready: %s: %s", name, reason)
    if not insider(request):
        body = {"status": "failing" if failing else "ok"}
    else:
        body = {"status": "failing" if failing else "ok"} | {name: failing.get(name, "ok") for name in CHECKS}
    return JsonResponse(body, status=503 if failing else 200)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus's text format; for strangers there is nothing here."""
    if not insider(request):
        return problem_response(404, "not_found", "There is nothing here for you.")
    registry: CollectorRegistry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):  # several gunicorn workers: their counters are summed from files
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    state = CollectorRegistry()
    state.register(Tables())
    return HttpResponse(generate_latest(registry) + generate_latest(state), content_type=CONTENT_TYPE_LATEST)


class Tables(Collector):
    """What only the database knows, read at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        outbox = outbox_state()
        age = (timezone.now() - outbox.oldest).total_seconds() if outbox.oldest else 0.0
        yield GaugeMetricFamily("penpay_outbox_waiting", "Events that wait for the relay.", outbox.waiting)
        yield GaugeMetricFamily("penpay_outbox_age_seconds", "Age of the oldest event that waits.", age)
        transactions = GaugeMetricFamily("penpay_transactions_open", "Transactions by open status.", labels=["status"])
        for status, number in queries.open_by_status().items():
            transactions.add_metric([status], number)
        yield transactions
        yield GaugeMetricFamily("penpay_outbox_parked", "Events parked for a person.", outbox.parked)


def insider(request: HttpRequest) -> bool:
    """Whether the peer is in `METRICS_ALLOWED_IPS`; a forwarded request is none unless its proxies are counted."""
    if not settings.TRUSTED_PROXY_COUNT and "HTTP_X_FORWARDED_FOR" in request.META:
        return False
    address = client_address(request)
    return bool(address) and any(
        ipaddress.ip_address(address) in ipaddress.ip_network(allowed) for allowed in settings.METRICS_ALLOWED_IPS
    )


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def _rights() -> str:
    """At the first probe of a process, and then now and then: the user that it runs as can change no ledger entry."""
    wide = _wide_rights(int(time.monotonic() // RIGHTS_HOLD_S))
    return f"the database user may do too much: {', '.join(wide)}; migrate says what to do" if wide else ""


@lru_cache(maxsize=1)
def _wide_rights(period: int) -> list[str]:
    return too_wide()


def _broker() -> str:
    with app.connection_for_write(connect_timeout=PROBE_TIMEOUT_S) as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=PROBE_TIMEOUT_S)
    return ""


def _cache() -> str:
    if settings.REDIS_URL:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=PROBE_TIMEOUT_S, socket_timeout=PROBE_TIMEOUT_S
        ) as cache:
            cache.ping()
    return ""


def _outbox() -> str:
    oldest = oldest_waiting()
    age = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    return f"the oldest event has waited {age:.0f} s" if age > OUTBOX_LATE_S else ""


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "rights": _rights,
    "broker": _broker,
    "cache": _cache,
    "outbox": _outbox,
}


def _reason(check: Callable[[], str]) -> str:
    """Empty when fine; else a reason without addresses or passwords: the error's class."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it means "not ready"
        return type(error).__name__
