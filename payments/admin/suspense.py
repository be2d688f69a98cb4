"""Staff's pages about money that does not agree: what lies in suspense, what two people make of it, and balances."""

from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from payments import models
from payments.facade import Settle, SettlementKind, SettlementStatus, band_of, now, suspense
from shared_kernel.admin import ReadOnlyAdmin, Telling, amount, link, linked, row_url, table
from shared_kernel.api.context import identify
from shared_kernel.domain.errors import NotFound
from shared_kernel.domain.identifiers import TransactionId

PROPOSES, APPROVES = "payments.propose_suspensesettlement", "payments.approve_suspensesettlement"
A_PAGE = 50
PAGE = "admin:payments_suspensesettlement"


class ProposalForm(forms.Form):
    """What one person wants to become of it."""

    kind = forms.ChoiceField()
    transaction = forms.UUIDField(required=False, help_text="matched: the Transaction whose money it was")
    movement = forms.CharField(
        max_length=96,
        required=False,
        help_text="returned, recovered: the provider's own id of the movement that proves it, as its book has it",
    )
    lost = forms.CharField(
        max_length=150, required=False, label="loss", help_text="loss recovered: the name of what was written off"
    )
    why = forms.CharField(max_length=255, help_text="for the audit log; no personal data")

    def __init__(self, *given: Any, came_in: bool, **more: Any) -> None:
        super().__init__(*given, **more)
        kinds = ("matched", "returned", "loss_recovered") if came_in else ("recovered", "written_off")
        self.fields["kind"] = forms.ChoiceField(choices=[(kind, kind.replace("_", " ")) for kind in kinds])


class VerdictForm(forms.Form):
    """What another one says to it."""

    decision = forms.ChoiceField(choices=[("approve", "approve"), ("reject", "reject")])
    why = forms.CharField(max_length=255, required=False, help_text="to reject: for the audit log; no personal data")


