"""All settings, read once from the environment (`.env.example` lists each with its meaning).

`APP_ENV` is `development`, `testing`, `demo` or `production`. In `production` a missing, weak, shared or demo value
stops the start with a line that names it; elsewhere harmless defaults serve.
"""

import hashlib
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import environ
from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured

from penpay.rate_limits import rate_limits
from penpay.residency import allowed_hosts, hosts_elsewhere
from shared_kernel.domain.budgets import MPESA_LANE, deriv_lane

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
APP_ENV: str = env.str("APP_ENV", default="development")
if APP_ENV not in {"development", "testing", "demo", "production"}:
    raise ImproperlyConfigured(f"APP_ENV is development, testing, demo or production, not {APP_ENV!r}")
if (BASE_DIR / ".env").exists() and APP_ENV in {"development", "production"}:
    env.read_env(BASE_DIR / ".env")
PRODUCTION = APP_ENV == "production"
LEAST_DIFFERENT = 8  # characters in a random key; 64 random hex digits have fewer once in 10^12
LOCAL = APP_ENV in {"development", "demo", "testing"}


def required(name: str, default: str, *, least: int = 1) -> str:
    """The setting, or `default` outside production.

    Raises `ImproperlyConfigured` when production lacks it or has a weak one.
    """
    value: str = env.str(name, default="" if PRODUCTION else default)
    if PRODUCTION and (len(value) < least or value == default):
        raise ImproperlyConfigured(
            f"{name} must be set in production, to at least {least} characters and not to a demo value"
        )
    return value


def secret(name: str, default: str, *, least: int) -> str:
    """As `required`, and in production made by chance: neither one letter over and over nor a demo value's twin."""
    value = required(name, default, least=least)
    if PRODUCTION and len(set(value)) < LEAST_DIFFERENT:
        raise ImproperlyConfigured(f"{name} must be random in production: openssl rand -hex 32 makes a key")
    return value


def secure(name: str, default: str, *, scheme: str) -> str:
    """As `required`, and in production an address by `scheme` (`https`, `wss`), of a host."""
    value = required(name, default)
    if PRODUCTION and not re.match(rf"{scheme}://[^/\s]", value):
        raise ImproperlyConfigured(f"{name} must be an address that begins with {scheme}:// in production")
    return value


def within(name: str, default: int, least: int, most: int) -> int:
    """A whole number. Raises `ImproperlyConfigured` in production where it is not from `least` to `most`."""
    value: int = env.int(name, default=default)
    if PRODUCTION and not least <= value <= most:
        raise ImproperlyConfigured(f"{name} must be from {least} to {most} in production")
    return value


def demo_key(name: str) -> str:
    """A fixed key for development, tests and demo: distinct for each name, and refused in production."""
    return hashlib.sha256(f"penpay demo {name}".encode()).hexdigest()


def key_ring(name: str, *, most: int = 64) -> str:
    """A setting of the form `id:hex,id:hex`, newest first. Raises `ImproperlyConfigured` for a weak key."""
    ring = required(name, f"demo:{demo_key(name)}", least=32)
    pairs = [part.strip().partition(":") for part in ring.split(",")]
    for key_id, _, key in pairs:
        named = re.fullmatch(r"[\w-]{1,32}", key_id, re.ASCII)
        random = len(set(key)) >= LEAST_DIFFERENT or not PRODUCTION
        if not named or not re.fullmatch(f"[0-9a-fA-F]{{64,{most}}}", key) or not random:
            raise ImproperlyConfigured(
                f"{name} is a list of id:key, each id 1 to 32 letters and digits, each key 64 hex digits (32 bytes)"
            )
    if len({key_id for key_id, _, _ in pairs}) < len(pairs):
        raise ImproperlyConfigured(f"{name} has one key id twice: give the new key an id of its own")
    return ring


