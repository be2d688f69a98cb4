"""E-mails to customers, by Django's mail and `EMAIL_URL`: SMTP with STARTTLS, or console, file and memory for tests."""

import logging
import smtplib
from dataclasses import dataclass

from django.conf import settings
from django.core.mail import EmailMessage

from identity.domain.contact import Email
from identity.domain.ports import EmailUnavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DjangoEmail:
    """`EmailSender` over the backend that `EMAIL_URL` names; a connection for each e-mail."""

    def send(self, email: Email, subject: str, text: str) -> None:
        message = EmailMessage(subject, text, settings.DEFAULT_FROM_EMAIL, [email.address])
        try:
            message.send()
        except (smtplib.SMTPException, OSError) as error:  # their words may hold the address
            log.warning("email_not_sent", extra={"error": type(error).__name__})
            raise EmailUnavailable("e-mails can't be sent at the moment: try again later") from None


def email_sender() -> DjangoEmail:
    """The sender that `EMAIL_URL` names."""
    return DjangoEmail()
