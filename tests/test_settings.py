"""What the settings refuse before anything starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from secrets import token_hex, token_urlsafe

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from django.core.exceptions import ImproperlyConfigured

from penpay import settings

V3 = {"platform": "ws_v3", "loginid": "CR900001", "token": "s3cret-token", "currency": "USD", "rate": 180}
REST = {"platform": "rest", "agent_id": 7001, "token": "s3cret-token", "currency": "USD", "rate": 60}


def test_each_agent_gets_the_name_by_which_the_ledger_knows_it():
    agents = settings.deriv_agents([dict(V3), dict(REST), {**REST, "agent_id": "7002"}])

    assert [agent["name"] for agent in agents] == ["CR900001", "7001", "7002"]


@pytest.mark.parametrize(
    "listed",
    [
        {},
        "CR900001",
        ["CR900001"],
        [{**V3, "platform": "ws_v4"}],
        [{**V3, "loginid": ""}],
        [{**V3, "loginid": "7001"}],
        [{**V3, "platform": "rest"}],
        [{**REST, "agent_id": "CR1"}],
        [{**REST, "agent_id": 0}],
        [{**REST, "token": ""}],
        [{**V3}, {**V3}],
    ],
)
def test_an_agent_that_cannot_be_used_stops_the_start_and_its_token_is_in_no_message(listed):
    with pytest.raises(ImproperlyConfigured) as raised:
        settings.deriv_agents(listed)

    assert "s3cret" not in str(raised.value)
    assert "DERIV_AGENTS" in str(raised.value)


@pytest.mark.parametrize(("url", "client"), [("", "id"), ("http://api.derivws.com", "id"), ("https://x.example", "")])
def test_production_refuses_rest_agents_without_a_safe_address_or_an_app(monkeypatch, url, client):
    monkeypatch.setattr(settings, "PRODUCTION", True)
    monkeypatch.setattr(settings, "DERIV_REST_URL", url)
    monkeypatch.setattr(settings, "DERIV_OAUTH_CLIENT_ID", client)

    assert settings.deriv_agents([dict(V3)])
    with pytest.raises(ImproperlyConfigured, match="DERIV_REST_URL"):
        settings.deriv_agents([dict(REST)])


def test_production_refuses_a_demo_token(monkeypatch):
    monkeypatch.setattr(settings, "PRODUCTION", True)

    with pytest.raises(ImproperlyConfigured, match="token"):
        settings.deriv_agents([{**V3, "token": "demo-agent-token"}])


PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": token_urlsafe(50),
    "ALLOWED_HOSTS": "api.example.com,office.example.com",
    "STAFF_HOSTS": "office.example.com",
    "TRUSTED_PROXY_COUNT": "1",
    "DATABASE_URL": "sqlite:////tmp/penpay-is-never-made.sqlite3",
    "PII_KEYS": f"a:{token_hex(32)}",
    "PII_INDEX_KEY": token_hex(32),
    "JWT_SIGNING_KEYS": f"a:{token_hex(32)}",
    "SEAL_ANCHOR": "/var/lib/penpay/anchor",
    "SEAL_ANCHOR_KEY": token_hex(32),
    "DATA_RESIDENCY_REGION": "KE",
    "DATA_RESIDENCY_HOSTS": "KE=*.nairobi.example.com,KE=10.20.0.0/16,KE=api.africastalking.com,ZA=*.cape.example.com",
    "EMAIL_URL": "smtp+tls://penpay:s3cret@mail.nairobi.example.com:587/?from=no-reply@example.com",
    "SMS_URL": "africastalking://penpay:s3cret@api.africastalking.com/?from=PENPAY",
}
PROVIDERS = {
    "MPESA_BASE_URL": "https://api.safaricom.co.ke",
    "MPESA_CONSUMER_KEY": token_hex(8),
    "MPESA_CONSUMER_SECRET": token_hex(8),
    "MPESA_SHORTCODE": "600001",
    "MPESA_PASSKEY": token_hex(8),
    "MPESA_B2C_SHORTCODE": "600002",
    "MPESA_INITIATOR_NAME": "penpay",
    "MPESA_INITIATOR_PASSWORD": token_hex(8),
    "MPESA_CALLBACK_BASE_URL": "https://api.example.com",
    "DERIV_WS_URL": "wss://ws.derivws.com/websockets/v3",
    "DERIV_APP_ID": "4711",
    "DERIV_AGENTS": json.dumps([V3]),
    "REDIS_URL": "redis://:s3cret@10.20.0.7:6379/0",
    "CELERY_BROKER_URL": "redis://:s3cret@redis.nairobi.example.com:6379/1",
}

SIGN_IN = {"DERIV_OAUTH_CLIENT_ID": "ours", "DERIV_OAUTH_RETURN_BASE_URL": "https://api.example.com"}


@pytest.fixture(scope="module", autouse=True)
def certificate(tmp_path_factory):
    """One at a place of its own, with its fingerprint."""
    file = tmp_path_factory.mktemp("mpesa") / "certificate.pem"
    pem = Path(settings.MPESA_CERTIFICATE_FILE).read_bytes()
    file.write_bytes(pem)
    sha256 = load_pem_x509_certificate(pem).fingerprint(SHA256()).hex()
    PROVIDERS.update(MPESA_CERTIFICATE_FILE=str(file), MPESA_CERTIFICATE_SHA256=sha256)


def in_production(*words: str, **given: str) -> "subprocess.CompletedProcess[str]":
    """Python with these words, and the environment of a production that lacks nothing but what is `given`."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | PRODUCTION | PROVIDERS | given
    return subprocess.run(
        [sys.executable, *words],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_production_that_lacks_nothing_starts():
    done = in_production("-c", "import penpay.settings")

    assert (done.returncode, done.stderr) == (0, "")


def test_a_production_in_which_customers_sign_in_at_deriv_starts_with_derivs_own_addresses():
    done = in_production(
        "-c", "from penpay import settings as s; print(s.DERIV_OAUTH_AUTH_URL, s.DERIV_OAUTH_TOKEN_URL)", **SIGN_IN
    )

    assert done.stdout.split() == ["https://auth.deriv.com/oauth2/auth", "https://auth.deriv.com/oauth2/token"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY must be set in production, to at least 50 characters"),
        ({"SECRET_KEY": token_urlsafe(20)}, "SECRET_KEY must be set in production, to at least 50 characters"),
        ({"SECRET_KEY": "s" * 50}, "SECRET_KEY must be random in production"),
        ({"SECRET_KEY": settings.demo_key("SECRET_KEY")}, "SECRET_KEY must be set in production"),
        ({"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS must name the hosts"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS must name the hosts"),
        ({"STAFF_HOSTS": "elsewhere.example.com"}, "STAFF_HOSTS must be among ALLOWED_HOSTS"),
        ({"STAFF_HOSTS": PRODUCTION["ALLOWED_HOSTS"]}, "STAFF_HOSTS must leave one of ALLOWED_HOSTS to the API"),
        ({"TRUSTED_PROXY_COUNT": "0"}, "TRUSTED_PROXY_COUNT must be from 1 to 8"),
        ({"DATABASE_URL": ""}, "DATABASE_URL must be set"),
        ({"PII_KEYS": ""}, "PII_KEYS must be set"),
        ({"PII_KEYS": f"demo:{settings.demo_key('PII_KEYS')}"}, "PII_KEYS must be set"),
        ({"PII_KEYS": "a:" + "1a" * 32}, "PII_KEYS is a list of id:key"),
        ({"PII_INDEX_KEY": "2b" * 32}, "PII_INDEX_KEY must be random"),
        ({"PII_INDEX_KEY": token_urlsafe(64)}, "PII_INDEX_KEY is 64 hex digits"),
        ({"PII_INDEX_KEY": PRODUCTION["PII_KEYS"][2:]}, "must be a key of its own"),
        ({"JWT_SIGNING_KEYS": f"b:{PRODUCTION['PII_KEYS'][2:]}"}, "must be a key of its own"),
        ({"JWT_SIGNING_KEYS": f"b:{PRODUCTION['PII_INDEX_KEY'].upper()}"}, "must be a key of its own"),
        ({"JWT_SIGNING_KEYS": "a:short"}, "JWT_SIGNING_KEYS"),
        ({"JWT_ACCESS_TTL": "3600"}, "JWT_ACCESS_TTL must be from 30 to 900"),
        ({"JWT_REFRESH_TTL": "31536000"}, "JWT_REFRESH_TTL must be from"),
        ({"MAX_DEVICES": "1000"}, "MAX_DEVICES must be from 1 to 5"),
        ({"NEW_DEVICE_WAIT_S": "0"}, "NEW_DEVICE_WAIT_S must be from 3600 to 604800"),
        ({"NEW_DEVICE_WAIT_S": "604801"}, "NEW_DEVICE_WAIT_S must be from 3600 to 604800"),
        ({"LARGE_PAYOUT_KES": "99"}, "LARGE_PAYOUT_KES must be from 100 to 250000"),
        ({"LARGE_PAYOUT_KES": "1000000"}, "LARGE_PAYOUT_KES must be from 100 to 250000"),
        ({"RATE_LIMITS": "*=1000000"}, "RATE_LIMITS: there is no limit '*'"),
        ({"RATE_LIMITS": "login.identifier=1000"}, "RATE_LIMITS: login.identifier must be from 3 to 10 in production"),
        ({"RATE_LIMITS": "sms_session.all=0"}, "RATE_LIMITS: 'sms_session.all=0' is not <name>=<tries>"),
        ({"SEAL_ANCHOR": ""}, "SEAL_ANCHOR must be set in production"),
        ({"SEAL_ANCHOR": "anchor"}, "SEAL_ANCHOR is a directory, given from the root"),
        ({"SEAL_ANCHOR_KEY": ""}, "SEAL_ANCHOR_KEY must be set in production"),
        ({"SEAL_ANCHOR_KEY": settings.demo_key("SEAL_ANCHOR_KEY")}, "SEAL_ANCHOR_KEY must be set in production"),
        ({"SEAL_ANCHOR_KEY": token_urlsafe(64)}, "SEAL_ANCHOR_KEY is 64 hex digits"),
        ({"SEAL_ANCHOR_KEY": PRODUCTION["PII_INDEX_KEY"]}, "must be a key of its own"),
        ({"SEAL_ANCHOR_KEY": PRODUCTION["PII_KEYS"][2:].upper()}, "must be a key of its own"),
        ({"MPESA_BASE_URL": ""}, "MPESA_BASE_URL must be set in production"),
        ({"MPESA_BASE_URL": "http://api.safaricom.co.ke"}, "MPESA_BASE_URL must be an address that begins with https"),
        ({"MPESA_CALLBACK_BASE_URL": "http://api.example.com"}, "MPESA_CALLBACK_BASE_URL must be an address"),
        ({"MPESA_PASSKEY": "demo-passkey"}, "MPESA_PASSKEY must be set"),
        ({"MPESA_RATE_PER_MINUTE": "0"}, "MPESA_RATE_PER_MINUTE is the calls a minute"),
        ({"DERIV_WS_URL": "ws://ws.derivws.com"}, "DERIV_WS_URL must be an address that begins with wss"),
        ({"DERIV_OAUTH_CLIENT_ID": "demo-client"}, "DERIV_OAUTH_CLIENT_ID must be set in production, not to a demo"),
        ({"DERIV_OAUTH_CLIENT_ID": "ours"}, "DERIV_OAUTH_RETURN_BASE_URL must begin with https://"),
        (
            {**SIGN_IN, "DERIV_OAUTH_RETURN_BASE_URL": "http://api.example.com"},
            "DERIV_OAUTH_RETURN_BASE_URL must begin",
        ),
        ({**SIGN_IN, "DERIV_OAUTH_RETURN_BASE_URL": "https://api.example.com/x"}, "DERIV_OAUTH_RETURN_BASE_URL must"),
        ({**SIGN_IN, "DERIV_OAUTH_AUTH_URL": "http://auth.deriv.com/oauth2/auth"}, "DERIV_OAUTH_AUTH_URL must begin"),
        ({**SIGN_IN, "DERIV_OAUTH_TOKEN_URL": "http://auth.deriv.com/token"}, "DERIV_OAUTH_TOKEN_URL must begin with"),
        ({**SIGN_IN, "DERIV_OAUTH_TOKEN_URL": "https://auth.deriv.com/token?x=1"}, "DERIV_OAUTH_TOKEN_URL must begin"),
        ({"DERIV_AGENTS": "[]"}, "DERIV_AGENTS must list at least one agent"),
        ({"REDIS_URL": ""}, "REDIS_URL must be set"),
        ({"CELERY_BROKER_URL": ""}, "CELERY_BROKER_URL must be set"),
        ({"LOG_LEVEL": "DEBUG"}, "LOG_LEVEL is INFO, WARNING or ERROR"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_production_does_not_start_on_a_missing_or_weak_value_and_names_it_but_tells_no_key(given, says):
    done = in_production("-c", "import penpay.settings", **given)

    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
    keys = [value.rpartition(":")[2] for name, value in (PRODUCTION | given).items() if "KEY" in name]
    assert not [key for key in keys if len(key) > 20 and key in done.stderr]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"DATA_RESIDENCY_REGION": ""}, "DATA_RESIDENCY_REGION must be set in production"),
        ({"DATA_RESIDENCY_HOSTS": ""}, "DATA_RESIDENCY_HOSTS must be set in production"),
        ({"DATA_RESIDENCY_HOSTS": "*.nairobi.example.com"}, "is not <region>=<host>"),
        ({"DATA_RESIDENCY_HOSTS": "KE=10.20.0.0/99"}, "DATA_RESIDENCY_HOSTS: '10.20.0.0/99'"),
        ({"DATABASE_URL": "mysql://penpay:s3cret@db.example.com/penpay"}, "DATABASE_URL (db.example.com)"),
        ({"MIGRATION_DATABASE_URL": "mysql://o:s3cret@10.21.0.1/penpay"}, "MIGRATION_DATABASE_URL (10.21.0.1)"),
        ({"REDIS_URL": "redis://:s3cret@cache.cape.example.com:6379/0"}, "REDIS_URL (cache.cape.example.com)"),
        ({"CELERY_BROKER_URL": "redis://:s3cret@queue:6379/0"}, "CELERY_BROKER_URL (queue)"),
        (
            {"EMAIL_URL": "smtp+tls://penpay:s3cret@smtp.example.net:587/?from=a@example.com"},
            "EMAIL_URL (smtp.example.net)",
        ),
        ({"SMS_URL": "africastalking://penpay:s3cret@sms.example.net/?from=PENPAY"}, "SMS_URL (sms.example.net)"),
        ({"DATA_RESIDENCY_REGION": "ZA"}, "REDIS_URL (10.20.0.7), CELERY_BROKER_URL (redis.nairobi.example.com)"),
    ],
    ids=str,
)
def test_production_does_not_start_on_a_host_outside_of_its_region_and_no_password_is_told(given, says):
    done = in_production("-c", "import penpay.settings", **given)

    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("EMAIL_URL", ""),
        ("EMAIL_URL", "consolemail://"),
        ("EMAIL_URL", "filemail:///tmp/mails"),
        ("EMAIL_URL", "memorymail://"),
        ("EMAIL_URL", "smtp://penpay:s3cret-mail@mail.nairobi.example.com/?from=a@example.com"),
        ("EMAIL_URL", "smtp+tls://mail.nairobi.example.com/?from=a@example.com"),
        ("EMAIL_URL", "smtp+tls://penpay:s3cret-mail@mail.nairobi.example.com"),
        ("SMS_URL", ""),
        ("SMS_URL", "console://"),
        ("SMS_URL", "memory://"),
        ("SMS_URL", "file:///tmp/texts"),
        ("SMS_URL", "africastalking://api.africastalking.com/?from=PENPAY"),
        ("SMS_URL", "africastalking://penpay:s3cret-sms@api.africastalking.com"),
    ],
)
def test_production_does_not_start_with_messages_that_reach_nobody(name, url):
    done = in_production("-c", "import penpay.settings", **{name: url})

    assert done.returncode == 1
    assert f"{name} must be" in done.stderr.splitlines()[-1]
    assert "s3cret" not in done.stderr