SECRET_KEY = secret("SECRET_KEY", demo_key("SECRET_KEY"), least=50)
DEBUG = False
ALLOWED_HOSTS = env.list(
    "ALLOWED_HOSTS", default=[] if PRODUCTION else ["localhost", "127.0.0.1", "[::1]", "testserver"]
)
if PRODUCTION and (not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS):
    raise ImproperlyConfigured("ALLOWED_HOSTS must name the hosts in production")
STAFF_HOSTS = env.list("STAFF_HOSTS", default=[])  # the only ones with /admin/, and with nothing else; empty: all
if not set(STAFF_HOSTS) <= set(ALLOWED_HOSTS):
    raise ImproperlyConfigured("STAFF_HOSTS must be among ALLOWED_HOSTS, and as they stand there")
if STAFF_HOSTS and set(STAFF_HOSTS) == set(ALLOWED_HOSTS):
    raise ImproperlyConfigured("STAFF_HOSTS must leave one of ALLOWED_HOSTS to the API")
if env.bool("USE_PYMYSQL", default=False):
    import pymysql

    pymysql.install_as_MySQLdb()

# --- database -------------------------------------------------------------------------------------------------------
DATABASE_URL = required("DATABASE_URL", f"sqlite:///{BASE_DIR / '.local' / 'penpay.sqlite3'}")
MIGRATION_DATABASE_URL = env.str("MIGRATION_DATABASE_URL", default="") or DATABASE_URL
LOCK_WAIT_S = env.int("DATABASE_LOCK_WAIT_S", default=1 if APP_ENV == "testing" else 5)


