"""Django's entry for this context."""

from django.apps import AppConfig


class WalletConfig(AppConfig):
    name = "wallet"
    verbose_name = "Ledger"

    def ready(self) -> None:
        from shared_kernel.infrastructure.append_only import keep_installed
        from wallet.infrastructure.guards import GUARDS

        keep_installed(self, GUARDS)
