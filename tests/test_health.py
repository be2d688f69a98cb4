"""Health, metrics and headers, as strangers and insiders see them, with the parts really broken."""

import socket
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from payments.domain.transaction import FINAL
from payments.facade import TransactionStatus, queries
from penpay.health import _wide_rights, _wrong_lately
from shared_kernel.facade import new_id, sealing
from shared_kernel.models import AuditLog, DomainEvent
from shared_kernel.tests.users import TWO_USERS, by_owner
from wallet.facade import verify_ledger

pytestmark = pytest.mark.django_db

STRANGER = {"REMOTE_ADDR": "41.90.1.1"}


@pytest.fixture(autouse=True)
def _as_if_nobody_had_asked_lately():
    _wrong_lately.cache_clear()


@pytest.fixture
def client() -> Client:
    return Client(headers={"Host": "localhost"})


def an_event(age_s: float = 0, **columns) -> DomainEvent:
    return DomainEvent.objects.create(
        id=new_id(), type="TransactionCreated", aggregate_id=new_id(), payload={},
        occurred_at=timezone.now() - timedelta(seconds=age_s), **columns,
    )  # fmt: skip


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_alive_is_said_without_asking_the_database(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert client.get("/health/live").json() == {"status": "ok"}


def test_ready_names_each_part_to_insiders_only(client):
    inside, outside = client.get("/health/ready"), client.get("/health/ready", **STRANGER)

    assert inside.status_code == outside.status_code == 200
    assert inside.json() == {
        "status": "ok", "database": "ok", "rights": "ok", "broker": "ok", "cache": "ok", "outbox": "ok", "seals": "ok"
    }  # fmt: skip
    assert outside.json() == {"status": "ok"}


def test_an_event_that_waits_for_over_a_minute_makes_it_unready(client):
    an_event(age_s=3600, published_at=timezone.now())
    an_event(age_s=3600, published_at=timezone.now(), parked_at=timezone.now())
    waiting = an_event(age_s=20)
    assert client.get("/health/ready").json()["outbox"] == "ok"
    DomainEvent.objects.filter(pk=waiting.pk).update(published_at=timezone.now())

    an_event(age_s=61)

    assert client.get("/health/ready", **STRANGER).status_code == 503
    assert client.get("/health/ready", **STRANGER).json() == {"status": "failing"}
    assert "has waited" in client.get("/health/ready").json()["outbox"]


def test_strangers_who_ask_again_and_again_are_told_what_was_seen_a_moment_ago(client, monkeypatch):
    monkeypatch.setattr("penpay.health.time.monotonic", lambda: 100.0)
    looks = []

    def look() -> str:
        looks.append(1)
        return ""

    monkeypatch.setattr("penpay.health.CHECKS", {"database": look})

    assert [client.get("/health/ready", **STRANGER).status_code for _ in range(20)] == [200] * 20
    assert len(looks) == 1
    assert client.get("/health/ready").status_code == 200
    assert len(looks) == 2


def a_row_recorded(ago_s: float) -> None:
    at = timezone.now() - timedelta(seconds=ago_s)
    AuditLog.objects.create(action="a", target_type="t", target_id="1", actor="system", at=at)


@pytest.mark.parametrize(
    ("ago_s", "status"), [(0, "ok"), (250, "ok"), (400, "degraded"), (3700, "degraded"), (90_000, "degraded")]
)
def test_rows_that_wait_for_their_seal_are_told_with_since_when_and_take_no_instance_away(client, ago_s, status):
    """Callbacks, and the page on which two people continue the anchor, are behind the same balancer."""
    a_row_recorded(ago_s)
    since = f"{timezone.now() - timedelta(seconds=ago_s):%Y-%m-%dT%H}"

    inside, outside = client.get("/health/ready"), client.get("/health/ready", **STRANGER)

    assert (inside.status_code, inside.json()["status"]) == (200, status)
    assert (f"audit_logs without a seal has waited since {since}" in inside.json()["seals"]) is (status != "ok")
    assert ("sealing stands" in inside.json()["seals"]) is (ago_s > 3600)
    assert (outside.status_code, outside.json()) == (200, {"status": "ok"})


@pytest.mark.django_db(transaction=True)
def test_rows_that_are_sealed_wait_for_nothing_however_old(client):
    a_row_recorded(5000)
    sealing.seal("audit_logs", sealing.horizon("audit_logs"))
    a_row_recorded(100)

    text = client.get("/metrics").content.decode()

    assert client.get("/health/ready").json()["seals"] == "ok"
    assert 100 <= float(text.split('penpay_unsealed_age_seconds{chain="audit_logs"} ')[1].split("\n")[0]) < 200
    assert 'penpay_unsealed_age_seconds{chain="ledger_entries"} 0.0' in text


def test_a_cache_that_is_away_makes_it_unready_within_seconds(client, settings):
    settings.REDIS_URL = f"redis://:a-password@127.0.0.1:{closed_port()}/0"

    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["cache"] == "ConnectionError"
    assert "a-password" not in answer.content.decode()


def test_metrics_are_for_insiders(client, settings):
    an_event(age_s=30)
    text = client.get("/metrics").content.decode()

    assert "penpay_outbox_waiting 1.0" in text
    assert float(text.split("\npenpay_outbox_age_seconds ")[1].split("\n")[0]) >= 30
    assert "penpay_outbox_parked 0.0" in text
    assert 'penpay_transactions_open{status="NEEDS_ATTENTION"} 0.0' in text
    assert client.get("/metrics", **STRANGER).status_code == 404
    assert client.get("/metrics", headers={"X-Forwarded-For": "41.90.1.1"}).status_code == 404
    settings.TRUSTED_PROXY_COUNT = 1
    assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1, 41.90.1.1"}).status_code == 404
    settings.METRICS_ALLOWED_IPS = ["41.90.0.0/16"]
    assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1, 41.90.1.1"}).status_code == 200


def test_a_status_is_counted_as_open_until_it_is_an_end():
    assert set(queries.open_by_status()) == set(TransactionStatus) - FINAL


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_they_are_only_read(client, path):
    assert client.post(path).status_code == 405


@pytest.mark.parametrize(
    ("path", "policy", "stored"),
    [
        ("/admin/login/", "default-src 'self'", False),
        ("/api/v1/docs/", "style-src 'self' 'unsafe-inline'", True),
        ("/api/v1/me", "default-src 'none'", False),
        ("/api/v1/nothing", "default-src 'none'", False),
        ("/health/live", "default-src 'none'", False),
    ],
)
def test_every_answer_tells_browsers_what_it_may_do(client, path, policy, stored):
    headers = client.get(path).headers

    assert policy in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe-eval" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "same-origin"
    assert ("no-store" in headers.get("Cache-Control", "")) is not stored


@pytest.mark.skipif(not TWO_USERS, reason="one user does everything here")
@pytest.mark.django_db(transaction=True)
def test_a_database_user_that_may_do_too_much_is_named_by_verify_ledger_and_makes_it_unready(client, account):
    schema = connection.settings_dict["NAME"]
    by_owner(f"GRANT UPDATE ON {schema}.ledger_entries TO {account}")
    _wide_rights.cache_clear()

    found = [(finding.check, finding.row) for finding in verify_ledger().findings]
    ready, outside = client.get("/health/ready"), client.get("/health/ready", **STRANGER)

    _wide_rights.cache_clear()
    assert found == [("grants", "UPDATE on ledger_entries")]
    assert (ready.status_code, outside.status_code) == (503, 503)
    assert "UPDATE on ledger_entries" in ready.json()["rights"]
    assert outside.json() == {"status": "failing"}


def test_what_the_database_user_may_do_is_not_looked_at_at_each_probe(client, django_assert_num_queries):
    client.get("/health/ready")

    with django_assert_num_queries(4):  # is the database there, is an event late, and is a row of either chain
        client.get("/health/ready")
