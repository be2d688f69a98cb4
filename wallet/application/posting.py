"""Posting: what the sagas prove, written as journals. Each method joins the caller's unit of work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared_kernel.domain.identifiers import EntryId, JournalId, TransactionId, UserId
from shared_kernel.domain.money import Currency, DepositSplit, Money
from shared_kernel.domain.ports import IdSource
from wallet.domain.ledger import (
    Account,
    AccountKind,
    Entry,
    Journal,
    Side,
    customer_in_transit,
    deriv_agent,
    house,
    mpesa_working,
)
from wallet.domain.ports import LedgerBook

KES, USD = Currency.KES, Currency.USD
Line = tuple[Account, Account, Money]  # debit, credit, amount; of zero when there is nothing to post


@dataclass(frozen=True)
class Posting:
    """Journals into the ledger. A journal's `reference` is derived from what it is for: it can't be posted twice."""

    book: LedgerBook
    new_id: IdSource

    def post_deposit_received(
        self, deposit: TransactionId, customer: UserId, paid: Money, *, shortcode: str, provider_key: str, at: datetime
    ) -> None:
        """Dr M-Pesa account / Cr customer in-transit, KES, for what was proven."""
        lines = [(mpesa_working(shortcode), customer_in_transit(customer, KES), paid)]
        self._post("deposit_received", lines, deposit, provider_key, at=at, provider_key=provider_key)

    def post_excess(self, deposit: TransactionId, customer: UserId, excess: Money, *, at: datetime) -> None:
        """Dr customer in-transit / Cr suspense: proven money without a claim to it. A deposit may have several."""
        number = 1 + self.book.journals_of(deposit, "deposit_excess")
        currency = excess.currency
        lines = [(customer_in_transit(customer, currency), house(AccountKind.SUSPENSE, currency), excess)]
        self._post("deposit_excess", lines, deposit, str(number), at=at)

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

    def post_opening(
        self,
        account: Account,
        amount: Money,
        *,
        reference: str,
        at: datetime,
        source: AccountKind = AccountKind.OWNERS_FUNDING,
        provider_key: str | None = None,
    ) -> None:
        """`amount` into `account` against owner's funding, or against `source` (opening balances)."""
        other = house(source, amount.currency)
        grows_by_debit = account.kind.normal_side is Side.DEBIT
        lines = [(account, other, amount) if grows_by_debit else (other, account, amount)]
        self._post("opening", lines, None, reference, at=at, provider_key=provider_key)

    def reverse(
        self, entries: Sequence[EntryId], *, at: datetime, provider_keys: Mapping[EntryId, str] | None = None
    ) -> None:
        """Takes entries of one Transaction back by mirrored ones that name them, in one journal.

        `provider_keys` are those of the movements that the provider made for it. An entry is reversed once: a repeat
        raises `AlreadyPosted` at the end of the unit of work. Raises `EntryNotFound`.
        """
        keys = provider_keys or {}
        posted = self.book.entries(entries)
        mirrored = tuple(
            Entry(p.entry.credit, p.entry.debit, p.entry.amount, keys.get(p.id), reverses=p.id) for p in posted
        )
        self._append("reversal", f"reversal:{posted[0].id}", mirrored, posted[0].transaction, at)

    def balance(self, account: Account) -> Money:
        """On the account's normal side, exact up to this moment of the unit of work."""
        return self.book.balance(account)

    def deriv_balance(self, agent: str) -> Money:
        """What the ledger says the agent account holds, in USD."""
        return self.book.balance(deriv_agent(agent))

    def _post(
        self,
        purpose: str,
        lines: Iterable[Line],
        transaction: TransactionId | None,
        which: str,
        *,
        at: datetime,
        provider_key: str | None = None,
    ) -> None:
        """The provider's movement stands behind the first line, which then can't be zero; other zeros are left out."""
        entries = tuple(
            Entry(debit, credit, amount, provider_key if number == 0 else None)
            for number, (debit, credit, amount) in enumerate(lines)
            if amount or (number == 0 and provider_key)
        )
        reference = f"{transaction}:{purpose}:{which}" if transaction else f"{purpose}:{which}"
        self._append(purpose, reference, entries, transaction, at)

    def _append(
        self, purpose: str, reference: str, entries: tuple[Entry, ...], transaction: TransactionId | None, at: datetime
    ) -> None:
        self.book.append(Journal(JournalId(self.new_id()), purpose, reference, entries, at, transaction))
