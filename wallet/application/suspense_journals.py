"""Money that no Transaction accounts for: in and out of suspense by proof only, and what customers owe us."""

from datetime import datetime

from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Currency, Money
from wallet.application.journals import Journals, Line, entries_of
from wallet.domain.ledger import (
    Account,
    AccountKind,
    FloatKind,
    customer_in_transit,
    customer_receivable,
    float_account,
    house,
)


class SuspenseJournals(Journals):
    """Orphans and uncovered outflows. Each method joins the caller's unit of work.

    What lies in suspense has a name: an orphan's is the provider key of its movement, anything else's the reference of
    the journal that brought it there. It is settled once, as a whole.
    """

    def post_uncovered(
        self,
        transaction: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        paid_by: FloatKind,
        owner: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr customer receivable / Cr the account that paid, whose shortcode or agent is `owner`: proven money that
        left although nothing in transit covers it, such as a payout that turned up after the give-back.
        """
        lines = [(customer_receivable(customer, amount.currency), float_account(paid_by, owner), amount)]
        self._post("uncovered", lines, transaction, provider_key, at=at, provider_key=provider_key)

    def post_difference(
        self, transaction: TransactionId, customer: UserId, *, due: Money, paid: Money, at: datetime
    ) -> None:
        """`paid`, beside `post_withdrawal_paid` or `post_deposit_refunded`, was not the `due` that waits in transit;
        nothing if it was.

        Less: what stays, Dr in-transit / Cr suspense. More: Dr suspense / Cr in-transit, which then covers it.
        """
        held, suspense = customer_in_transit(customer, due.currency), _suspense(due.currency)
        if paid < due:
            self._post_standing("payout_short", [(held, suspense, due - paid)], transaction, at=at)
        elif due < paid:
            self._post_standing("payout_over", [(suspense, held, paid - due)], transaction, at=at)

    def post_suspense_in(
        self, account: FloatKind, owner: str, amount: Money, *, provider_key: str, at: datetime
    ) -> None:
        """Dr float / Cr suspense: proven money that came in and belongs to no Transaction yet."""
        lines = [(float_account(account, owner), _suspense(amount.currency), amount)]
        self._post("suspense_in", lines, None, provider_key, at=at, provider_key=provider_key)

    def post_suspense_matched(
        self, transaction: TransactionId, customer: UserId, amount: Money, *, orphan: str, at: datetime
    ) -> None:
        """Dr suspense / Cr customer in-transit: it was this Transaction's after all."""
        lines = [(_suspense(amount.currency), customer_in_transit(customer, amount.currency), amount)]
        self._settle("suspense_matched", lines, transaction, orphan, at)

    def post_suspense_returned(
        self,
        account: FloatKind,
        owner: str,
        amount: Money,
        *,
        orphan: str,
        provider_key: str,
        at: datetime,
        transaction: TransactionId | None = None,
    ) -> None:
        """Dr suspense / Cr float: it went back to whom it came from, for `transaction` if it was an excess of one."""
        lines = [(_suspense(amount.currency), float_account(account, owner), amount)]
        self._settle("suspense_returned", lines, transaction, orphan, at, provider_key)

    def post_suspense_out(
        self, account: FloatKind, owner: str, amount: Money, *, provider_key: str, at: datetime
    ) -> None:
        """Dr suspense / Cr float: proven money that left and that nothing of ours explains."""
        lines = [(_suspense(amount.currency), float_account(account, owner), amount)]
        self._post("suspense_out", lines, None, provider_key, at=at, provider_key=provider_key)

    def post_suspense_recovered(
        self,
        account: FloatKind,
        owner: str,
        amount: Money,
        *,
        orphan: str,
        provider_key: str,
        at: datetime,
        transaction: TransactionId | None = None,
    ) -> None:
        """Dr float / Cr suspense: an unexplained outflow came back, by the movement that `provider_key` names."""
        lines = [(float_account(account, owner), _suspense(amount.currency), amount)]
        self._settle("suspense_recovered", lines, transaction, orphan, at, provider_key)

    def post_suspense_paired(self, came_in: str, left: str, amount: Money, *, at: datetime) -> None:
        """Dr suspense / Cr cash in transit, and back: two names in suspense, of which one is the other's return.

        Nothing moves by it, but each has its settlement: nobody can take one of them for something else.
        """
        suspense, transit = _suspense(amount.currency), house(AccountKind.CASH_IN_TRANSIT, amount.currency)
        self._settle("suspense_paired", [(suspense, transit, amount)], None, came_in, at)
        self._settle("suspense_paired", [(transit, suspense, amount)], None, left, at)

    def post_suspense_written_off(
        self, amount: Money, *, orphan: str, at: datetime, transaction: TransactionId | None = None
    ) -> None:
        """Dr losses / Cr suspense: an unexplained outflow that nobody will bring back."""
        lines = [(house(AccountKind.LOSSES, amount.currency), _suspense(amount.currency), amount)]
        self._settle("suspense_written_off", lines, transaction, orphan, at)

    def post_suspense_loss_recovered(self, amount: Money, *, orphan: str, at: datetime) -> None:
        """Dr suspense / Cr losses: what had been written off came back, and is no loss any more."""
        lines = [(_suspense(amount.currency), house(AccountKind.LOSSES, amount.currency), amount)]
        self._settle("suspense_loss_recovered", lines, None, orphan, at)

    def _settle(
        self,
        purpose: str,
        lines: list[Line],
        transaction: TransactionId | None,
        orphan: str,
        at: datetime,
        provider_key: str | None = None,
    ) -> None:
        """The reference is the orphan's alone, so that no second Transaction and no return can have it, too."""
        self._append(purpose, self.book.settlement_of(orphan), entries_of(lines, provider_key), transaction, at)


def _suspense(currency: Currency) -> Account:
    return house(AccountKind.SUSPENSE, currency)
