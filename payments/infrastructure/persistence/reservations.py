"""`float_accounts` and `float_reservations` over Django."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from payments import models
from payments.domain.ports import LedgerGateway
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.infrastructure.rows import binary_mark, insert, update

log = logging.getLogger(__name__)


class FloatTooLow(Unavailable):
    """The agent account can't cover it now. Nothing was charged."""


@dataclass(frozen=True)
class DjangoFloatReservations:
    """`float_accounts` and `float_reservations`; the account's row is the lock."""

    ledger: LedgerGateway

    def reserve(
        self, account: str, transaction: TransactionId, amount: Money, *, at: datetime, beyond: bool = False
    ) -> None:
        if beyond and (kept := models.FloatReservation.objects.filter(pk=transaction, released_at=None).first()):
            self._raise(kept, amount)
            return
        with connection.cursor() as cursor:  # one statement, so that first uses of an account can't block each other
            cursor.execute(PROMISE[connection.vendor], [account, amount.amount])
            reserved: int = cursor.lastrowid  # as MySQL's LAST_INSERT_ID(…) handed it out; 0 for an account's first row
            if connection.vendor != "mysql" or not reserved:
                cursor.execute("SELECT reserved FROM float_accounts WHERE account = %s", [account])
                [reserved] = cursor.fetchone()
        if not beyond and self._balance(account).amount < reserved:
            log.error("float_low", extra={"account": account})
            raise FloatTooLow("this amount is not possible right now: please try again later")
        row = models.FloatReservation(
            transaction_id=transaction, account=account, amount=amount.amount, created_at=at, released_at=None
        )
        if not (beyond and update([row], ["account", "amount", "created_at", "released_at"])):
            insert([row])

    def _raise(self, kept: models.FloatReservation, amount: Money) -> None:
        """It has kept the one it had, which may be too small by now."""
        more = amount.amount - kept.amount
        if more > 0:
            with connection.cursor() as cursor:
                cursor.execute(PROMISE[connection.vendor], [kept.account, more])
            kept.amount = amount.amount
            update([kept], ["amount"])

    def _balance(self, account: str) -> Money:
        """A shortcode's utility account is named `mpesa:<shortcode>`, an agent's by its credential."""
        shortcode = account.removeprefix("mpesa:")
        return self.ledger.deriv_balance(account) if shortcode == account else self.ledger.mpesa_balance(shortcode)

    def release(self, transactions: Sequence[TransactionId], *, at: datetime) -> None:
        if not transactions:
            return
        ids = [id.bytes for id in transactions]
        held = f"transaction_id IN ({', '.join([binary_mark()] * len(ids))}) AND released_at IS NULL"
        with connection.cursor() as cursor:  # the account before its reservations, as `reserve` does
            cursor.execute(GIVE_UP[connection.vendor].format(held=held), ids)
            if cursor.rowcount:
                cursor.execute(
                    f"UPDATE float_reservations SET released_at = %s WHERE {held}",  # noqa: S608 - our own names
                    [connection.ops.adapt_datetimefield_value(at), *ids],
                )


PROMISE = {
    "mysql": "INSERT INTO float_accounts (account, reserved) VALUES (%s, %s) "
    "ON DUPLICATE KEY UPDATE reserved = LAST_INSERT_ID(reserved + VALUES(reserved))",
    "sqlite": "INSERT INTO float_accounts (account, reserved) VALUES (%s, %s) "
    "ON CONFLICT (account) DO UPDATE SET reserved = reserved + excluded.reserved",
}
HELD = "(SELECT account, SUM(amount) AS amount FROM float_reservations WHERE {held} GROUP BY account)"
GIVE_UP = {
    "mysql": f"UPDATE float_accounts AS a JOIN {HELD} AS r ON r.account = a.account "  # noqa: S608
    "SET a.reserved = a.reserved - r.amount",
    "sqlite": f"UPDATE float_accounts AS a SET reserved = reserved - r.amount FROM {HELD} AS r "  # noqa: S608
    "WHERE r.account = a.account",
}
