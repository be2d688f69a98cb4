"""Django's entry for this context."""

from django.apps import AppConfig


class WalletConfig(AppConfig):
    name = "wallet"
    verbose_name = "Ledger"

    def ready(self) -> None:
        from shared_kernel.infrastructure.append_only import keep_installed
        from shared_kernel.infrastructure.seals import keep_sealed
        from wallet.infrastructure.guards import GUARDS, LEDGER_ENTRIES

        keep_installed(self, GUARDS)
        keep_sealed(LEDGER_ENTRIES)
