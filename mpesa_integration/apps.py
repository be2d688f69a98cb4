"""Django's entry for this context."""

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class MpesaIntegrationConfig(AppConfig):
    """Nothing starts with a certificate that is not M-Pesa's: the first payout would be the first to notice."""

    name = "mpesa_integration"
    verbose_name = "M-Pesa"

    def ready(self) -> None:
        from mpesa_integration.infrastructure.credentials import CertificateUnusable, public_key

        try:
            public_key(settings.MPESA_CERTIFICATE_FILE, settings.MPESA_CERTIFICATE_SHA256)
        except CertificateUnusable as error:
            raise ImproperlyConfigured(str(error)) from None