@admin.register(models.SuspenseSettlement)
class SuspenseSettlementAdmin(ReadOnlyAdmin):
    """What was proposed to become of money in suspense; beside it, all that lies there. Whoever has the right
    proposes, or decides, on pages of their own, by the commands that check it.
    """

    about = "suspense_settlement"
    list_display = ("at", "kind", "moves", "item", "movement", "of", "by", "status", "decided_by", "decided_at")
    list_filter = ("status",)
    find_by = ("id", "item", "movement", "transaction_id")
    ordering = ("-id",)
    of = linked("transaction", "transaction_id")
    readonly_fields = ("see_also", "moves", "of", "decide", "timeline")
    fields = (
        "id", "see_also", "kind", "status", "decide", "moves", "item", "movement", "proof", "of", "by", "why", "at",
        "decided_by", "decided_at", "timeline",
    )  # fmt: skip

    @admin.display(description="amount", ordering="amount")
    def moves(self, row: models.SuspenseSettlement) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="decide")
    def decide(self, row: models.SuspenseSettlement) -> SafeString:
        """A link to the page, while there is something to decide."""
        if row.status != SettlementStatus.PROPOSED:
            return SafeString("–")
        return link(reverse(f"{PAGE}_decide", args=[row.pk]), "decide")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        lying = link(reverse(f"{PAGE}_lying"), "what lies in suspense")
        return super().changelist_view(request, {"subtitle": lying, **(extra_context or {})})

    def get_urls(self) -> Any:
        wrap = self.admin_site.admin_view
        return [
            path("lying/", wrap(self.lying_view), name="payments_suspensesettlement_lying"),
            path("propose/", wrap(self.propose_view), name="payments_suspensesettlement_propose"),
            path("<uuid:key>/decide/", wrap(self.decide_view), name="payments_suspensesettlement_decide"),
            *super().get_urls(),
        ]

    def lying_view(self, request: HttpRequest) -> HttpResponse:
        """All that lies in suspense, the oldest first, with its age and who answers for it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        after = request.GET.get("after", "0")
        items = suspense.page(after=int(after) if after.isdecimal() else 0, most=A_PAGE)
        rows = table(
            ("since", "age", "amount", "as", "name", "of", "owner", ""),
            (
                (
                    f"{item.booked_at:%Y-%m-%d %H:%M}", band_of(item.booked_at, at=now()), item.amount, item.purpose,
                    item.name, link(row_url(models.Transaction, item.transaction), item.transaction)
                    if item.transaction else "–", item.owner, _next(item),
                )
                for item in items
            ),
        )  # fmt: skip
        more = f"?after={items[-1].seq}" if len(items) == A_PAGE else ""
        return self._page(request, "payments/suspense.html", "What lies in suspense", rows=rows, more=more)

    def propose_view(self, request: HttpRequest) -> HttpResponse:
        """A form, and its command: who is signed in is who proposes."""
        self._must_have(PROPOSES, request)
        try:
            item = suspense.item(request.GET.get("name", ""))
        except NotFound as unknown:
            raise Http404(unknown.detail) from unknown
        form = ProposalForm(request.POST or None, came_in=item.amount.amount > 0)
        if request.method == "POST" and form.is_valid():
            given, who = form.cleaned_data, f"staff:{request.user.pk}"
            identify(request, who)
            of = TransactionId(given["transaction"]) if given["transaction"] else None
            asked = Settle(
                name=item.name, kind=SettlementKind(given["kind"]), by=who, why=given["why"], transaction=of,
                movement=given["movement"], lost=given["lost"],
            )  # fmt: skip
            with Telling(partial(form.add_error, None)):
                return HttpResponseRedirect(row_url(models.SuspenseSettlement, suspense.propose(asked)))
        return self._page(request, "payments/settle_suspense.html", "Settle suspense", item=item, form=form)

    def decide_view(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """The same for whoever approves or rejects."""
        self._must_have(APPROVES, request)
        row = models.SuspenseSettlement.objects.filter(pk=key).first()
        if row is None:
            raise Http404("no such settlement")
        form = VerdictForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            who = f"staff:{request.user.pk}"
            identify(request, who)
            with Telling(partial(form.add_error, None)):
                if form.cleaned_data["decision"] == "approve":
                    if not suspense.approve(key, by=who):
                        messages.warning(request, "It is approved and posted. The Transaction goes on by itself.")
                else:
                    suspense.reject(key, by=who, why=form.cleaned_data["why"])
                return HttpResponseRedirect(row_url(models.SuspenseSettlement, key))
        facts = {"settlement": row, "amount": self.moves(row), "form": form}
        return self._page(request, "payments/settle_suspense.html", "Decide about suspense", **facts)

    def _must_have(self, right: str, request: HttpRequest) -> None:
        user: Any = request.user
        if not user.has_perm(right):
            raise PermissionDenied

    def _page(self, request: HttpRequest, template: str, title: str, **more: Any) -> HttpResponse:
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), "title": title, **more})


def settle_link(name: str) -> SafeString:
    """To the page on which it is proposed what becomes of that."""
    return link(f"{reverse(f'{PAGE}_propose')}?{urlencode({'name': name})}", "settle")


def _next(item: Any) -> SafeString:
    if item.settlement is None:
        return settle_link(item.name)
    return link(row_url(models.SuspenseSettlement, item.settlement), "proposed")


@admin.register(models.ProviderBalance)
class ProviderBalanceAdmin(ReadOnlyAdmin):
    """What the providers said that our accounts hold, look by look."""

    list_display = ("asked_at", "provider", "account", "sub_account", "theirs", "ours", "apart", "in_flight", "as_of")
    list_filter = (("as_of", admin.EmptyFieldListFilter),)
    find_by = ("account", "question")
    ordering = ("-id",)
    fields = ("id", "provider", "account", "sub_account", "asked_at", "as_of", "theirs", "ours", "apart", "in_flight")
    readonly_fields = ("theirs", "ours", "apart", "in_flight")

    @admin.display(description="theirs", ordering="amount")
    def theirs(self, row: models.ProviderBalance) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="ours", ordering="ledger")
    def ours(self, row: models.ProviderBalance) -> str:
        return amount(row.ledger, row.currency)

    @admin.display(description="difference")
    def apart(self, row: models.ProviderBalance) -> str:
        return amount(None if row.amount is None else row.amount - row.ledger, row.currency)

    @admin.display(description="in flight: coming, going")
    def in_flight(self, row: models.ProviderBalance) -> str:
        return f"{amount(row.coming, row.currency)}, {amount(row.going, row.currency)}"


@admin.register(models.BalanceDrift)
class BalanceDriftAdmin(ReadOnlyAdmin):
    """Where a provider and our ledger are, or were, apart by more than what is in flight."""

    about = "balance_drift"
    list_display = (
        "since", "provider", "account", "sub_account", "apart", "rest", "looks", "seen_at", "alerted_at", "over_at",
    )  # fmt: skip
    list_filter = (("over_at", admin.EmptyFieldListFilter),)
    find_by = ("id", "account")
    ordering = ("-id",)
    readonly_fields = ("see_also", "apart", "rest", "timeline")
    fields = (
        "id", "see_also", "provider", "account", "sub_account", "since", "looks", "apart", "rest", "seen_at",
        "alerted_at", "over_at", "timeline",
    )  # fmt: skip

    @admin.display(description="difference", ordering="difference")
    def apart(self, row: models.BalanceDrift) -> str:
        return amount(row.difference, row.currency)

    @admin.display(description="not explained", ordering="unexplained")
    def rest(self, row: models.BalanceDrift) -> str:
        return amount(row.unexplained, row.currency)
