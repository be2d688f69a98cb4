"""Whether PenPay is alive and ready, and its metrics. Strangers learn little: details are for `METRICS_ALLOWED_IPS`."""

import ipaddress
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from operator import itemgetter

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
from shared_kernel.facade import SEALING_STANDS, oldest_waiting, outbox_state, too_wide, unsealed_since

log = logging.getLogger(__name__)

OUTBOX_LATE_S = 60  # an event that waits longer than this means that no relay is running
UNSEALED_LATE_S = 300  # sealing runs each minute: somebody should look, and nothing is amiss for customers yet
PROBE_TIMEOUT_S = 2
STRANGERS_WAIT_S = 1
RIGHTS_HOLD_S = 600  # for so long what the database user may do is not looked at again


class Degraded(str):
    """A reason for a person to look, and none to send requests elsewhere."""

    __slots__ = ()


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is looked at, so that a broken database restarts no process."""
    return JsonResponse({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """200 when database, its user, broker, cache and outbox are fine, else 503; which is not, only for insiders, who
    are also told what is `degraded`: seals that are late, since when, which is never a reason for 503.
    """
    inside = insider(request)
    wrong = _wrong() if inside else _wrong_lately(int(time.monotonic() // STRANGERS_WAIT_S))
    failing = [name for name, reason in wrong.items() if not isinstance(reason, Degraded)]
    if not inside:
        body = {"status": "failing" if failing else "ok"}
    else:
        status = "failing" if failing else "degraded" if wrong else "ok"
        body = {"status": status} | {name: wrong.get(name, "ok") for name in CHECKS}
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
        yield GaugeMetricFamily("penpay_outbox_waiting", "Events that wait for the relay.", outbox.waiting)
        age = _age_s(outbox.oldest)
        yield GaugeMetricFamily("penpay_outbox_age_seconds", "Age of the oldest event that waits.", age)
        unsealed = GaugeMetricFamily("penpay_unsealed_age_seconds", "Age of the oldest unsealed row.", labels=["chain"])
        for chain, since in unsealed_since().items():
            unsealed.add_metric([chain], _age_s(since))
        yield unsealed
        transactions = GaugeMetricFamily("penpay_transactions_open", "Transactions by open status.", labels=["status"])
        for status, number in queries.open_by_status().items():
            transactions.add_metric([status], number)
        yield transactions
        yield GaugeMetricFamily("penpay_outbox_parked", "Events parked for a person.", outbox.parked)


def _wrong() -> dict[str, str]:
    wrong = {name: reason for name, check in CHECKS.items() if (reason := _reason(check))}
    for name, reason in wrong.items():
        log.warning("%s: %s: %s", "degraded" if isinstance(reason, Degraded) else "not ready", name, reason)
    return wrong


@lru_cache(maxsize=1)
def _wrong_lately(period: int) -> dict[str, str]:
    """For strangers, who may ask as often as they like: looked at once a period."""
    return _wrong()


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
    age = _age_s(oldest_waiting())
    return f"the oldest event has waited {age:.0f} s" if age > OUTBOX_LATE_S else ""


def _seals() -> str:
    """Never more than `Degraded`: callbacks, and the page on which two people continue the anchor, are behind the same
    balancer. Without seals nobody could tell later what was changed, so that somebody has to look.
    """
    chain, since = min(
        ((chain, since) for chain, since in unsealed_since().items() if since), key=itemgetter(1), default=("", None)
    )
    age = _age_s(since)
    if since is None or age <= UNSEALED_LATE_S:
        return ""
    what = "sealing stands: " if age > SEALING_STANDS.total_seconds() else ""
    return Degraded(
        f"{what}the oldest row of {chain} without a seal has waited since {since:%Y-%m-%dT%H:%M:%SZ} ({age:.0f} s): "
        "see the log of the worker that seals"
    )


def _age_s(since: datetime | None) -> float:
    return (timezone.now() - since).total_seconds() if since else 0.0


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "rights": _rights,
    "broker": _broker,
    "cache": _cache,
    "outbox": _outbox,
    "seals": _seals,
}


def _reason(check: Callable[[], str]) -> str:
    """Empty when fine; else a reason without addresses or passwords: the error's class."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it means "not ready"
        return type(error).__name__
