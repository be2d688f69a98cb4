"""The wallet, assembled: `ledger` posts and tells balances; the chart's names say which account is meant."""

from shared_kernel.infrastructure.persistence import new_id, now
from wallet.application.posting import Posting
from wallet.domain.ledger import AccountKind, customer_in_transit, deriv_agent, house, mpesa_working
from wallet.infrastructure.persistence import DjangoLedgerBook

__all__ = ["AccountKind", "customer_in_transit", "deriv_agent", "house", "ledger", "mpesa_working"]

ledger = Posting(book=DjangoLedgerBook(clock=now, new_id=new_id), new_id=new_id)
