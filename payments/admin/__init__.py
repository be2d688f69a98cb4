"""Staff's pages of payments. Importing them registers them."""

from payments.admin import breaks, decisions, records, reveals, suspense

__all__ = ["breaks", "decisions", "records", "reveals", "suspense"]
