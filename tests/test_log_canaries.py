"""Every kind of secret, by every way in which something is logged here, with all loggers at DEBUG: none gets through.

A secret is known by what stands before it (a key, a header, a cookie) or by its own form. A name or a password alone in
a sentence is neither, so our own code logs none: what libraries log of messages, headers and arguments is the matter.
"""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import structlog
from websockets.sync.client import connect
from websockets.sync.server import serve

from shared_kernel.infrastructure.logs import formatter, redact

BY_FORM = {
    "phone": "+254712345678",
    "local_phone": "0712 345 679",
    "email": "wanjiku.kamau@example.co.ke",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLW9mLWl0",
    "deriv_oauth": "a1-AbCdEfGhIjKlMnOpQrStUv",
    "kra_pin": "A012345678Z",
}
BY_KEY = {
    "password": 'correct "horse" battery\'s',
    "Password": "MTc0Mzc5YmZiMjc5ZjlhYTliZGJjZjE1OGU5N2RkNzFhNDY3Y2Qy",
    "SecurityCredential": "Zm9vYmFyYmF6cXV4+/Zm9vYmFyYmF6cXV4==",
    "access_token": "q3rXb0Q9mJH1V6qCwV0aR7",
    "refresh_token": "kW1sC8p2Yt6RzQ0nD4xE7v",
    "authorize": "Xk29fJq81LmZp0T",
    "client_secret": "bcfd7a90e1",
    "passkey": "bfb279f9aa9bdbcf158e97dd71a467cd2e0c893059b10f78e6b72ada1ed2c919",
    "verification_code": "820417",
    "otp": "337190",
    "full_name": "Wanjiku Njeri Kamau",
    "first_name": "Njeri",
    "date_of_birth": "1987-11-03",
    "id_number": "29384756",
    "passport": "BK2034857",
    "PhoneNumber": 254798765432,
    "MSISDN": "254797777777",
    "loginid": "CR5550123",
    "nickname": "njeri_trades",
}
SECRETS = {**BY_FORM, **BY_KEY}
HEADERS = {
    "Authorization": "Basic Y29uc3VtZXI6c2VjcmV0LW9mLW91cnM=",
    "Cookie": "penpay_access=AcCeSsCoOkIe1234; penpay_refresh=ReFrEsHcOoKiE5678; csrftoken=CsRfToKeN90",
    "X-CSRFToken": "CsRfToKeN91",
    "Deriv-App-ID": "1089",
}
OF_HEADERS = ["Y29uc3VtZXI6c2Vjc", "AcCeSsCoOkIe1234", "ReFrEsHcOoKiE5678", "CsRfToKeN90", "CsRfToKeN91", "SeTcOoKiE"]