def database(url: str) -> dict[str, Any]:
    """Django's entry for `url`:
    READ COMMITTED and strict mode on MySQL and MariaDB, WAL and BEGIN IMMEDIATE on SQLite.
    """
    config: dict[str, Any] = environ.Env.db_url_config(url)
    options = config.setdefault("OPTIONS", {})
    if "mysql" in config["ENGINE"]:
        config["ENGINE"] = "shared_kernel.infrastructure.mysql"
        options.update(
            charset="utf8mb4",
            isolation_level="read committed",
            connect_timeout=10,
            init_command="SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', "
            f"SESSION innodb_lock_wait_timeout={LOCK_WAIT_S}",
        )
        config["TEST"] = {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_bin"}
    else:
        Path(config["NAME"]).parent.mkdir(parents=True, exist_ok=True)
        options.update(
            timeout=20,
            transaction_mode="IMMEDIATE",
            init_command="PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA recursive_triggers=ON;",
        )
    config["CONN_MAX_AGE"] = None
    config["CONN_HEALTH_CHECKS"] = True
    return config


RUNTIME_DATABASE, MIGRATION_DATABASE = database(DATABASE_URL), database(MIGRATION_DATABASE_URL)
TWO_DATABASE_USERS = RUNTIME_DATABASE.get("USER") != MIGRATION_DATABASE.get("USER")
DATABASES = {"default": deepcopy(MIGRATION_DATABASE if sys.argv[1:2] == ["migrate"] else RUNTIME_DATABASE)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- applications ---------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "simple_history",
    "shared_kernel",
    "wallet",
    "mpesa_integration",
    "deriv_integration",
    "identity",
    "payments",
    "penpay",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "penpay.headers.SecurityHeadersMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "shared_kernel.api.context.ContextMiddleware",
    "penpay.hosts.StaffHostMiddleware",
    "identity.api.rates.RateLimitMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "identity.api.staff.StaffSessionMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "penpay.urls"
WSGI_APPLICATION = "penpay.wsgi.application"
SUBSCRIPTIONS = "penpay.subscriptions.SUBSCRIPTIONS"
OPEN_PAYMENTS = "penpay.privacy.ties.is_tied"  # what identity asks before an account is closed
TASKS = "penpay.celery.app"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_USER_MODEL = "identity.User"
PASSWORD_HASHERS = ["identity.infrastructure.tokens.Argon2idHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "penpay.formats"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / ".local" / "static"
WHITENOISE_USE_FINDERS = True
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024
FILE_UPLOAD_HANDLERS = ["shared_kernel.api.uploads.NoFiles"]  # a view that takes files brings its own

# --- cookies and headers --------------------------------------------------------------------------------------------
SECURE_COOKIES = APP_ENV in {"production", "testing"}
SESSION_ENGINE = "identity.infrastructure.staff_sessions"  # keeps a hash of the cookie's value, not the value
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_NAME = "__Host-sessionid" if PRODUCTION else "sessionid"  # the staff site's; customers' are tokens
SESSION_COOKIE_AGE = 8 * 3600  # `LONGEST` of identity/domain/staff_sign_in.py, which each request is held against
CSRF_COOKIE_NAME = "csrftoken"
CSRF_FAILURE_VIEW = "shared_kernel.api.problems.csrf_failure"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if PRODUCTION:
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_REDIRECT_EXEMPT = [r"^health/", r"^metrics$"]  # asked for inside, without TLS
TRUSTED_PROXY_COUNT = within("TRUSTED_PROXY_COUNT", 0, 1, 8)  # TLS ends at the first: callers' addresses come from it
METRICS_ALLOWED_IPS = env.list("METRICS_ALLOWED_IPS", default=["127.0.0.0/8", "::1/128"])
API_DOCS = env.bool("API_DOCS", default=not PRODUCTION)

# --- keys -----------------------------------------------------------------------------------------------------------
PII_KEYS = key_ring("PII_KEYS")  # "id:64 hex digits", newest first, by commas
PII_INDEX_KEY = secret("PII_INDEX_KEY", demo_key("PII_INDEX_KEY"), least=64)
if not re.fullmatch(r"([0-9a-fA-F]{2}){32,}", PII_INDEX_KEY):
    raise ImproperlyConfigured("PII_INDEX_KEY is 64 hex digits (32 bytes)")
JWT_SIGNING_KEYS = key_ring("JWT_SIGNING_KEYS", most=128)
SEAL_ANCHOR = required("SEAL_ANCHOR", str(BASE_DIR / ".local" / "anchor"))
if not Path(SEAL_ANCHOR).is_absolute():
    raise ImproperlyConfigured("SEAL_ANCHOR is a directory, given from the root, such as /var/lib/penpay/anchor")
SEAL_ANCHOR_KEY = secret("SEAL_ANCHOR_KEY", demo_key("SEAL_ANCHOR_KEY"), least=64)
if not re.fullmatch(r"[0-9a-fA-F]{64}", SEAL_ANCHOR_KEY):
    raise ImproperlyConfigured("SEAL_ANCHOR_KEY is 64 hex digits (32 bytes)")
KEYS = {
    "SECRET_KEY": SECRET_KEY,
    "PII_KEYS": PII_KEYS,
    "PII_INDEX_KEY": PII_INDEX_KEY,
    "JWT_SIGNING_KEYS": JWT_SIGNING_KEYS,
    "SEAL_ANCHOR_KEY": SEAL_ANCHOR_KEY,
}
for name, keys in KEYS.items():
    others = " ".join(other for of, other in KEYS.items() if of != name).lower()
    if any(key.rpartition(":")[2].strip().lower() in others for key in keys.split(",")):
        raise ImproperlyConfigured(f"{name} must be a key of its own, not one that serves elsewhere")
JWT_ACCESS_TTL = within("JWT_ACCESS_TTL", 300, 30, 900)
JWT_REFRESH_TTL = within("JWT_REFRESH_TTL", 7 * 24 * 3600, 600, 30 * 24 * 3600)
MAX_DEVICES = within("MAX_DEVICES", 2, 1, 5)
NEW_DEVICE_WAIT_S = within("NEW_DEVICE_WAIT_S", 24 * 3600, 3600, 7 * 24 * 3600)
LARGE_PAYOUT_KES = within("LARGE_PAYOUT_KES", 10_000, 100, 250_000)  # whole shillings

# --- limits against guessing and flooding ---------------------------------------------------------------------------
try:
    RATE_LIMITS = rate_limits(env.str("RATE_LIMITS", default=""), bounded=PRODUCTION)
except ValueError as wrong:
    raise ImproperlyConfigured(f"RATE_LIMITS: {wrong}") from None

# --- messages to customers ------------------------------------------------------------------------------------------
EMAIL_URL = required("EMAIL_URL", "consolemail://")
SMS_URL = required("SMS_URL", "memory://" if APP_ENV == "testing" else "console://")


def sender_of(name: str, url: str, scheme: str) -> str:
    """What `?from=` says. Raises `ImproperlyConfigured` for what reaches nobody, in production; never shows the URL."""
    parts = urlsplit(url)
    sender = dict(parse_qsl(parts.query)).get("from", "")
    if PRODUCTION and not (parts.scheme == scheme and parts.hostname and parts.username and parts.password and sender):
        raise ImproperlyConfigured(f"{name} must be {scheme}://user:password@host/?from=SENDER in production")
    return sender


DEFAULT_FROM_EMAIL = sender_of("EMAIL_URL", EMAIL_URL, "smtp+tls") or "PenPay <penpay@localhost>"
EMAIL_TIMEOUT = 10
vars().update(env.email_url_config(EMAIL_URL))
sender_of("SMS_URL", SMS_URL, "africastalking")

# --- personal data --------------------------------------------------------------------------------------------------
RETENTION_DAYS: dict[str, int] = {
    "aml_records": 2557,  # seven years, leap days included: from the end of the relationship (POCAMLA)
    "one_time_codes": 30,  # from when a code ran out; longer than any limit on asking for codes looks back
    "email_codes": 30,  # as those by SMS
    "deriv_authorizations": 1,  # from when one ran out
    "notices": 365,  # from when the customer was to be told
    "sessions": 90,  # from when a session ended, with its refresh tokens
    "staff_sessions": 30,  # from when one of the back-office ran out
    "idempotency_keys": 365,  # of events; those of money are never purged
    "rate_limit_counters": 1,  # from when nothing of one counts any more
}  # the one table of how long what is kept; docs/data-inventory.md and `purge_expired` go by it
DATA_RESIDENCY_REGION = required("DATA_RESIDENCY_REGION", "")
DATA_RESIDENCY_HOSTS = required("DATA_RESIDENCY_HOSTS", "")
if DATA_RESIDENCY_REGION:
    kept_at = {
        "DATABASE_URL": DATABASE_URL,
        "MIGRATION_DATABASE_URL": MIGRATION_DATABASE_URL,
        "REDIS_URL": env.str("REDIS_URL", default=""),
        "CELERY_BROKER_URL": env.str("CELERY_BROKER_URL", default=""),
        "EMAIL_URL": EMAIL_URL,
        "SMS_URL": SMS_URL,
    }
    try:
        elsewhere = hosts_elsewhere(kept_at, allowed_hosts(DATA_RESIDENCY_HOSTS, DATA_RESIDENCY_REGION))
    except ValueError as wrong:
        raise ImproperlyConfigured(f"DATA_RESIDENCY_HOSTS: {wrong}") from None
    if elsewhere:
        raise ImproperlyConfigured(
            f"personal data may not leave the region {DATA_RESIDENCY_REGION}, and these are none of its hosts in "
            f"DATA_RESIDENCY_HOSTS: {', '.join(elsewhere)}"
        )

# --- M-Pesa ---------------------------------------------------------------------------------------------------------
MPESA_BASE_URL = secure("MPESA_BASE_URL", "http://127.0.0.1:8801", scheme="https")
MPESA_CONSUMER_KEY = required("MPESA_CONSUMER_KEY", "demo-consumer-key")
MPESA_CONSUMER_SECRET = required("MPESA_CONSUMER_SECRET", "demo-consumer-secret")
MPESA_SHORTCODE = required("MPESA_SHORTCODE", "174379")
MPESA_PASSKEY = required("MPESA_PASSKEY", "demo-passkey")
MPESA_B2C_SHORTCODE = required("MPESA_B2C_SHORTCODE", "600992")
MPESA_INITIATOR_NAME = required("MPESA_INITIATOR_NAME", "testapi")
MPESA_INITIATOR_PASSWORD = required("MPESA_INITIATOR_PASSWORD", "demo-initiator-password")
MPESA_CERTIFICATE_FILE = required(
    "MPESA_CERTIFICATE_FILE", str(BASE_DIR / "mpesa_integration/simulator/test_material/certificate.pem")
)
MPESA_CERTIFICATE_SHA256 = required("MPESA_CERTIFICATE_SHA256", "", least=64)
MPESA_CALLBACK_BASE_URL = secure("MPESA_CALLBACK_BASE_URL", "http://127.0.0.1:8000", scheme="https")
MPESA_CALLBACK_ALLOWED_IPS = env.list(
    "MPESA_CALLBACK_ALLOWED_IPS",
    default=["127.0.0.1", "::1"]
    if LOCAL
    else [
        *(f"196.201.214.{last}" for last in (200, 206, 207, 208)),
        *(f"196.201.213.{last}" for last in (114, 44)),
        *(f"196.201.212.{last}" for last in (127, 128, 129, 132, 136, 138, 69, 74)),
    ],
)
# tests begin with an empty Redis each, whose budgets give nothing for seconds: theirs are their own tests' matter
UNLIMITED = APP_ENV == "testing"
MPESA_RATE_PER_MINUTE = env.int(
    "MPESA_RATE_PER_MINUTE", default=0 if UNLIMITED else 300
)  # 0: no limit, not in production

# --- Deriv ----------------------------------------------------------------------------------------------------------
DERIV_WS_URL = secure("DERIV_WS_URL", "ws://127.0.0.1:8802/websockets/v3", scheme="wss")
DERIV_REST_URL = env.str("DERIV_REST_URL", default="" if PRODUCTION else "http://127.0.0.1:8803")
DERIV_APP_ID = required("DERIV_APP_ID", "1089")
DERIV_OAUTH_CLIENT_ID = env.str("DERIV_OAUTH_CLIENT_ID", default="" if PRODUCTION else "demo-client")


def of_sign_in(name: str, default: str, pattern: str) -> str:
    """An address of customers' sign-in at Deriv. Raises `ImproperlyConfigured` in production for one that is not https,
    or of another form, unless no client is set up.
    """
    value: str = env.str(name, default=default)
    if PRODUCTION and DERIV_OAUTH_CLIENT_ID and not re.fullmatch(pattern, value):
        raise ImproperlyConfigured(f"{name} must begin with https:// in production, and be as .env.example says")
    return value


if PRODUCTION and DERIV_OAUTH_CLIENT_ID.startswith("demo-"):
    raise ImproperlyConfigured("DERIV_OAUTH_CLIENT_ID must be set in production, not to a demo value, or be left out")
AT_DERIV = "https://auth.deriv.com" if PRODUCTION else "http://127.0.0.1:8803"
DERIV_OAUTH_AUTH_URL = of_sign_in("DERIV_OAUTH_AUTH_URL", f"{AT_DERIV}/oauth2/auth", r"https://[^\s?#/]+/[^\s?#]*")
DERIV_OAUTH_TOKEN_URL = of_sign_in("DERIV_OAUTH_TOKEN_URL", f"{AT_DERIV}/oauth2/token", r"https://[^\s?#/]+/[^\s?#]*")
DERIV_OAUTH_RETURN_BASE_URL = of_sign_in(
    "DERIV_OAUTH_RETURN_BASE_URL", "" if PRODUCTION else "http://127.0.0.1:8000", r"https://[^\s?#/]+/?"
)


def deriv_agents(listed: Any) -> list[dict[str, Any]]:
    """`DERIV_AGENTS`, each with the `name` by which rows and ledger know it.

    Raises `ImproperlyConfigured` for one that can't be used; its token stands in no message.
    """
    agents = listed if isinstance(listed, list) else []
    if agents != listed or not all(isinstance(agent, dict) for agent in agents):
        raise ImproperlyConfigured("DERIV_AGENTS is a JSON list of objects")
    for number, agent in enumerate(agents, 1):
        place, id_name = f"DERIV_AGENTS entry {number}", "agent_id" if agent.get("platform") == "rest" else "loginid"
        if agent.get("platform") not in {"ws_v3", "rest"}:
            raise ImproperlyConfigured(f"{place} needs a platform, ws_v3 or rest")
        agent["name"] = str(agent.get(id_name, ""))
        if not re.fullmatch(r"[1-9][0-9]{0,17}" if id_name == "agent_id" else r"[A-Za-z]+[0-9]+", agent["name"]):
            raise ImproperlyConfigured(f"{place} needs its {id_name}, as Deriv gives it")
        if not agent.get("token") or (PRODUCTION and str(agent["token"]).startswith("demo-")):
            raise ImproperlyConfigured(f"{place} needs its token")
        reachable = DERIV_REST_URL.startswith("https://") and DERIV_OAUTH_CLIENT_ID
        if agent["platform"] == "rest" and PRODUCTION and not reachable:
            raise ImproperlyConfigured(f"{place} needs DERIV_REST_URL (https) and DERIV_OAUTH_CLIENT_ID")
    if len({agent["name"] for agent in agents}) < len(agents):
        raise ImproperlyConfigured("DERIV_AGENTS lists an agent twice")
    return agents


DERIV_AGENTS = deriv_agents(
    env.json(
        "DERIV_AGENTS",
        default=[]
        if PRODUCTION
        else [
            {
                "platform": "ws_v3",
                "token": "demo-agent-token",
                "loginid": "CR900001",
                "currency": "USD",
                "rate": 0 if UNLIMITED else 180,
            },
            {
                "platform": "rest",
                "token": "demo-rest-agent-token",
                "agent_id": 7001,
                "currency": "USD",
                "rate": 0 if UNLIMITED else 60,
            },
        ],
    )
)
DERIV_EQUAL_SPACING_S = env.float("DERIV_EQUAL_SPACING_S", default=3.0 if PRODUCTION else 0.0)
if PRODUCTION and not DERIV_AGENTS:
    raise ImproperlyConfigured("DERIV_AGENTS must list at least one agent credential in production")

# --- budgets --------------------------------------------------------------------------------------------------------


def calls_a_minute(name: str, rate: Any) -> int | None:
    """A rate, None for no limit (0). Raises `ImproperlyConfigured` for what is no count, or no limit in production."""
    if not isinstance(rate, int) or isinstance(rate, bool) or rate < 0 or (PRODUCTION and not rate):
        raise ImproperlyConfigured(f"{name} is the calls a minute that the provider grants, a whole number above 0")
    return rate or None


# One lane a credential; the rates that Deriv publishes (v3) or documents (REST) stand in for one that is left out.
BUDGET_RATES: dict[str, int | None] = {MPESA_LANE: calls_a_minute("MPESA_RATE_PER_MINUTE", MPESA_RATE_PER_MINUTE)} | {
    deriv_lane(agent["name"]): calls_a_minute(
        "DERIV_AGENTS[].rate", agent.get("rate", 180 if agent["platform"] == "ws_v3" else 60)
    )
    for agent in DERIV_AGENTS
}

# --- payments -------------------------------------------------------------------------------------------------------
QUOTE_TTL_S = env.int("QUOTE_TTL_S", default=120)
RATE_LOCK_S = env.int("RATE_LOCK_S", default=1800)
RELAY_HOLD_AT = env.int(
    "RELAY_HOLD_AT", default=3
)  # messages that wait for workers; then events gather for larger groups
CALLS_SIDE_BY_SIDE = env.int("CALLS_SIDE_BY_SIDE", default=32)
SAGA_TIME_SCALE = (
    1.0 if PRODUCTION else env.float("SAGA_TIME_SCALE", default=1.0)
)  # shortens waits in tests and the demo
CRASH_POINT = "" if PRODUCTION else env.str("CRASH_POINT", default="")  # a dotted path: kills a worker there
DERIV_CHECK_FRESH_S = env.int("DERIV_CHECK_FRESH_S", default=900)

# --- Redis and Celery -----------------------------------------------------------------------------------------------
REDIS_URL = required("REDIS_URL", "")
BUDGET_SHARES = max(1, env.int("BUDGET_SHARES", default=8 if REDIS_URL else 1))  # without any Redis one process works
CELERY_BROKER_URL = required("CELERY_BROKER_URL", f"filesystem://{BASE_DIR / '.local' / 'broker'}")
if CELERY_BROKER_URL.startswith("filesystem://"):
    broker_dir = Path(CELERY_BROKER_URL.removeprefix("filesystem://"))
    for part in ("messages", "control"):
        (broker_dir / part).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_URL = "filesystem://"
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
        "data_folder_in": str(broker_dir / "messages"),
        "data_folder_out": str(broker_dir / "messages"),
        "control_folder": str(broker_dir / "control"),
        "polling_interval": 0.02,
    }
else:
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 600, "socket_timeout": 5, "socket_connect_timeout": 2}
CELERY_DB_REUSE_MAX = 2**31  # tasks keep their connection; each looks first whether it still lives
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "shared_kernel.workers.relay_outbox": {"queue": "relay"},
    "shared_kernel.workers.deliver_events": {"queue": "steps"},
    "shared_kernel.workers.find_unsealed": {"queue": "default"},
    "shared_kernel.workers.seal_rows": {"queue": "default"},
    "payments.workers.sweep_sagas": {"queue": "sweep"},
    "payments.workers.find_orphans": {"queue": "default"},
    "payments.workers.reconcile": {"queue": "default"},
    "deriv_integration.workers.wipe_codes": {"queue": "default"},
}
CELERY_BEAT_SCHEDULE = {
    "relay": {"task": "shared_kernel.workers.relay_outbox", "schedule": 1.0, "options": {"expires": 5}},
    "orphans": {"task": "payments.workers.find_orphans", "schedule": 3600.0, "options": {"expires": 1800}},
    "codes": {"task": "deriv_integration.workers.wipe_codes", "schedule": 600.0, "options": {"expires": 300}},
    "seals": {"task": "shared_kernel.workers.find_unsealed", "schedule": 60.0, "options": {"expires": 50}},
    "balances": {"task": "payments.workers.look_at_balances", "schedule": 600.0, "options": {"expires": 300}},
    "balances-told": {"task": "payments.workers.take_balances", "schedule": 60.0, "options": {"expires": 50}},
    "reconcile": {
        "task": "payments.workers.reconcile",
        "schedule": crontab(hour=0, minute=30),
        "options": {"expires": 3600},
    },  # 03:30 in Nairobi: all of yesterday has settled, and Pull still reaches it
    "sweep": {"task": "payments.workers.sweep_sagas", "schedule": 1.0, "options": {"expires": 5}},
}

# --- logs -----------------------------------------------------------------------------------------------------------
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in {"INFO", "WARNING", "ERROR", *(() if PRODUCTION else ("DEBUG",))}:
    raise ImproperlyConfigured("LOG_LEVEL is INFO, WARNING or ERROR; DEBUG, which tells SQL, is not for production")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "shared_kernel.infrastructure.logs.formatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": "INFO"},
        "httpx": {"level": "WARNING"},
        "gunicorn.error": {"handlers": [], "propagate": True},  # its own handler writes addresses in clear
    },
}

# --- REST -----------------------------------------------------------------------------------------------------------
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["identity.api.authentication.CookieAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["shared_kernel.api.bodies.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "shared_kernel.api.openapi.ProblemSchema",
    "EXCEPTION_HANDLER": "shared_kernel.api.problems.problem",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "shared_kernel.api.answers.FirstFormat",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "PenPay",
    "DESCRIPTION": "Deposits from M-Pesa to Deriv and withdrawals from Deriv to M-Pesa.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
