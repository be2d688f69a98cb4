"""Django's entry for this context."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