@pytest.fixture
def logged():
    """What all loggers write from here on, as production formats it."""
    stream, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter())
    names = ["httpx", "httpcore", "websockets", "celery", "kombu", "django", "tests.canaries"]
    made = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in names]  # by other tests, too
    loggers = [root, *map(logging.getLogger, sorted({*names, *made}))]
    before = [(logger, logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate, logger.disabled = True, False
    root.handlers = [handler]
    yield stream.getvalue
    for logger, level, handlers, propagate, disabled in before:
        logger.setLevel(level)
        logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled


def leaked(text, secrets=None):
    """The names of what can be read in it; also as JSON has it inside of a JSON text."""
    found = []
    for name, secret in (secrets or SECRETS).items():
        plain = str(secret)
        forms = {
            plain,
            json.dumps(plain)[1:-1],
            repr(plain)[1:-1],
            plain.lstrip("+"),
            json.dumps(json.dumps(plain))[3:-3],
        }
        found += [name for form in forms if form in text]
    return sorted(set(found)) + [part for part in OF_HEADERS if part in text]


log = logging.getLogger("tests.canaries")


@pytest.mark.parametrize(
    "emit",
    [
        lambda: log.info("asked", extra={"message_of_theirs": SECRETS}),
        lambda: log.info("asked %s", SECRETS),
        lambda: log.info("asked %r", json.dumps(SECRETS)),
        lambda: log.info("asked %s", json.dumps(SECRETS)),
        lambda: log.info("asked %s", json.dumps(SECRETS, indent=2)),
        lambda: log.info("asked %s", json.dumps({"inner": json.dumps(SECRETS)})),
        lambda: log.info("asked %s", json.dumps(SECRETS).encode()),
        lambda: log.info("asked %s", [SECRETS, {"deep": [SECRETS]}]),
        lambda: log.info("asked", extra={"deep": [{"list": [SECRETS]}]}),
        lambda: log.info("headers %s", list(HEADERS.items())),
        lambda: log.info("headers %s", [(k.encode(), v.encode()) for k, v in HEADERS.items()]),
        lambda: log.info("headers %s", HEADERS),
        lambda: log.info("\r\n".join(f"{name}: {value}" for name, value in HEADERS.items())),
        lambda: log.warning("GET %s", httpx.URL("https://x/y", params={k: str(v) for k, v in BY_KEY.items()})),
    ],
)  # fmt: skip
def test_by_the_standard_library(logged, emit):
    emit()

    assert "tests.canaries" in logged()
    assert leaked(logged()) == []


def test_by_structlog_which_nobody_has_to_set_up(logged, capfd):
    structlog.get_logger("tests.canaries").warning("asked", **SECRETS)
    structlog.get_logger().bind(body=json.dumps(SECRETS)).info("asked")

    out, err = capfd.readouterr()
    assert logged().count("asked") == 2
    assert leaked(logged() + out + err) == []


def test_by_a_traceback_and_what_caused_it(logged):
    try:
        try:
            raise ValueError(json.dumps(SECRETS))
        except ValueError as error:
            raise RuntimeError(f"refused: {SECRETS}") from error
    except RuntimeError:
        log.exception("failed")

    assert "RuntimeError" in logged()
    assert leaked(logged()) == []


class Answering(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Set-Cookie", "penpay_device=SeTcOoKiE; HttpOnly")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_by_httpx_and_what_it_stands_on(logged):
    server = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.handle_request).start()

    httpx.post(
        f"http://127.0.0.1:{server.server_port}/cb/s/CaLlBaCkToKeN123?access_token=QuErYtOkEn456",
        json=SECRETS, headers=HEADERS,
    )  # fmt: skip
    server.server_close()

    assert "httpcore" in logged()
    assert leaked(logged()) == []
    assert "CaLlBaCkToKeN123" not in logged()
    assert "QuErYtOkEn456" not in logged()


def test_by_websockets(logged):
    """Each secret in a message of its own, for a long one is cut in the log: then the end of its value is missing."""

    def echo(socket):
        for message in socket:
            socket.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever).start()
        port = server.socket.getsockname()[1]
        with connect(f"ws://127.0.0.1:{port}/?app_id=1089", additional_headers=HEADERS) as socket:
            for name, secret in SECRETS.items():
                for message in (
                    {name: secret},
                    {name: secret, "padding": "x" * 100},
                    {"req_id": 1, "a": {name: secret}},
                ):
                    socket.send(json.dumps(message))
                    socket.recv()
        server.shutdown()

    text = logged()
    assert "TEXT" in text
    assert leaked(text) == []
    long = {name: str(secret)[:12] for name, secret in SECRETS.items() if len(str(secret)) > 30}
    assert leaked(text, long) == []


WORKER = """
import json, sys, threading
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker

app, failed = Celery("canaries", broker="memory://"), threading.Event()
app.conf.update(worker_hijack_root_logger=False, task_ignore_result=True)

@app.task(name="tests.canaries.fail")
def fail(message, name, **_):
    raise ValueError(f"refused: {message}")

@signals.task_postrun.connect
def ran(**_):
    failed.set()

secrets, by_key = json.load(sys.stdin)
with start_worker(app, pool="solo", loglevel="DEBUG", perform_ping_check=False, shutdown_timeout=60):
    fail.delay(secrets, "Wanjiku Njeri Kamau", **by_key)
    assert failed.wait(60)
"""


def test_by_celery_with_a_task_that_fails():
    """In a process of its own, which logs as any of ours does, whatever tests before it have done to this one."""
    given = json.dumps([SECRETS, {key: str(value) for key, value in BY_KEY.items()}])
    settings = os.environ | {"LOG_LEVEL": "DEBUG", "DJANGO_SETTINGS_MODULE": "penpay.settings"}

    done = subprocess.run([sys.executable, "-c", WORKER], input=given, env=settings, capture_output=True, text=True)

    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "raised unexpected" in text
    assert "TaskPool: Apply" in text
    assert leaked(text) == []


def test_by_asyncio_and_by_a_logger_that_is_made_later(logged):
    async def fail():
        asyncio.get_running_loop().call_exception_handler({"message": "lost", "context": SECRETS})

    asyncio.run(fail())
    logging.getLogger("tests.canaries.later").error("asked %s", SECRETS)

    assert logged().count('"level": "error"') >= 2
    assert leaked(logged()) == []


def test_a_line_stays_one_line_whatever_is_in_it(logged):
    log.info('first\r\nsecond: {"password": "two\nlines"}', extra={"detail": "a\nb\u2028c"})

    [line] = logged().split("\n")[:-1]
    assert "lines" not in line
    json.loads(line)


@pytest.mark.parametrize(
    "text",
    [
        '{"status": "COMPLETED", "amount": 130000, "reference": "PP-01a2", "leg": "stk_push"}',
        "ResultCode: 1032, ResponseCode=0, code 17",
        "AssertionError: assert 4 == 5; in f(*args, **kwargs), names: 3",
        "HTTP code 500, error code 9, shortcode 174379, short code 600992, code 1234567, exit code: 12",
        '{"ResultCode": 1032, "errorCode": "500.001.1001", "code": "quote_expired"}',
        "step_failed for 0192f000-0000-7000-8000-254712345678 after 3 attempts",
    ],
)
def test_what_a_person_needs_to_find_out_stays(logged, text):
    log.info("%s", text)

    assert json.loads(logged())["event"] == text


@pytest.mark.parametrize(
    "text",
    [
        "PenPay code: 123456. To sign in on a new device.",
        "Your PenPay code is 123456",
        "your code was 123456",
        "the code 123456 was refused",
        "one-time code:123-456",
        "CODE = 123 456",
        "123456 is your PenPay code",
        '{"code": "123456"}',
        "{'code': 123456}",
        json.dumps(json.dumps({"code": "123456"})),
        "message=PenPay+code%3A+123456.+To+sign+in&to=x",
        "to=x&message=PenPay%20code%3A%20123456.%20To",
        "otp 123456",
    ],
)
def test_a_one_time_code_in_a_text_is_taken_out(logged, text):
    log.info("%s", text)

    for form in ("123456", "123 456", "123-456"):
        assert form not in logged()


@pytest.mark.parametrize(
    "strange",
    [
        "code ",
        "code: 123 ",
        "123 ",
        "code:is ",
        "\\",
        "'",
        '"a": "',
        '"password": \'',
        "x",
        "=",
        "(args",
        "x=",
        "a: b\n",
        "\\'",
    ],
)
def test_no_text_of_a_stranger_takes_long(strange):
    """What is logged may be theirs: a pattern that goes back and forth over it would stop a worker."""
    began = time.perf_counter()

    redact(strange * (100_000 // len(strange)))

    assert time.perf_counter() - began < 3
