"""Staff's pages of payments. Importing them registers them."""

from payments.admin import breaks, records

__all__ = ["breaks", "records"]
