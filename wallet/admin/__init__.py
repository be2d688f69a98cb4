"""Staff's pages of the ledger and of treasury: each module registers its own."""

from wallet.admin import ledger, treasury

__all__ = ["ledger", "treasury"]
