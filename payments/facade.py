"""Payments, assembled; the only door of this context."""

import json
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from deriv_integration.facade import deriv
from identity.facade import deriv_tokens, payout_sessions, users
from mpesa_integration.facade import mpesa
from payments import models, queries
from payments.application.balances import Balances
from payments.application.breaks import Breaks
from payments.application.deposit import CreateDeposit, DepositSaga
from payments.application.evidence import Evidence
from payments.application.inquiry import Inquiry
from payments.application.people import Case, People, Propose
from payments.application.quotes import CreateQuote, Quotes
from payments.application.reconciliation import Reconciliation
from payments.application.recovery import ExplainedOrphans, Recovery
from payments.application.saga import Timing
from payments.application.suspense import Settle, Suspense
from payments.application.treasury import Treasury
from payments.application.withdrawal import CreateWithdrawal, RequestCode, WithdrawalSaga
from payments.domain.eligibility import OwnVerifiedPhone
from payments.domain.limits import Limits
from payments.domain.orphan import Provider
from payments.domain.proposal import Decision, Offer
from payments.domain.reconciliation import (
    BANDS,
    BreakKind,
    BreakStatus,
    FloatAccountKind,
    Report,
    Resolution,
    Result,
    band_of,
)
from payments.domain.reveal import Reveal
from payments.domain.suspense import SettlementKind, SettlementStatus, SuspenseItem
from payments.domain.transaction import Transaction, TransactionStatus, TransactionType
from payments.infrastructure import evidence_page
from payments.infrastructure.evidence import DjangoArchive
from payments.infrastructure.persistence.balances import DjangoBalanceBook
from payments.infrastructure.persistence.limits import DjangoLimitBook
from payments.infrastructure.persistence.orphans import DjangoOrphanBook
from payments.infrastructure.persistence.proposals import DjangoProposals
from payments.infrastructure.persistence.quotes import DjangoQuoteBook
from payments.infrastructure.persistence.reconciliation import DjangoBreakBook, LedgerLegs
from payments.infrastructure.persistence.reservations import DjangoFloatReservations
from payments.infrastructure.persistence.suspense import DjangoSuspenseBook
from payments.infrastructure.persistence.transactions import DjangoTransactionRepository, to_row
from payments.infrastructure.rates import RateTable
from payments.infrastructure.statements import read_statement
from payments.infrastructure.verification import verify_statuses
from shared_kernel.facade import budgets
from shared_kernel.infrastructure.consents import DjangoConsents
from shared_kernel.infrastructure.coordination import ThreadsSideBySide
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import (
    DjangoAuditLog,
    DjangoIdempotencyKeys,
    DjangoOutboxRepository,
    new_id,
    now,
    unit_of_work,
)
from wallet.facade import (
    deriv_agent,
    fx_turnover,
    ledger,
    mpesa_charges_paid,
    mpesa_utility,
    mpesa_working,
    orphans_settled,
)

FLOAT_ACCOUNTS = {
    FloatAccountKind.MPESA_WORKING: mpesa_working,
    FloatAccountKind.MPESA_UTILITY: mpesa_utility,
    FloatAccountKind.MPESA_CHARGES_PAID: mpesa_charges_paid,
    FloatAccountKind.DERIV_AGENT: deriv_agent,
}

