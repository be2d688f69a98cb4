"""Django's entry for this context."""

from django.apps import AppConfig


class IdentityConfig(AppConfig):
    name = "identity"
