"""The wallet, assembled: `ledger` posts and tells balances, `verify_ledger` checks it inside a `snapshot`,
`rebuild_balances` makes the kept balances anew; `treasury_movements` are what staff move; and what is read of it.

The chart's names say which account is meant, as in `ledger.post_opening(deriv_agent("CR900001"), Money(...), ...)`.
"""

from datetime import datetime
from uuid import UUID

from django.conf import settings

from shared_kernel.domain.money import Money
from shared_kernel.infrastructure.persistence import (
    DjangoAuditLog,
    DjangoOutboxRepository,
    new_id,
    now,
    unit_of_work,
)
from wallet.application.posting import Posting
from wallet.application.treasury import Explained, ProposeMovement, TreasuryMovements
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
from wallet.domain.treasury import Kind as TreasuryKind, Status as TreasuryStatus
from wallet.infrastructure.persistence import DjangoLedgerBook
from wallet.infrastructure.rebuilding import Rebuilt, rebuild_balances
from wallet.infrastructure.statement_csv import statement_csv
from wallet.infrastructure.statement_pdf import statement_pdf
from wallet.infrastructure.treasury import DjangoTreasuryBook
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
from wallet.queries.treasury import (
    InTransit,
    OpenMovement,
    cash_in_transit,
    open_movements,
    orphans_settled,
)

__all__ = [
    "AccountBalance",
    "AccountKind",
    "Finding",
    "FloatKind",
    "FloatLeg",
    "HistoryRow",
    "InTransit",
    "NothingToUndo",
    "OpenMovement",
    "Place",
    "ProposeMovement",
    "Rebuilt",
    "Side",
    "StatementLine",
    "StatementTotal",
    "TreasuryKind",
    "TreasuryStatus",
    "account",
    "account_history",
    "accounts",
    "balance_as_of",
    "balances_as_of",
    "balances_of",
    "cash_in_transit",
    "customer_balances",
    "customer_in_transit",
    "customer_receivable",
    "deriv_agent",
    "entries_of",
    "explain_movements_by",
    "float_legs_recorded",
    "float_legs_under",
    "fx_turnover",
    "history_with_balances",
    "house",
    "ledger",
    "mpesa_charges_paid",
    "mpesa_utility",
    "mpesa_working",
    "open_movements",
    "orphans_settled",
    "rebuild_balances",
    "snapshot",
    "statement_csv",
    "statement_lines",
    "statement_pdf",
    "statement_totals",
    "treasury_movements",
    "trial_balance",
    "trial_balance_as_of",
    "verify_ledger",
    "whole_history",
]

ledger = Posting(book=DjangoLedgerBook(clock=now, new_id=new_id), new_id=new_id)


def _ours() -> list[tuple[AccountKind, str]]:
    """Our accounts at the providers, as the settings name them."""
    shortcodes = dict.fromkeys(str(code) for code in (settings.MPESA_SHORTCODE, settings.MPESA_B2C_SHORTCODE) if code)
    kinds = (AccountKind.MPESA_WORKING, AccountKind.MPESA_UTILITY, AccountKind.MPESA_CHARGES_PAID)
    agents = [(AccountKind.DERIV_AGENT, str(agent["name"])) for agent in settings.DERIV_AGENTS]
    return [*((kind, shortcode) for shortcode in shortcodes for kind in kinds), *agents]


_explanations: list[Explained] = []


def explain_movements_by(explained: Explained) -> None:
    """Has treasury ask `explained` whose a movement outside is: Transactions are none of the wallet's."""
    _explanations.append(explained)


def _explained(provider: str, account: str, movement: str, amount: Money, at: datetime) -> UUID | None:
    if not _explanations:
        raise RuntimeError("nobody says which movements are customers': treasury can't know that it may book one")
    found = (explained(provider, account, movement, amount, at) for explained in _explanations)
    return next((whose for whose in found if whose is not None), None)


treasury_movements = TreasuryMovements(
    movements=DjangoTreasuryBook(),
    book=ledger.book,
    ours=_ours,
    turnover=fx_turnover,
    explained=_explained,
    audit=DjangoAuditLog(),
    outbox=DjangoOutboxRepository(),
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
)
