"""The shared kernel's door for edges (views, workers, admin, commands): they reach its adapters through here."""

from shared_kernel.infrastructure.persistence import (
    acting_as,
    current_context,
    lock_lost,
    new_id,
    now,
)

__all__ = ["acting_as", "current_context", "lock_lost", "new_id", "now"]