def test_a_host_is_of_its_region_however_it_is_spelt():
    given = {"DATA_RESIDENCY_REGION": "ke", "DATABASE_URL": "mysql://p:s3cret@DB.Nairobi.Example.com/p"}

    assert in_production("-c", "import penpay.settings", **given).returncode == 0


@pytest.mark.parametrize("ids", ["a.b:{},c:{}", "a:{},a:{}", "a|b:{},c:{}"])
def test_production_refuses_key_ids_that_cannot_be_told_apart(ids):
    keys = token_hex(32), token_hex(32)

    done = in_production("-c", "import penpay.settings", PII_KEYS=ids.format(*keys))

    assert done.returncode == 1
    assert "PII_KEYS" in done.stderr.splitlines()[-1]
    assert keys[0] not in done.stderr


def test_djangos_own_check_of_a_deployment_finds_nothing():
    done = in_production("manage.py", "check", "--deploy", "--fail-level", "DEBUG", DATABASE_URL="sqlite://:memory:")

    assert (done.returncode, done.stdout) == (0, "System check identified no issues (0 silenced).\n"), done.stderr


def test_that_check_can_find_something():
    broken = "import penpay.settings as s; s.SECURE_HSTS_SECONDS = 60; s.SESSION_COOKIE_SECURE = False;"
    run = "from django.core.management import execute_from_command_line as run; run(['x', 'check', '--deploy'])"
    done = in_production("-c", broken + run, DATABASE_URL="sqlite://:memory:", DJANGO_SETTINGS_MODULE="penpay.settings")

    assert "security.W012" in done.stderr


