"""The wallet, assembled: `ledger` posts and tells balances, `verify_ledger` checks it inside a `snapshot`,
`rebuild_balances` makes the kept balances anew; and what is read of it.

The chart's names say which account is meant, as in `ledger.post_opening(deriv_agent("CR900001"), Money(...), ...)`.
"""

from shared_kernel.infrastructure.persistence import new_id, now
from wallet.application.posting import Posting
from wallet.domain.ledger import (
    AccountKind,
    FloatKind,
    NothingToUndo,
    Side,
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
from wallet.infrastructure.statement_csv import statement_csv
from wallet.infrastructure.statement_pdf import statement_pdf
from wallet.infrastructure.verification import Finding, snapshot, verify_ledger
from wallet.queries.finance import HistoryRow, account, accounts, fx_turnover, history_with_balances, whole_history
from wallet.queries.float_legs import FloatLeg, float_legs_recorded, float_legs_under
from wallet.queries.ledger import (
    AccountBalance,
    account_history,
    balance_as_of,
    balances_as_of,
    balances_of,
    entries_of,
    trial_balance,
    trial_balance_as_of,
)
from wallet.queries.statement import (
    Place,
    StatementLine,
    StatementTotal,
    customer_balances,
    statement_lines,
    statement_totals,
)

__all__ = [
    "AccountBalance",
    "AccountKind",
    "Finding",
    "FloatKind",
    "FloatLeg",
    "HistoryRow",
    "NothingToUndo",
    "Place",
    "Rebuilt",
    "Side",
    "StatementLine",
    "StatementTotal",
    "account",
    "account_history",
    "accounts",
    "balance_as_of",
    "balances_as_of",
    "balances_of",
    "customer_balances",
    "customer_in_transit",
    "customer_receivable",
    "deriv_agent",
    "entries_of",
    "float_legs_recorded",
    "float_legs_under",
    "fx_turnover",
    "history_with_balances",
    "house",
    "ledger",
    "mpesa_charges_paid",
    "mpesa_utility",
    "mpesa_working",
    "rebuild_balances",
    "snapshot",
    "statement_csv",
    "statement_lines",
    "statement_pdf",
    "statement_totals",
    "trial_balance",
    "trial_balance_as_of",
    "verify_ledger",
    "whole_history",
]

ledger = Posting(book=DjangoLedgerBook(clock=now, new_id=new_id), new_id=new_id)
