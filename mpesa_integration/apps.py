"""Django's entry for this context."""

from django.apps import AppConfig


class MpesaIntegrationConfig(AppConfig):
    name = "mpesa_integration"
    verbose_name = "M-Pesa"