def test_in_production_every_answer_is_for_tls_and_each_cookie_bound_to_it():
    ask = """
import django; django.setup()
from django.test import Client
tls = {"X-Forwarded-Proto": "https", "Host": "office.example.com"}
plain = Client(headers={"Host": "office.example.com"}).get("/admin/login/")
page = Client(headers=tls).get("/admin/login/")
csrf = Client(headers=tls | {"Host": "api.example.com"}).get("/api/v1/auth/csrf")
from django.conf import settings
print(plain.status_code, plain.headers["Location"])
print(page.status_code, csrf.status_code)
print(page.headers["Strict-Transport-Security"])
print(*sorted(f"{n} {c['secure']} {c['samesite']}" for r in (page, csrf) for n, c in r.cookies.items()))
print(settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE, settings.SESSION_COOKIE_HTTPONLY, settings.DEBUG)
from identity.api import authentication, views
print(authentication.ACCESS_COOKIE, views.REFRESH_COOKIE, views.DEVICE_COOKIE)
"""
    done = in_production("-c", ask, DATABASE_URL="sqlite://:memory:", DJANGO_SETTINGS_MODULE="penpay.settings")

    assert done.stdout.splitlines() == [
        "301 https://office.example.com/admin/login/",
        "200 204",
        "max-age=31536000; includeSubDomains; preload",
        "csrftoken True Strict csrftoken True Strict",
        "__Host-sessionid True True False",
        "__Host-penpay_access __Secure-penpay_refresh __Secure-penpay_device",
    ], done.stderr
