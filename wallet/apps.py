"""Django's entry for this context."""

from django.apps import AppConfig


class WalletConfig(AppConfig):
    name = "wallet"
