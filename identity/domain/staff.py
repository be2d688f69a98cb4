"""Who of staff may do what: one table. `migrate` makes the database say the same, no more and no less.

Somebody's rights are those of their groups; none of them lets anybody change a record by hand, for every page of the
back-office only reads, and what a right does opens is a command that checks its own rules. No right, and not that of a
superuser either, makes one person two: who proposes never approves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ALL = "*"

RIGHTS: Mapping[str, tuple[str, str]] = {
    "payments.resolve_reconciliationbreak": ("reconciliationbreak", "Can explain a break, or propose what is posted"),
    "payments.approve_reconciliationbreak": ("reconciliationbreak", "Can approve or reject what is proposed"),
    "payments.propose_suspensesettlement": ("suspensesettlement", "Can propose what becomes of money in suspense"),
    "payments.approve_suspensesettlement": ("suspensesettlement", "Can approve or reject what is proposed about it"),
    "payments.propose_transaction_decision": ("proposal", "Can propose what becomes of a Transaction before a person"),
    "payments.approve_transaction_decision": ("proposal", "Can approve or reject what is proposed about it"),
    "payments.resume_transaction": ("transaction", "Can send a Transaction that waits for a person back to its steps"),
    "payments.hold_transaction": ("transaction", "Can hold a Transaction, and propose that it is released"),
    "payments.release_transaction": ("transaction", "Can approve or reject that a held Transaction is released"),
    "payments.see_evidence": ("transaction", "Can see the evidence of a Transaction, masked"),
    "payments.reveal_evidence": ("transaction", "Can ask for evidence in clear, and approve what others ask for"),
    "wallet.propose_treasurymovement": (
        "treasurymovement",
        "Can propose treasury movements, and tell that they arrived",
    ),
    "wallet.approve_treasurymovement": ("treasurymovement", "Can approve and reject treasury movements"),
    "wallet.see_finance_reports": ("ledgeraccount", "Can see finance's reports, and export them"),
    "identity.ask_totp_removal": ("totpremoval", "Can ask that a customer's lost authenticator is removed"),
    "identity.approve_totp_removal": ("totpremoval", "Can approve that a customer's lost authenticator is removed"),
    "identity.reveal_particulars": (
        "user",
        "Can ask for a customer's particulars in clear, and approve it for others",
    ),
    "identity.see_kyc": ("kycsnapshot", "Can see what customers submitted for their identity check, in clear"),
    "shared_kernel.continue_anchor": (
        "seal",
        "Can propose that a lost anchor is continued, and start it",
    ),
    "shared_kernel.approve_anchor": ("seal", "Can approve that a lost anchor is continued"),
}
"""Rights to do something, beside Django's own to view a table: the model that each belongs to, and what it allows."""


@dataclass(frozen=True)
class StaffGroup:
    """`sees` are tables as `app.model`, or `ALL` of them; `may` are names of `RIGHTS`."""

    sees: frozenset[str]
    may: frozenset[str] = field(default_factory=frozenset)

    def permissions(self, models: Iterable[str]) -> set[str]:
        """All of its permissions, as `app.codename`; `models` are those that `ALL` stands for."""
        seen = self.sees - {ALL} | (set(models) if ALL in self.sees else set())
        return {f"{app}.view_{name}" for app, _, name in (model.partition(".") for model in seen)} | self.may


_CUSTOMERS = {
    "identity.user", "identity.compliance", "identity.device", "identity.session", "identity.derivlogin",
    "payments.transaction", "payments.quote",
}  # fmt: skip
_PROVIDERS = {
    "mpesa_integration.mpesarequest", "mpesa_integration.mpesacallback", "mpesa_integration.mpesabalance",
    "deriv_integration.derivtransfer", "deriv_integration.derivagent",
}  # fmt: skip
_LEDGER = {"wallet.ledgeraccount", "wallet.ledgerbalance", "wallet.ledgerentry"}
_FLOATS = {"payments.floataccount", "payments.floatreservation"}
_RECONCILIATION = {
    "payments.orphanmovement", "payments.suspensesettlement", "payments.reconciliationrun",
    "payments.reconciliationbreak", "payments.providerbalance", "payments.balancedrift",
}  # fmt: skip
_AUDIT = {"shared_kernel.auditlog"}
_OFFICER = _CUSTOMERS | _AUDIT | {
    "identity.kycsnapshot", "identity.particularsreveal", "payments.limitrule", "mpesa_integration.mpesarequest",
    "mpesa_integration.mpesacallback", "deriv_integration.derivtransfer",
}  # fmt: skip

GROUPS: Mapping[str, StaffGroup] = {
    "support": StaffGroup(
        frozenset(
            _CUSTOMERS
            | {"mpesa_integration.mpesarequest", "deriv_integration.derivtransfer", "identity.totpremoval"}
        ),
        frozenset({"identity.ask_totp_removal"}),
    ),
    "compliance officer": StaffGroup(
        frozenset(_OFFICER | {"payments.proposal"}),
        frozenset({"identity.reveal_particulars", "identity.see_kyc", "payments.hold_transaction"}),
    ),
    "compliance manager": StaffGroup(
        frozenset(
            _OFFICER | _LEDGER
            | {"payments.proposal", "payments.reveal", "shared_kernel.anchorcontinuation", "identity.totpremoval"}
        ),
        frozenset(
            {
                "identity.reveal_particulars",
                "identity.see_kyc",
                "identity.approve_totp_removal",
                "payments.approve_transaction_decision",
                "payments.hold_transaction",
                "payments.release_transaction",
                "payments.see_evidence",
                "payments.reveal_evidence",
                "shared_kernel.approve_anchor",
            }
        ),
    ),
    "finance": StaffGroup(
        frozenset(
            _PROVIDERS | _LEDGER | _FLOATS | _RECONCILIATION | _AUDIT
            | {"payments.transaction", "payments.quote", "payments.exchangerate", "payments.limitrule"}
            | {"payments.proposal", "wallet.treasurymovement"}
        ),
        frozenset(
            {
                "payments.resolve_reconciliationbreak",
                "payments.approve_reconciliationbreak",
                "payments.propose_suspensesettlement",
                "payments.approve_suspensesettlement",
                "payments.propose_transaction_decision",
                "payments.approve_transaction_decision",
                "payments.resume_transaction",
                "payments.see_evidence",
                "wallet.propose_treasurymovement",
                "wallet.approve_treasurymovement",
                "wallet.see_finance_reports",
            }
        ),
    ),
    "ops": StaffGroup(
        frozenset(
            _PROVIDERS | _FLOATS | _RECONCILIATION | _AUDIT
            | {"payments.transaction", "payments.quote", "payments.proposal", "mpesa_integration.mpesainitiator"}
            | {"shared_kernel.domainevent", "shared_kernel.anchorcontinuation"}
        ),
        frozenset(
            {
                "payments.propose_transaction_decision",
                "payments.resume_transaction",
                "shared_kernel.continue_anchor",
            }
        ),
    ),
    "auditor": StaffGroup(
        frozenset({ALL, "auth.group"}), frozenset({"payments.see_evidence", "wallet.see_finance_reports"})
    ),
}  # fmt: skip
"""The groups. A right of one's own wants a line in `RIGHTS`, a group that has it, and the check where it is used."""
