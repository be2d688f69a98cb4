"""What carries texts and e-mails, over real sockets: what counts as handed over, and what never reaches a log."""

import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.core.exceptions import ImproperlyConfigured

from identity.domain.contact import Email, InvalidEmail
from identity.domain.ports import EmailUnavailable, SmsUnavailable
from identity.infrastructure.email import email_sender
from identity.infrastructure.sms import sms_sender
from shared_kernel.domain.identifiers import Phone

PHONE, TEXT = Phone("254712345678"), "PenPay code: 987123. To sign in."
SENT = {"SMSMessageData": {"Message": "Sent", "Recipients": [{"statusCode": 101, "number": "+254712345678"}]}}


def with_status(code: Any) -> str:
    return json.dumps({"SMSMessageData": {"Message": "", "Recipients": [{"statusCode": code}]}})


@dataclass
class AfricasTalking:
    """A server that answers as it is told and keeps what it was asked."""

    status: int = 201
    answer: str | None = json.dumps(SENT)  # None: hangs up
    asked: list[tuple[str, dict[str, str], dict[str, list[str]]]] = field(default_factory=list)
    port: int = 0


@contextmanager
def served(handler: Any, server: Any) -> Iterator[int]:
    with server(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


@pytest.fixture
def provider(settings) -> Iterator[AfricasTalking]:
    told = AfricasTalking()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            told.asked.append((self.path, dict(self.headers), form))
            if told.answer is None:
                self.close_connection = True
                return
            body = told.answer.encode()
            self.send_response(told.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with served(Handler, ThreadingHTTPServer) as port:
        told.port = port
        settings.SMS_URL = f"africastalking://penpay:s3cret%2Fkey@127.0.0.1:{port}/?from=PENPAY"
        yield told


def test_a_text_goes_to_one_phone_with_the_key_in_its_header_alone(provider):
    sms_sender().send(PHONE, TEXT)

    [(path, headers, form)] = provider.asked
    assert path == "/version1/messaging"
    assert headers["apiKey"] == "s3cret/key"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert form == {"username": ["penpay"], "to": ["+254712345678"], "message": [TEXT], "from": ["PENPAY"]}


@pytest.mark.parametrize("code", [100, 101, 102])
def test_what_the_provider_took_over_is_sent(provider, code):
    provider.answer = with_status(code)
    sms_sender().send(PHONE, TEXT)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, "The supplied authentication is invalid"),
        (500, "oops"),
        (201, None),
        (200, "<html>maintenance</html>"),
        (201, ""),
        (201, "[]"),
        (201, '{"SMSMessageData": {"Message": "InvalidSenderId", "Recipients": []}}'),
        (201, '{"SMSMessageData": null}'),
        (201, with_status("101")),
        (201, with_status(None)),
        *((201, with_status(code)) for code in (401, 402, 403, 404, 405, 406, 407, 409, 500, 501, 502, 103)),
    ],
)
def test_whatever_is_not_surely_taken_over_is_told_and_neither_text_nor_number_is_logged(
    provider, caplog, status, answer
):
    caplog.set_level(logging.DEBUG)
    provider.status, provider.answer = status, answer

    with pytest.raises(SmsUnavailable) as refused:
        sms_sender().send(PHONE, TEXT)

    told = caplog.text + repr([vars(record) for record in caplog.records]) + repr(refused.value) + refused.value.detail
    assert "sms_not_sent" in told
    for secret in ("987123", "712345678", "s3cret", "penpay:"):
        assert secret not in told


def test_a_provider_that_is_not_there_is_told(settings):
    settings.SMS_URL = "africastalking://penpay:key@127.0.0.1:1/?from=PENPAY"
    with pytest.raises(SmsUnavailable):
        sms_sender().send(PHONE, TEXT)


def test_an_unknown_sender_is_refused(settings):
    settings.SMS_URL = "carrier-pigeon://"
    with pytest.raises(ImproperlyConfigured):
        sms_sender()


def test_the_key_is_in_no_repr(settings):
    settings.SMS_URL = "africastalking://penpay:s3cret@127.0.0.1/?from=PENPAY"
    assert "s3cret" not in repr(sms_sender())


class Smtp(socketserver.StreamRequestHandler):
    """A mail server that takes all but those to `refused@`."""

    taken: list[str] = []

    def handle(self) -> None:
        self.say("220 mail.example.org")
        while line := self.rfile.readline().decode().strip():
            match line.split(":")[0].split(" ")[0].upper():
                case "EHLO" | "HELO" | "MAIL" | "RSET":
                    self.say("250 ok")
                case "RCPT":
                    self.say("550 no such user here" if "refused@" in line else "250 ok")
                case "DATA":
                    self.say("354 go on")
                    lines = []
                    while (part := self.rfile.readline().decode()) != ".\r\n":
                        lines.append(part)
                    self.taken.append("".join(lines))
                    self.say("250 ok")
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("500 what?")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@pytest.fixture
def smtp(settings) -> Iterator[list[str]]:
    Smtp.taken = []
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_USE_TLS = "127.0.0.1", False
    settings.DEFAULT_FROM_EMAIL = "PenPay <no-reply@penpay.example>"
    with served(Smtp, socketserver.ThreadingTCPServer) as settings.EMAIL_PORT:
        yield Smtp.taken


def test_an_email_reaches_the_mail_server_with_one_recipient(smtp):
    email_sender().send(Email("amina@example.org"), "Your PenPay code", TEXT)

    [mail] = smtp
    assert "To: amina@example.org\r\n" in mail
    assert "From: PenPay <no-reply@penpay.example>\r\n" in mail
    assert "Subject: Your PenPay code\r\n" in mail
    assert mail.endswith(f"{TEXT}\r\n")


def test_an_address_that_the_mail_server_refuses_is_told_and_not_logged(smtp, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EmailUnavailable) as refused:
        email_sender().send(Email("refused@example.org"), "Your PenPay code", TEXT)
    assert smtp == []
    told = caplog.text + repr([vars(record) for record in caplog.records]) + refused.value.detail
    assert "email_not_sent" in told
    assert "refused@" not in told
    assert "987123" not in told


def test_a_mail_server_that_is_not_there_is_told(smtp, settings):
    settings.EMAIL_PORT = 1
    with pytest.raises(EmailUnavailable):
        email_sender().send(Email("amina@example.org"), "Your PenPay code", TEXT)


@pytest.mark.parametrize(
    "text",
    [
        "amina@example.org\r\nBcc: thief@example.org",
        "amina@example.org\nBcc: thief@example.org",
        "amina\r\n@example.org",
        "amina@example.org,thief@example.org",
        "Amina <amina@example.org>",
        "amina@example.org%0d%0aBcc:thief@example.org",
        "amina@exa\u0000mple.org",
        "amina@example.org\u2028x",
    ],
)
def test_an_address_cannot_carry_a_header(text):
    with pytest.raises(InvalidEmail):
        Email.parse(text)
