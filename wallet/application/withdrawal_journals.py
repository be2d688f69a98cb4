"""What withdrawals post.

A withdrawal has at most one debit, one exchange, one payout that stand, and one credit-back: another one is refused
(`AlreadyPosted`) until the first is undone, whatever key it comes with. In-transit alone would not see to that: it is
the customer's, and may hold another withdrawal's money.
"""

from datetime import datetime

from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Money, WithdrawalSplit
from wallet.application.journals import KES, USD, Journals
from wallet.domain.ledger import (
    AccountKind,
    customer_in_transit,
    customer_receivable,
    deriv_agent,
    house,
    mpesa_charges_paid,
    mpesa_utility,
)


class WithdrawalJournals(Journals):
    """Deriv to the customer's M-Pesa, and back. Each method joins the caller's unit of work."""

    def post_withdrawal_debited(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        debited: Money,
        *,
        agent: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr Deriv agent account / Cr customer in-transit, USD, by the agent's own book."""
        lines = [(deriv_agent(agent), customer_in_transit(customer, USD), debited)]
        self._post_standing(
            "withdrawal_debited", lines, withdrawal, at=at, provider_key=provider_key, undoing="debit_reverted"
        )

    def post_withdrawal_exchanged(
        self, withdrawal: TransactionId, customer: UserId, debited: Money, *, split: WithdrawalSplit, at: datetime
    ) -> None:
        """Dr in-transit USD / Cr FX position USD; Dr FX position KES / Cr in-transit KES (the payout), margin,
        rounding. May happen again after `undo_exchange`.
        """
        position = house(AccountKind.FX_POSITION, KES)
        lines = [
            (customer_in_transit(customer, USD), house(AccountKind.FX_POSITION, USD), debited),
            (position, customer_in_transit(customer, KES), split.payout),
            (position, house(AccountKind.FX_MARGIN, KES), split.margin),
            (position, house(AccountKind.ROUNDING, KES), split.rounding),
        ]
        self._post_standing("withdrawal_exchanged", lines, withdrawal, at=at)

    def undo_exchange(self, withdrawal: TransactionId, *, at: datetime) -> None:
        """The standing exchange mirrored, at its own rate, margin and rounding. Raises `NothingToUndo`."""
        self._undo("withdrawal_exchanged", withdrawal, at=at)

    def post_withdrawal_paid(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        paid: Money,
        *,
        shortcode: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit KES / Cr M-Pesa utility account, for what was paid: see `post_difference`."""
        lines = [(customer_in_transit(customer, KES), mpesa_utility(shortcode), paid)]
        self._post_standing("withdrawal_paid", lines, withdrawal, at=at, provider_key=provider_key)

    def undo_withdrawal_paid(self, withdrawal: TransactionId, *, at: datetime) -> None:
        """A payout that was booked on a claim was denied: mirrored, a difference with it. Raises `NothingToUndo`."""
        self._undo("withdrawal_paid", withdrawal, at=at)
        self._undo_difference(withdrawal, at=at)

    def post_mpesa_fee(
        self, transaction: TransactionId, fee: Money, *, shortcode: str, provider_key: str, at: datetime
    ) -> None:
        """Dr M-Pesa fees / Cr charges-paid account: an expense, also of what was given back.

        The charge is a movement of its own, so its key is another one than the payout's.
        """
        lines = [(house(AccountKind.MPESA_FEES, KES), mpesa_charges_paid(shortcode), fee)]
        self._post("mpesa_fee", lines, transaction, provider_key, at=at, provider_key=provider_key)

    def post_credit_back_sent(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        sent: Money,
        *,
        agent: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit USD / Cr Deriv agent account. Once: a second one is `post_uncovered`."""
        lines = [(customer_in_transit(customer, USD), deriv_agent(agent), sent)]
        self._post("credit_back_sent", lines, withdrawal, "once", at=at, provider_key=provider_key)

    def post_debit_reverted(
        self,
        withdrawal: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        agent: str,
        provider_key: str,
        covered: bool,
        at: datetime,
    ) -> None:
        """Deriv took its debit back: Dr in-transit USD if that is `covered` by what waits there, else Dr customer
        receivable USD / Cr Deriv agent account.
        """
        purpose = "debit_reverted" if covered else "debit_owed"
        debit = customer_in_transit(customer, USD) if covered else customer_receivable(customer, USD)
        lines = [(debit, deriv_agent(agent), amount)]
        self._post(purpose, lines, withdrawal, provider_key, at=at, provider_key=provider_key)
