"""Staff's pages of reconciliation: what each run found, and the page on which a person decides about a break."""

from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.safestring import SafeString

from payments import models
from payments.admin.filters import BreakStatusFilter, KindFilter, ProviderFilter
from payments.facade import BreakStatus, Resolution, band_of, breaks, now
from shared_kernel.admin import ReadOnlyAdmin, Telling, amount, link, linked, row_url
from shared_kernel.api.context import identify


@admin.register(models.ReconciliationRun)
class ReconciliationRunAdmin(ReadOnlyAdmin):
    """What each run found."""

    about = "reconciliation_run"
    list_display = (
        "at", "provider", "account", "sub_account", "since", "until", "source", "matched", "missing_here",
        "missing_there", "different_amount", "reverted", "unchecked", "opened", "closed", "still_open", "by",
    )  # fmt: skip
    list_filter = (ProviderFilter,)
    ordering = ("-id",)


RIGHT_TO: dict[str, str] = {
    BreakStatus.OPEN: "payments.resolve_reconciliationbreak",
    BreakStatus.PROPOSED: "payments.approve_reconciliationbreak",
}  # what is decided next


class DecisionForm(forms.Form):
    """What one person makes of a break; `why` stays in the audit log."""

    decision = forms.ChoiceField()
    why = forms.CharField(max_length=255, required=False, help_text="for the audit log; no personal data")

    def __init__(self, *given: Any, choices: list[str], **more: Any) -> None:
        super().__init__(*given, **more)
        self.fields["decision"] = forms.ChoiceField(choices=[(name, name.replace("_", " ")) for name in choices])


@admin.register(models.ReconciliationBreak)
class ReconciliationBreakAdmin(ReadOnlyAdmin):
    """Differences. Whoever has the right decides on a page of its own, by the command that checks it."""

    about = "reconciliation_break"
    list_display = (
        "opened_at", "age", "kind", "provider", "account", "known_as", "in_their_book", "in_ours", "owner", "status",
        "of",
    )  # fmt: skip
    list_filter = (BreakStatusFilter, KindFilter, ProviderFilter)
    find_by = ("id", "known_as", "movement", "transaction_id")
    ordering = ("-id",)
    of = linked("transaction", "transaction_id")
    readonly_fields = ("see_also", "age", "in_their_book", "in_ours", "of", "decide", "timeline")
    fields = (
        "id", "see_also", "kind", "status", "decide", "age", "provider", "account", "sub_account", "known_as",
        "movement", "in_their_book", "in_ours", "of", "at", "opened_at", "owner", "resolution", "resolved_by", "why",
        "resolved_at", "approved_by", "closed_at", "timeline",
    )  # fmt: skip

    @admin.display(description="theirs", ordering="theirs")
    def in_their_book(self, row: models.ReconciliationBreak) -> str:
        return amount(row.theirs, row.currency)

    @admin.display(description="ours", ordering="ours")
    def in_ours(self, row: models.ReconciliationBreak) -> str:
        return amount(row.ours, row.currency)

    @admin.display(description="age", ordering="opened_at")
    def age(self, row: models.ReconciliationBreak) -> str:
        return "closed" if row.closed_at else band_of(row.opened_at, at=now())

    @admin.display(description="decide")
    def decide(self, row: models.ReconciliationBreak) -> SafeString:
        """A link to the page, while there is something to decide."""
        if not _choices(row):
            return SafeString("–")
        return link(reverse("admin:payments_reconciliationbreak_decide", args=[row.pk]), "decide")

    def get_urls(self) -> Any:
        view = self.admin_site.admin_view(self.decide_view)
        return [path("<uuid:key>/decide/", view, name="payments_reconciliationbreak_decide"), *super().get_urls()]

    def decide_view(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """A form, and its command: who is signed in is who decides."""
        row = models.ReconciliationBreak.objects.filter(pk=key).first()
        if row is None or not request.user.has_perm(RIGHT_TO.get(row.status, RIGHT_TO[BreakStatus.OPEN])):
            raise PermissionDenied
        form = DecisionForm(request.POST or None, choices=_choices(row))
        if request.method == "POST" and form.is_valid():
            who = f"staff:{request.user.pk}"
            identify(request, who)
            with Telling(partial(form.add_error, None)):
                _decide(key, form.cleaned_data["decision"], by=who, why=form.cleaned_data["why"])
                return HttpResponseRedirect(row_url(models.ReconciliationBreak, key))
        about = {"break": row, "form": form, "theirs": self.in_their_book(row), "ours": self.in_ours(row)}
        context = {**self.admin_site.each_context(request), "title": "Decide about a break", **about}
        return TemplateResponse(request, "payments/decide_break.html", context)


def _choices(row: models.ReconciliationBreak) -> list[str]:
    """What can be decided about it now."""
    if row.status == BreakStatus.PROPOSED:
        return ["approve", "reject"]
    return [str(resolution) for resolution in Resolution] if row.status == BreakStatus.OPEN else []


def _decide(key: UUID, decision: str, *, by: str, why: str) -> None:
    match decision:
        case "approve":
            breaks.approve(key, by=by)
        case "reject":
            breaks.reject(key, by=by, why=why)
        case _:
            breaks.resolve(key, Resolution(decision), by=by, why=why)
