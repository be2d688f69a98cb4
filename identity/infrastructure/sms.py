"""Where texts to customers go, by `SMS_URL`: `console://`, `memory://` (tests), `file:///path` (a JSON line each).

None of the three reaches a phone, so that production refuses them all; a provider's adapter joins them here.
"""

import json
import logging
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from identity.domain.ports import SmsSender, SmsUnavailable
from shared_kernel.domain.identifiers import Phone

log = logging.getLogger(__name__)


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


def sms_sender() -> SmsSender:
    """The sender that `SMS_URL` names. Raises `SmsUnavailable` in production, `ImproperlyConfigured`."""
    if settings.PRODUCTION:
        log.error("SMS_URL names no sender that reaches a phone: none is built yet")
        raise SmsUnavailable("texts can't be sent at the moment: try again later")
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
    raise ImproperlyConfigured("SMS_URL is console://, memory:// or file:///path")
