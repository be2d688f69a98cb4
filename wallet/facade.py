"""The wallet, assembled: `ledger` posts and tells balances, `verify_ledger` checks it inside a `snapshot`,
`rebuild_balances` makes the kept balances anew.

The chart's names say which account is meant, as in `ledger.post_opening(deriv_agent("CR900001"), Money(...), ...)`.
"""

from shared_kernel.infrastructure.persistence import new_id, now
from wallet.application.posting import Posting
from wallet.domain.ledger import (
    AccountKind,
    FloatKind,
    NothingToUndo,
    customer_in_transit,
    customer_receivable,
    deriv_agent,
    house,
    mpesa_charges_paid,
    mpesa_utility,
    mpesa_working,
)
from wallet.infrastructure.persistence import DjangoLedgerBook
from wallet.infrastructure.rebuilding import Rebuilt, rebuild_balances
from wallet.infrastructure.verification import Finding, snapshot, verify_ledger
from wallet.queries import (
    account_history,
    balance_as_of,
    balances_as_of,
    balances_of,
    entries_of,
    trial_balance,
    trial_balance_as_of,
)

__all__ = [
    "AccountKind",
    "Finding",
    "FloatKind",
    "NothingToUndo",
    "Rebuilt",
    "account_history",
    "balance_as_of",
    "balances_as_of",
    "balances_of",
    "customer_in_transit",
    "customer_receivable",
    "deriv_agent",
    "entries_of",
    "house",
    "ledger",
    "mpesa_charges_paid",
    "mpesa_utility",
    "mpesa_working",
    "rebuild_balances",
    "snapshot",
    "trial_balance",
    "trial_balance_as_of",
    "verify_ledger",
]

ledger = Posting(book=DjangoLedgerBook(clock=now, new_id=new_id), new_id=new_id)
