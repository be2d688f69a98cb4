"""Staff's pages of payments. Importing them registers them."""

from payments.admin import breaks, records, reveals, suspense

__all__ = ["breaks", "records", "reveals", "suspense"]
