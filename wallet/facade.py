"""The wallet, assembled: `ledger` posts and tells balances, `verify_ledger` checks it inside a `snapshot`.

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
from wallet.infrastructure.verification import Finding, snapshot, verify_ledger
from wallet.queries import (
    FloatLeg,
    account_history,
    balances_of,
    entries_of,
    float_legs_recorded,
    float_legs_under,
    trial_balance,
)

__all__ = [
    "AccountKind",
    "Finding",
    "FloatKind",
    "FloatLeg",
    "NothingToUndo",
    "account_history",
    "balances_of",
    "customer_in_transit",
    "customer_receivable",
    "deriv_agent",
    "entries_of",
    "float_legs_recorded",
    "float_legs_under",
    "house",
    "ledger",
    "mpesa_charges_paid",
    "mpesa_utility",
    "mpesa_working",
    "snapshot",
    "trial_balance",
    "verify_ledger",
]

ledger = Posting(book=DjangoLedgerBook(clock=now, new_id=new_id), new_id=new_id)
