"""Django's entry for this context."""

from django.apps import AppConfig


class DerivIntegrationConfig(AppConfig):
    name = "deriv_integration"
    verbose_name = "Deriv"
