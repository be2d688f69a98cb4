"""What deposits post."""

from datetime import datetime
from typing import Literal

from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import DepositSplit, Money
from wallet.application.journals import KES, USD, Journals
from wallet.domain.ledger import (
    AccountKind,
    customer_in_transit,
    customer_receivable,
    deriv_agent,
    house,
    mpesa_utility,
    mpesa_working,
)

DIFFERENCE = "difference"


class DepositJournals(Journals):
    """M-Pesa's customer to Deriv, and back. Each method joins the caller's unit of work."""

    def post_deposit_received(
        self, deposit: TransactionId, customer: UserId, paid: Money, *, shortcode: str, provider_key: str, at: datetime
    ) -> None:
        """Dr M-Pesa account / Cr customer in-transit, KES, for what was proven."""
        lines = [(mpesa_working(shortcode), customer_in_transit(customer, KES), paid)]
        self._post("deposit_received", lines, deposit, provider_key, at=at, provider_key=provider_key)

    def post_excess(
        self, deposit: TransactionId, customer: UserId, excess: Money, *, of: str = DIFFERENCE, at: datetime
    ) -> None:
        """Dr customer in-transit / Cr suspense: proven money without a claim to it. A deposit may have several: `of`
        is the receipt of a payment that is one too many; without it, what the payment was more than was asked for.
        """
        currency = excess.currency
        lines = [(customer_in_transit(customer, currency), house(AccountKind.SUSPENSE, currency), excess)]
        self._post("deposit_excess", lines, deposit, of, at=at)

    def post_deposit_sent(
        self,
        deposit: TransactionId,
        customer: UserId,
        split: DepositSplit,
        sent: Money,
        *,
        agent: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit KES / Cr FX position, margin, rounding; Dr FX position USD / Cr Deriv agent account."""
        held = customer_in_transit(customer, KES)
        lines = [
            (house(AccountKind.FX_POSITION, USD), deriv_agent(agent), sent),
            (held, house(AccountKind.FX_POSITION, KES), split.fx),
            (held, house(AccountKind.FX_MARGIN, KES), split.margin),
            (held, house(AccountKind.ROUNDING, KES), split.rounding),
        ]
        self._post("deposit_sent", lines, deposit, provider_key, at=at, provider_key=provider_key)

    def post_duplicate_sent(
        self, deposit: TransactionId, sent: Money, *, agent: str, provider_key: str, at: datetime
    ) -> None:
        """Dr suspense USD / Cr Deriv agent account: a second booking of one transfer, by Deriv's own book."""
        lines = [(house(AccountKind.SUSPENSE, USD), deriv_agent(agent), sent)]
        self._post("duplicate_sent", lines, deposit, provider_key, at=at, provider_key=provider_key)

    def undo_deposit_sent(self, deposit: TransactionId, *, provider_key: str, at: datetime) -> None:
        """Deriv reverted the booked transfer: its journal mirrored, the Deriv leg under `provider_key`.

        Raises `NothingToUndo`.
        """
        self._undo("deposit_sent", deposit, at=at, provider_key=provider_key)

    def post_deposit_refunded(
        self,
        deposit: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        shortcode: str,
        by: Literal["reversal", "b2c"],
        provider_key: str,
        at: datetime,
    ) -> None:
        """Dr in-transit KES / Cr the account that the payment came into (reversal), or the utility account (B2C).

        One that stands for a deposit, whichever way: a second one is `post_uncovered`.
        """
        paid_by = mpesa_working(shortcode) if by == "reversal" else mpesa_utility(shortcode)
        lines = [(customer_in_transit(customer, KES), paid_by, amount)]
        self._post_standing("deposit_refunded", lines, deposit, at=at, provider_key=provider_key)

    def undo_deposit_refunded(self, deposit: TransactionId, *, at: datetime) -> None:
        """A B2C refund that was booked on a claim was denied: mirrored, with a difference. Raises `NothingToUndo`."""
        self._undo("deposit_refunded", deposit, at=at)
        self._undo_difference(deposit, at=at)

    def post_deposit_reversed(
        self,
        deposit: TransactionId,
        customer: UserId,
        amount: Money,
        *,
        shortcode: str,
        provider_key: str,
        covered: bool,
        at: datetime,
    ) -> None:
        """M-Pesa took a payment back by itself: Dr in-transit KES if that is `covered` by what waits there, else Dr
        customer receivable KES / Cr M-Pesa account.
        """
        purpose = "deposit_reversed" if covered else "deposit_owed"
        debit = customer_in_transit(customer, KES) if covered else customer_receivable(customer, KES)
        lines = [(debit, mpesa_working(shortcode), amount)]
        self._post(purpose, lines, deposit, provider_key, at=at, provider_key=provider_key)
