"""What every context's admin pages are made of. Importing it registers the pages of shared_kernel."""

from shared_kernel.admin import records
from shared_kernel.admin.deciding import BUSY, AskedAdmin, ConsentAdmin, GivenOnceAdmin, Telling, or_busy
from shared_kernel.admin.pages import (
    ReadOnlyAdmin,
    amount,
    link,
    linked,
    masked,
    page_of,
    row_url,
    table,
    target_url,
)

__all__ = [
    "BUSY",
    "AskedAdmin",
    "ConsentAdmin",
    "GivenOnceAdmin",
    "ReadOnlyAdmin",
    "Telling",
    "amount",
    "link",
    "linked",
    "masked",
    "or_busy",
    "page_of",
    "records",
    "row_url",
    "table",
    "target_url",
]
