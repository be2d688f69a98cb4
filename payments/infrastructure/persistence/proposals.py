"""`proposals` over Django."""

from uuid import UUID

from payments import models
from payments.domain.proposal import Decision, Proposal, ProposalNotFound
from payments.domain.transaction import TransactionType
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import DerivLogin, DerivPlatform


class DjangoProposals:
    """Joins the caller's unit of work."""

    def add(self, proposal: Proposal) -> None:
        amount, login = proposal.amount, proposal.login
        models.Proposal.objects.create(
            id=proposal.id,
            transaction_id=proposal.transaction_id,
            type=proposal.type,
            decision=proposal.decision,
            by=proposal.by,
            why=proposal.why,
            at=proposal.at,
            request_id=proposal.request_id,
            reference=proposal.reference,
            amount=amount.amount if amount else None,
            currency=amount.currency if amount else "",
            phone=proposal.phone.number if proposal.phone else "",
            platform=login.platform if login else "",
            deriv_account=login.account if login else "",
            deriv_currency=login.currency if login else "",
        )

    def get(self, id: UUID) -> Proposal:
        row = models.Proposal.objects.select_for_update().filter(id=id).first()
        if row is None:
            raise ProposalNotFound(f"no proposal {id}")
        return Proposal(
            id=row.id,
            transaction_id=TransactionId(row.transaction_id),
            type=TransactionType(row.type),
            decision=Decision(row.decision),
            by=row.by,
            why=row.why,
            at=row.at,
            request_id=RequestId(row.request_id) if row.request_id else None,
            reference=row.reference,
            amount=Money(row.amount, Currency(row.currency)) if row.amount is not None else None,
            phone=Phone(row.phone) if row.phone else None,
            login=(
                DerivLogin(DerivPlatform(row.platform), row.deriv_account, row.deriv_currency) if row.platform else None
            ),
            approved_by=row.approved_by,
            approved_at=row.approved_at,
            rejected_by=row.rejected_by,
            rejected_at=row.rejected_at,
        )

    def decide(self, proposal: Proposal) -> None:
        models.Proposal.objects.filter(id=proposal.id, approved_by="", rejected_by="").update(
            approved_by=proposal.approved_by,
            approved_at=proposal.approved_at,
            rejected_by=proposal.rejected_by,
            rejected_at=proposal.rejected_at,
        )
