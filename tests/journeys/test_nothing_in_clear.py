"""A customer's whole way over real processes; then nothing of what they gave or got is in the database, in Redis or in
any log, in clear. All processes log at DEBUG, libraries too.
"""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import MySQLdb
import pytest
import redis as redis_client

from penpay.stack import HOST
from tests.journeys.conftest import servers
from tests.journeys.world import World, a_world, keyed

pytestmark = pytest.mark.timeout(600)
PLAIN_NAME = "Zawadi Quillfeather"
OURS = {
    "MPESA_CONSUMER_SECRET": "planted-consumer-secret-9f31",
    "MPESA_PASSKEY": "planted-passkey-77ab12cd",
    "MPESA_INITIATOR_PASSWORD": "planted-initiator-word-5e",
}
AGENTS = {"agent token": "demo-agent-token", "REST agent token": "demo-rest-agent-token"}
CONTROL = "a text that is no secret"


class Customer:
    """A browser that keeps its cookies, whatever they say of https."""

    def __init__(self, world: World) -> None:
        self.world, self.cookies = world, SimpleCookie()
        self.seen: dict[str, str] = {}
        self.ask("GET", "auth/csrf")

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {"Cookie": "; ".join(f"{name}={one.value}" for name, one in self.cookies.items())}
        if "csrftoken" in self.cookies:
            sent["X-CSRFToken"] = self.cookies["csrftoken"].value
        url = f"{self.world.stack.url}/api/v1/{path}"
        answer = httpx.request(method, url, json=body, headers=sent | headers, timeout=30)
        for line in answer.headers.get_list("set-cookie"):
            self.cookies.load(line)
        for name, one in self.cookies.items():
            if name != "csrftoken" and one.value:
                self.seen[f"{name} {len(self.seen)}" if self.seen.get(name, one.value) != one.value else name] = (
                    one.value
                )
        return answer

    def done(self, method: str, path: str, body: Any = None, status: int = 204, **headers: str) -> Any:
        answer = self.ask(method, path, body, **headers)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def sms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phone: it is where the codes belong."""
    return tmp_path_factory.mktemp("phone") / "sms.jsonl"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory, sms: Path) -> Iterator[World]:
    """PenPay at its most talkative, with secrets of its own that are to be found nowhere either."""
    home = tmp_path_factory.mktemp("clear")
    mails = f"filemail://{sms.parent / 'mails'}"
    settings = {"SMS_URL": f"file://{sms}", "EMAIL_URL": mails, "LOG_LEVEL": "DEBUG", **OURS}
    options = ("--pool=solo", "--loglevel=DEBUG")
    with servers(home) as both, a_world(home, *both, settings, worker_options=options) as made:
        yield made


def texts(sms: Path, phone: str) -> list[str]:
    """What came to this phone."""
    lines = sms.read_text().splitlines() if sms.exists() else []
    return [line["text"] for line in map(json.loads, lines) if line["phone"] == phone]


def journey(world: World, sms: Path) -> dict[str, str]:
    """From the registration to the withdrawal, with the mistakes that people make; what must be found nowhere."""
    number = f"7{secrets.randbelow(10**8):08d}"
    phone, email = f"254{number}", f"zawadi.{secrets.token_hex(4)}@quillfeather.example"
    password, token = f"pw-{secrets.token_urlsafe(12)}", secrets.token_hex(12)
    account = f"CR{secrets.randbelow(10**7):07d}9"
    name = f"{PLAIN_NAME} Otieno"
    world.stack.control("mpesa", "customers", [{"phone": phone, "behaviour": "pay", "delay_s": 0.2}])
    at_deriv = {"loginid": account, "name": name, "show_real_name": True, "email": email, "token": token}
    world.stack.control("deriv_ws", "customers", [at_deriv | {"balance": "50.00"}])
    person = Customer(world)
    given = {"phone": f"0{number}", "email": email, "password": password, "full_name": name}
    person.done("POST", "auth/register", given, 201)
    assert person.ask("POST", "auth/register", given).status_code == 409  # the database quotes what was there already
    assert person.ask("POST", "auth/register", given | {"password": f"{email}"}).status_code == 422
    device = {"id": "d1", "name": "phone", "platform": "android"}
    wrong = {"identifier": email, "password": f"{password}x", "device": device}
    assert person.ask("POST", "auth/login", wrong).status_code == 401
    assert person.ask("POST", "auth/login", wrong | {"more": password}).status_code in {400, 422}
    person.done("POST", "auth/login", wrong | {"password": password}, 200)
    world.wait(lambda: bool(texts(sms, phone)), "no code came")
    code = re.search(r"\d{6}", texts(sms, phone)[-1])
    assert code
    person.ask("POST", "me/phone-verification/confirm", {"code": f"{(int(code[0]) + 1) % 10**6:06d}"})
    person.done("POST", "me/phone-verification/confirm", {"code": code[0]})
    world.stack.manage("set_kyc", "-", "--status", "submitted", stdin=f"+{phone}\n")
    world.stack.manage("set_kyc", "-", "--status", "verified", "--tier", "standard", stdin=f"+{phone}\n")
    before = len(texts(sms, phone))
    person.done("POST", "auth/step-up", {}, 202)
    world.wait(lambda: len(texts(sms, phone)) > before, "no code came")
    stepped_up = re.search(r"\d{6}", texts(sms, phone)[-1])
    assert stepped_up
    person.done("POST", "auth/step-up", {"code": stepped_up[0]})
    refused = secrets.token_hex(12)
    person.ask("POST", "me/deriv-login", {"platform": "ws_v3", "token": refused})
    person.done("POST", "me/deriv-login", {"platform": "ws_v3", "token": token}, 201)
    asked = {"type": "deposit", "amount": {"amount": "1300.00", "currency": "KES"}}
    quote = person.done("POST", "quotes", asked, 201)["id"]
    deposit = person.done("POST", "deposits", {"quote_id": quote}, 202, **keyed(None))["transaction"]["id"]
    assert world.wait_for_ends([deposit]) == {deposit: "COMPLETED"}
    asked = {"type": "withdrawal", "amount": {"amount": "10.00", "currency": "USD"}}
    quote = person.done("POST", "quotes", asked, 201)["id"]
    person.done("POST", "withdrawals/verification", {"quote_id": quote}, 202)
    deriv_code = world.code({"account": account})
    body = {"quote_id": quote, "verification_code": deriv_code}
    withdrawal = person.done("POST", "withdrawals", body, 202, **keyed(None))["transaction"]["id"]
    assert world.wait_for_ends([withdrawal]) == {withdrawal: "COMPLETED"}
    person.done("POST", "auth/refresh")
    guessed = secrets.token_urlsafe(24)
    assert httpx.post(f"{world.stack.url}/cb/s/{guessed}", json={"Body": {"phone": phone}}).status_code == 404
    assert httpx.post(f"{world.stack.url}/cb/zz/{guessed}").status_code == 404  # Django logs the address of these
    query = httpx.QueryParams({"phone": phone, "email": email, "password": password, "token": token})
    assert person.ask("GET", f"nothing/here?{query}").status_code == 404
    path = Path(sms.parent / "export.json")
    world.stack.manage("export_subject", "-", f"--out={path}", stdin=f"{email}\n")
    told = path.read_text()
    assert email in told
    assert account in told
    return {
        "phone": number, "email": email, "password": password, "name": "Quillfeather", "Deriv account": account,
        "Deriv token": token, "refused Deriv token": refused, "SMS code": code[0],
        "step-up code": stepped_up[0], "Deriv code": deriv_code,
        "guessed callback token": guessed, **person.seen, **OURS, **AGENTS,
    }  # fmt: skip


def forms_of(secret: str) -> list[re.Pattern[bytes]]:
    """How it could be written down. A short one counts only where it stands apart: digits are in many numbers."""
    raw = secret.encode()
    written = {raw, raw.hex().encode(), quote(secret, safe="").encode(), base64.b64encode(raw).rstrip(b"=")}
    if len(secret) <= 8:
        return [re.compile(rb"(?<![0-9A-Za-z._-])" + re.escape(raw) + rb"(?![0-9A-Za-z._-])")]
    return [re.compile(re.escape(form), re.IGNORECASE) for form in written]


def found_in(places: Iterator[tuple[str, bytes]], planted: dict[str, str]) -> list[str]:
    patterns = {name: forms_of(secret) for name, secret in planted.items()}
    return sorted(
        {
            f"{name} in {place}"
            for place, content in places
            for name, forms in patterns.items()
            if any(form.search(content) for form in forms)
        }
    )


def dump(world: World) -> Iterator[tuple[str, bytes]]:
    """Every value of every column of every table, as stored."""
    server = {"host": HOST, "port": world.mariadb.port, "user": "penpay_owner", "password": world.mariadb.password}
    with MySQLdb.connect(database="penpay", use_unicode=False, **server) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
        tables = [name.decode() if isinstance(name, bytes) else name for (name,) in cursor.fetchall()]
        assert len(tables) > 30
        for table in tables:
            cursor.execute(f"SELECT * FROM `{table}`")
            for row in cursor.fetchall():
                for column, value in zip(cursor.description, row, strict=True):
                    yield f"{table}.{column[0]}", value if isinstance(value, bytes) else str(value).encode()


def in_redis(world: World) -> Iterator[tuple[str, bytes]]:
    """Every key of Redis with its value."""
    for number in (0, 1):
        with redis_client.Redis(port=world.redis.port, db=number) as client:
            for key in client.scan_iter():
                yield f"redis {number}", key + b" " + (client.dump(key) or b"")


def logs(world: World) -> Iterator[tuple[str, bytes]]:
    """Every line of every process."""
    for log in world.stack.logs.glob("*.log"):
        for line in log.read_bytes().splitlines():
            yield log.name, line


def test_nothing_that_a_customer_gave_or_got_is_stored_or_logged_in_clear(talkative: World, sms: Path) -> None:
    planted = journey(talkative, sms)

    assert len(planted) > 14
    assert found_in(dump(talkative), planted) == []
    assert found_in(in_redis(talkative), planted) == []
    assert found_in(logs(talkative), planted) == []


def test_the_search_finds_what_is_there(talkative: World) -> None:
    """That the first test can fail: in the database, in Redis, and in the log of a process."""
    talkative.rows("INSERT INTO leases (name, holder, expires_at) VALUES (%s, 'x', UTC_TIMESTAMP(6))", CONTROL)
    with redis_client.Redis(port=talkative.redis.port) as client:
        client.set("control", CONTROL)
    with (talkative.stack.logs / "api.log").open("a") as log:
        log.write(json.dumps({"event": CONTROL, "in_hex": CONTROL.encode().hex()}) + "\n")

    planted = {"control": CONTROL}
    assert found_in(dump(talkative), planted) == ["control in leases.name"]
    assert found_in(in_redis(talkative), planted) == ["control in redis 0"]
    assert found_in(logs(talkative), planted) == ["control in api.log"]


def test_all_processes_said_something_in_detail(talkative: World) -> None:
    """A log without DEBUG lines would prove nothing. What speaks of messages to providers is silenced altogether."""
    said = {
        (name, found[1].decode())
        for name, line in logs(talkative)
        if b'"level": "debug"' in line and (found := re.search(rb'"logger": "(\w+)', line))
    }

    assert {("api.log", "redis"), ("worker0.log", "celery"), ("beat.log", "celery")} <= said, said
