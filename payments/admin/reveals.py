"""Staff's pages of evidence in clear: asking for it, approving what another one asks for, and taking the file, once."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments import models
from payments.facade import evidence, evidence_page
from shared_kernel.admin import ConsentAdmin, Telling, linked, row_url
from shared_kernel.api.context import identify
from shared_kernel.domain.identifiers import TransactionId

RIGHT = "payments.reveal_evidence"
PAGE = "payments_reveal"


class AskForm(forms.Form):
    """What whoever approves it has to know."""

    why = forms.CharField(max_length=255, help_text="for who approves it and for the audit log; no personal data")


class TakeForm(forms.Form):
    """Nothing more to say."""


@admin.register(models.Reveal)
class RevealAdmin(ConsentAdmin):
    """Who asked for evidence in clear, who approved it, and when it was taken."""

    right_to_approve = RIGHT
    list_display = ("at", "of", "by", "why", "expires_at", "approved_by", "used_at")
    find_by = ("id", "transaction_id")
    ordering = ("-id",)
    of = linked("transaction", "transaction_id")
    readonly_fields = ("of", "decide", "take")
    fields = ("id", "of", "by", "why", "at", "expires_at", "decide", "approved_by", "approved_at", "take", "used_at")

    def get_urls(self) -> Any:
        view = self.admin_site.admin_view
        return [
            path("ask/<uuid:id>/", view(self.asking), name=f"{PAGE}_ask"),
            path("take/<uuid:id>/", view(self.taking), name=f"{PAGE}_take"),
            *super().get_urls(),
        ]

    def approve(self, key: UUID, *, by: str) -> None:
        evidence.approve(key, by=by)

    @admin.display(description="file")
    def take(self, row: models.Reveal) -> SafeString:
        """A link for who asked, once it is approved and until it was taken."""
        if not row.approved_by or row.used_at:
            return SafeString("–")
        url = reverse(f"admin:{PAGE}_take", args=[row.transaction_id])
        return format_html('<a href="{}">take it</a>: once, by who asked', url)

    def asking(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """`id` is the Transaction's."""

        def ask(by: str, form: forms.Form) -> HttpResponse:
            asked = evidence.ask(TransactionId(id), by=by, why=form.cleaned_data["why"])
            return HttpResponseRedirect(row_url(models.Reveal, asked.id))

        return self._form(request, AskForm, "Ask for evidence in clear", id, ask)

    def taking(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """`id` is the Transaction's."""

        def take(by: str, _: forms.Form) -> HttpResponse:
            made = evidence.reveal(TransactionId(id), by=by)
            headers = {"Content-Security-Policy": evidence_page.policy(), "Cache-Control": "no-store"}
            headers["Content-Disposition"] = f'attachment; filename="evidence-{id}-in-clear.html"'
            return HttpResponse(evidence_page.page(made), headers=headers)

        return self._form(request, TakeForm, "Take the evidence in clear, once", id, take)

    def _form(self, request: HttpRequest, kind: type[forms.Form], title: str, id: UUID, act: Any) -> HttpResponse:
        if not request.user.has_perm(RIGHT):
            raise PermissionDenied
        form = kind(request.POST if request.method == "POST" else None)
        refused: list[str] = []
        if form.is_valid():
            who = f"staff:{request.user.pk}"
            identify(request, who)
            with Telling(refused.append):
                done: HttpResponse = act(who, form)
                return done
        context = {**self.admin_site.each_context(request), "title": title, "form": form, "refused": refused, "id": id}
        return TemplateResponse(request, "payments/reveal.html", context)
