"""Where texts to customers go, by `SMS_URL`: `africastalking://user:key@host/?from=NAME`; or `console://`, `memory://`
(tests), `file:///path` (a JSON line each), which reach no phone, so that production refuses them.
"""

import json
import logging
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from identity.domain.ports import SmsSender, SmsUnavailable
from shared_kernel.domain.identifiers import Phone
from shared_kernel.infrastructure.http import TIMEOUT, NoAnswer, NotConnected, exchange

log = logging.getLogger(__name__)
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class ConsoleSms:
    """Prints to standard error; the number masked, the text in full."""

    def send(self, phone: Phone, text: str) -> None:
        sys.stderr.write(f"SMS to {phone}: {text}\n")
        sys.stderr.flush()


@dataclass(frozen=True)
class FileSms:
    """Appends `{"phone", "text"}` as one JSON line, for what runs in several processes."""

    path: Path

    def send(self, phone: Phone, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"phone": phone.number, "text": text}) + "\n")


@dataclass(frozen=True)
class MemorySms:
    """Keeps texts in `sent`, for tests."""

    sent: list[tuple[Phone, str]]

    def send(self, phone: Phone, text: str) -> None:
        self.sent.append((phone, text))


outbox = MemorySms([])
"""What `memory://` sent in this process."""


@dataclass(frozen=True)
class AfricasTalkingSms:
    """Africa's Talking, bulk SMS: one text to one phone; its answer has a status for each recipient.

    `POST /version1/messaging`, form-encoded, header `apiKey`. *Assumed*: no sample of an answer was at hand, so its
    shape is read by `status_of`, and what its codes mean stands in `HANDED_OVER`, and nowhere else.
    """

    base_url: str
    username: str
    key: str = field(repr=False)
    sender: str

    def send(self, phone: Phone, text: str) -> None:
        form = {"username": self.username, "to": f"+{phone.number}", "message": text}
        if self.sender:
            form["from"] = self.sender
        content = urlencode(form).encode()
        headers = {"apiKey": self.key, "Content-Type": "application/x-www-form-urlencoded"}
        try:
            reply = exchange("POST", self.base_url, "/version1/messaging", headers, content, timeout=QUICK)
        except (NotConnected, NoAnswer) as error:  # it may be on its way: another one does no harm
            self._failed(str(error))
        if not 200 <= reply.status < 300:
            self._failed(f"http {reply.status}")
        code = status_of(reply.text)
        if code not in HANDED_OVER:
            self._failed(f"status {code}")

    def _failed(self, why: str) -> NoReturn:
        log.warning("sms_not_sent", extra={"error": why})
        raise SmsUnavailable("texts can't be sent at the moment: try again later")


HANDED_OVER = frozenset({100, 101, 102})  # processed, sent, queued
QUICK = {**TIMEOUT, "read": 10.0}  # somebody waits for this answer


def status_of(answer: str) -> int | None:
    """The one recipient's `statusCode`; None for whatever else comes.

    `{"SMSMessageData": {"Message": "...", "Recipients": [{"statusCode": 101, "number": "+254...", ...}]}}`
    """
    try:
        [recipient] = json.loads(answer)["SMSMessageData"]["Recipients"]
        code = recipient["statusCode"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, int) else None


def sms_sender() -> SmsSender:
    """The sender that `SMS_URL` names; the settings let nothing else than a real one into production."""
    return _sender(settings.SMS_URL)


@cache
def _sender(url: str) -> SmsSender:
    parts = urlsplit(url)
    match parts.scheme:
        case "console":
            return ConsoleSms()
        case "memory":
            return outbox
        case "file":
            return FileSms(Path(parts.path))
        case "africastalking":
            given = dict(parse_qsl(parts.query))
            scheme = "http" if parts.hostname in LOOPBACK and not settings.PRODUCTION else "https"
            host = parts.netloc.rpartition("@")[2]
            return AfricasTalkingSms(
                f"{scheme}://{host}",
                unquote(parts.username or ""),
                unquote(parts.password or ""),
                given.get("from", ""),
            )
    raise ImproperlyConfigured("SMS_URL is africastalking://, console://, memory:// or file:///path")
