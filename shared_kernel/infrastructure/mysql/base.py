"""Django's MySQL backend, with two round trips less.

Django turns autocommit off and on around each `atomic`; here a transaction begins with START TRANSACTION, by its own
support for databases that need an explicit BEGIN. And a connection that served within the last seconds is not asked
anew whether it lives; one that has failed always is.
"""

import time

from django.db.backends.mysql import base

FRESH_S = 2.0


class DatabaseWrapper(base.DatabaseWrapper):
    """As Django's."""

    used_at = float("-inf")  # on the monotonic clock

    def is_usable(self) -> bool:
        if not self.errors_occurred and time.monotonic() - self.used_at < FRESH_S:
            return True
        usable = bool(super().is_usable())
        if usable:
            self.used_at = time.monotonic()
        return usable

    def _start_transaction_under_autocommit(self) -> None:
        with self.cursor() as cursor:
            cursor.execute("START TRANSACTION")
        self.used_at = time.monotonic()
