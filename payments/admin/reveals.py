"""Staff's pages of evidence in clear: asking for it, approving what another one asks for, and taking the file, once."""

from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from payments import models
from payments.facade import evidence, evidence_page
from shared_kernel.admin import GivenOnceAdmin, linked
from shared_kernel.domain.identifiers import TransactionId

RIGHT = "payments.reveal_evidence"


@admin.register(models.Reveal)
class RevealAdmin(GivenOnceAdmin):
    """Who asked for evidence in clear, who approved it, and when it was taken."""

    right_to_ask = right_to_approve = RIGHT
    about_column, subject = "transaction_id", "the evidence in clear"
    said = "everything in this Transaction's evidence, with names, phones and accounts in clear; no secret."
    list_display = ("at", "of", "by", "why", "expires_at", "approved_by", "used_at")
    find_by = ("id", "transaction_id")
    ordering = ("-id",)
    of = linked("transaction", "transaction_id")
    readonly_fields = ("of", "decide", "take")
    fields = ("id", "of", "by", "why", "at", "expires_at", "decide", "approved_by", "approved_at", "take", "used_at")

    def ask(self, about: UUID, *, by: str, why: str) -> UUID:
        return evidence.ask(TransactionId(about), by=by, why=why).id

    def approve(self, key: UUID, *, by: str) -> None:
        evidence.approve(key, by=by)

    def given(self, request: HttpRequest, about: UUID, *, by: str) -> HttpResponse:
        made = evidence.reveal(TransactionId(about), by=by)
        return HttpResponse(
            evidence_page.page(made),
            headers={
                "Content-Security-Policy": evidence_page.policy(),
                "Content-Disposition": f'attachment; filename="evidence-{about}-in-clear.html"',
            },
        )