audit = DjangoAuditLog()
transactions = DjangoTransactionRepository(DjangoOutboxRepository(), audit)
limits = Limits(DjangoLimitBook(), settings.RATE_LIMITS)
timing = replace(Timing(), scale=settings.SAGA_TIME_SCALE, login_fresh_s=settings.DERIV_CHECK_FRESH_S)
rates = RateTable(audit, unit_of_work)
quotes = Quotes(
    book=DjangoQuoteBook(),
    rates=rates,
    limits=limits,
    users=users,
    unit_of_work=unit_of_work,
    ttl=timedelta(seconds=settings.QUOTE_TTL_S),
    lock=timedelta(seconds=settings.RATE_LOCK_S),
)
suspense_book = DjangoSuspenseBook()
deposits = DepositSaga(
    lies_in_suspense=lambda name: bool(suspense_book.items([name])),
    was_returned=suspense_book.was_returned,
    transactions=transactions,
    quotes=quotes,
    limits=limits,
    users=users,
    mpesa=mpesa,
    deriv=deriv,
    ledger=ledger,
    reservations=DjangoFloatReservations(ledger),
    keys=DjangoIdempotencyKeys(),
    audit=audit,
    unit_of_work=unit_of_work,
    side_by_side=ThreadsSideBySide(max_workers=settings.CALLS_SIDE_BY_SIDE),
    clock=now,
    timing=timing,
    budgets=budgets,
    **({"crash_point": import_string(settings.CRASH_POINT)} if settings.CRASH_POINT else {}),
)
withdrawals = WithdrawalSaga(
    transactions=transactions,
    quotes=quotes,
    limits=limits,
    rates=rates,
    policy=OwnVerifiedPhone(),
    sessions=payout_sessions,
    codes=deriv,
    keep_fresh=deriv_tokens.keep_fresh,
    token_refused=deriv_tokens.refused,
    users=users,
    mpesa=mpesa,
    deriv=deriv,
    ledger=ledger,
    reservations=DjangoFloatReservations(ledger),
    keys=DjangoIdempotencyKeys(),
    audit=audit,
    payout_account=lambda: f"mpesa:{settings.MPESA_B2C_SHORTCODE}",
    unit_of_work=unit_of_work,
    side_by_side=deposits.side_by_side,
    clock=now,
    timing=timing,
    budgets=budgets,
    crash_point=deposits.crash_point,
)
SAGAS: dict[TransactionType, DepositSaga | WithdrawalSaga] = {
    TransactionType.DEPOSIT: deposits,
    TransactionType.WITHDRAWAL: withdrawals,
}
recovery = Recovery(
    mpesa=mpesa,
    deriv=deriv,
    sagas=(deposits, withdrawals),
    orphans=DjangoOrphanBook(),
    ledger=ledger,
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
    shortcodes=lambda: [str(settings.MPESA_SHORTCODE)],
    settles_in=timing.of(timing.settles_s),
)
explained_orphans = ExplainedOrphans(recovery.orphans, orphans_settled, audit, unit_of_work, now)
reconciliation = Reconciliation(
    mpesa=mpesa,
    deriv=deriv,
    legs=LedgerLegs(mpesa.behind),
    breaks=DjangoBreakBook(),
    deposits=deposits,
    withdrawals=withdrawals,
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
    paid_to=lambda: str(settings.MPESA_SHORTCODE),
    shortcodes=lambda: [str(settings.MPESA_SHORTCODE), str(settings.MPESA_B2C_SHORTCODE)],
    settles_in=timing.of(timing.settles_s),
)
breaks = Breaks(
    breaks=reconciliation.breaks,
    mpesa=mpesa,
    deriv=deriv,
    orphans=recovery.orphans,
    ledger=ledger,
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
    was_settled=suspense_book.was_settled,
)
suspense = Suspense(
    book=suspense_book,
    breaks=breaks,
    sagas=SAGAS,
    accounts=reconciliation.accounts,
    ledger=ledger,
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
)
balances = Balances(
    mpesa=mpesa,
    deriv=deriv,
    held=lambda kind, owner: ledger.balance(FLOAT_ACCOUNTS[kind](owner)).amount,
    book=DjangoBalanceBook(),
    audit=audit,
    budgets=budgets,
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
    shortcodes=reconciliation.shortcodes,
)
people = People(
    sagas=SAGAS,
    proposals=DjangoProposals(),
    users=users,
    policy=withdrawals.policy,
    audit=audit,
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
)
inquiry = Inquiry(mpesa, deriv, unit_of_work)
treasury = Treasury(turnover=fx_turnover, rates=rates)
evidence = Evidence(
    archive=DjangoArchive(),
    reveals=DjangoConsents(models.Reveal, Reveal),
    audit=audit,
    fingerprint=lambda text: "keyed:" + blind_index("evidence.message", text),
    bare=lambda text: "sha256:" + sha256(text.encode()).hexdigest(),
    unit_of_work=unit_of_work,
    clock=now,
    new_id=new_id,
)


def first_answer(transaction: Transaction) -> str:
    """What the client is told, and told again, when a command is accepted: the `transaction` in JSON."""
    timeline: list[dict[str, Any]] = [{"status": t.after, "at": t.at} for t in transaction.transitions]
    return json.dumps({"transaction": queries.transaction_json(to_row(transaction), timeline)})


__all__ = [
    "BANDS",
    "SAGAS",
    "BreakKind",
    "BreakStatus",
    "Case",
    "CreateDeposit",
    "CreateQuote",
    "CreateWithdrawal",
    "Decision",
    "Offer",
    "Propose",
    "Provider",
    "Report",
    "RequestCode",
    "Resolution",
    "Result",
    "Settle",
    "SettlementKind",
    "SettlementStatus",
    "SuspenseItem",
    "TransactionStatus",
    "TransactionType",
    "balances",
    "band_of",
    "breaks",
    "deposits",
    "evidence",
    "evidence_page",
    "explained_orphans",
    "first_answer",
    "inquiry",
    "limits",
    "new_id",
    "now",
    "people",
    "queries",
    "quotes",
    "rates",
    "read_statement",
    "reconciliation",
    "recovery",
    "suspense",
    "transactions",
    "treasury",
    "users",
    "verify_statuses",
    "withdrawals",
]
