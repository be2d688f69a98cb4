"""Django's MySQL backend, with one difference: a transaction begins by START TRANSACTION.

Django turns autocommit off and on around each `atomic`: two round trips, a tenth of those of a deposit. This is one,
by Django's own support for databases that need an explicit BEGIN.
"""

from django.db.backends.mysql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """As Django's."""

    def _start_transaction_under_autocommit(self) -> None:
        with self.cursor() as cursor:
            cursor.execute("START TRANSACTION")
