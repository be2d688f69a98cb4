"""Treasury's pages: movements are proposed, approved, and seen to arrive, by whoever is signed in and has the right.

The use cases check everything; being a superuser gives rights, but not the right to approve one's own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from shared_kernel.admin import ReadOnlyAdmin, Telling, amount, link, linked, row_url, table
from shared_kernel.api.context import identify
from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import now
from wallet import models
from wallet.facade import ProposeMovement, TreasuryKind, TreasuryStatus, cash_in_transit, treasury_movements

PROPOSES, APPROVES = "wallet.propose_treasurymovement", "wallet.approve_treasurymovement"
WHY = "for whoever approves it and for the audit log; no personal data"


class DayInput(forms.DateInput):
    """A day as browsers let it be chosen."""

    input_type = "date"


class ProposalForm(forms.Form):
    """A treasury movement; what its kind leaves no choice of is left out."""

    kind = forms.ChoiceField(choices=[(str(k), str(k).replace("_", " ")) for k in TreasuryKind if k != "reversal"])
    amount = forms.DecimalField(max_digits=15, decimal_places=2)
    currency = forms.ChoiceField(choices=[(str(c), str(c)) for c in Currency])
    source = forms.ChoiceField(label="from", required=False)
    target = forms.ChoiceField(label="to", required=False)
    customer = forms.UUIDField(required=False, help_text="whose receivable it is: the user's id")
    got = forms.DecimalField(
        max_digits=15,
        decimal_places=2,
        required=False,
        help_text="an FX close-out: what it gets, in the other currency",
    )
    reference = forms.CharField(
        max_length=64, help_text="M-Pesa's receipt, Deriv's transaction id, or the bank's reference, where it leaves"
    )
    day = forms.DateField(widget=DayInput, help_text="on which it was booked there, in Kenya")
    why = forms.CharField(max_length=255, help_text=WHY)

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        names = [("", "as the kind says"), *((name, name) for name in treasury_movements.accounts())]
        for side in ("source", "target"):
            self.fields[side] = forms.ChoiceField(label=self.fields[side].label, choices=names, required=False)

    def command(self) -> ProposeMovement:
        """Of what was filled in."""
        given = self.cleaned_data
        currency = Currency(given["currency"])
        other = next(one for one in Currency if one is not currency)
        owed = f"customer_receivable:{given['customer']}" if given["customer"] else ""
        return ProposeMovement(
            kind=TreasuryKind(given["kind"]), amount=Money.of_decimal(given["amount"], currency),
            got=Money.of_decimal(given["got"], other) if given["got"] is not None else None,
            source=owed or given["source"], target=given["target"], reference=given["reference"], day=given["day"],
            why=given["why"],
        )  # fmt: skip


class Acting(forms.Form):
    """What somebody does about one movement; `needs` is one of these permissions."""

    statuses: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[tuple[str, ...]] = (PROPOSES,)

    def act(self, row: models.TreasuryMovement, by: str) -> None:
        """Calls the use case. Raises its errors."""
        raise NotImplementedError


class Adopt(Acting):
    """A draft becomes one's own proposal."""

    statuses = frozenset({"draft"})

    def act(self, row: models.TreasuryMovement, by: str) -> None:
        treasury_movements.adopt(row.pk, by=by)


class Approve(Acting):
    """It is posted."""

    statuses = frozenset({"proposed", "arriving"})
    needs = (APPROVES,)
    as_seen = forms.CharField(max_length=1000, widget=forms.HiddenInput)

    def act(self, row: models.TreasuryMovement, by: str) -> None:
        treasury_movements.approve(row.pk, by=by, as_seen=self.cleaned_data["as_seen"])


class Reject(Acting):
    """It is turned down; one's own as well."""

    statuses = frozenset({"draft", "proposed", "arriving"})
    needs = (APPROVES, PROPOSES)
    why = forms.CharField(max_length=255, required=False, help_text=WHY)

    def act(self, row: models.TreasuryMovement, by: str) -> None:
        treasury_movements.reject(row.pk, by=by, why=self.cleaned_data["why"])


class Arrived(Acting):
    """It was seen on the other side."""

    statuses = frozenset({"in_transit"})
    reference = forms.CharField(max_length=64, help_text="where it arrived: receipt, transaction id, bank's reference")
    day = forms.DateField(widget=DayInput, help_text="on which it was booked there, in Kenya")
    arrived = forms.DecimalField(max_digits=15, decimal_places=2)
    charge = forms.DecimalField(max_digits=15, decimal_places=2, initial=0, help_text="kept on the way")
    lost = forms.DecimalField(
        max_digits=15,
        decimal_places=2,
        required=False,
        help_text="will never arrive: a loss. If that is all of it, nothing arrived, and the reference is the document"
        " that says so. What turns up after all: have the movement reversed, and propose it anew",
    )

    def act(self, row: models.TreasuryMovement, by: str) -> None:
        given, currency = self.cleaned_data, Currency(row.got_currency or row.currency)
        treasury_movements.arrive(
            row.pk, reference=given["reference"], day=given["day"], by=by,
            arrived=Money.of_decimal(given["arrived"], currency), charge=Money.of_decimal(given["charge"], currency),
            lost=Money.of_decimal(given["lost"], Currency(row.currency)) if given["lost"] else None,
        )  # fmt: skip


class Reverse(Acting):
    """A proposal that takes it back as a whole."""

    statuses = frozenset({"posted", "in_transit", "arrived"})
    why = forms.CharField(max_length=255, required=False, help_text=WHY)

    def act(self, row: models.TreasuryMovement, by: str) -> None:
        treasury_movements.propose_reversal(row.pk, by=by, why=self.cleaned_data["why"])


ACTIONS: dict[str, type[Acting]] = {
    "adopt": Adopt, "approve": Approve, "reject": Reject, "arrived": Arrived, "reverse": Reverse,
}  # fmt: skip


class TreasuryStatusFilter(admin.SimpleListFilter):
    """By status, without reading the table for the values."""

    title = parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(status), str(status).replace("_", " ")) for status in TreasuryStatus]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(status=self.value()) if self.value() else queryset


@admin.register(models.TreasuryMovement)
class TreasuryMovementAdmin(ReadOnlyAdmin):
    """The house's own money, from proposal to arrival; what is in transit with its age."""

    about = "treasury_movement"
    list_display = (
        "id", "at", "kind", "status", "days", "money", "gets", "source", "target", "reference", "day", "by",
        "approved_by",
    )  # fmt: skip
    list_filter = (TreasuryStatusFilter,)
    find_by = ("id", "reference", "arrival_reference", "reverses")
    ordering = ("-id",)
    taken_back = linked("treasury_movement", "reverses")
    readonly_fields = ("see_also", "do", "days", "money", "gets", "rate", "kept", "gone", "source", "target",
                       "posted", "taken_back", "timeline")  # fmt: skip
    fields = (
        "id", "see_also", "kind", "status", "do", "days", "money", "gets", "rate", "source", "target", "reference",
        "day", "why", "taken_back", "drafted_by", "at", "by", "approved_by", "approved_at", "arrival_reference",
        "arrival_day", "kept", "gone", "arrival_by", "arrival_approved_by", "closed_by", "closed_why", "closed_at",
        "posted", "timeline",
    )  # fmt: skip

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        told = " · ".join(f"in transit: {amount(row.ledger, row.currency)}" for row in cash_in_transit())
        return super().changelist_view(request, {"subtitle": told, **(extra_context or {})})

    @admin.display(description="amount", ordering="amount")
    def money(self, row: models.TreasuryMovement) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="gets", ordering="got")
    def gets(self, row: models.TreasuryMovement) -> str:
        return amount(row.got, row.got_currency)

    @admin.display(description="KES for one USD")
    def rate(self, row: models.TreasuryMovement) -> str:
        if row.got is None:
            return "–"
        shillings, dollars = (row.amount, row.got) if row.currency == Currency.KES else (row.got, row.amount)
        return f"{shillings / dollars:.4f}"

    @admin.display(description="kept on the way", ordering="charge")
    def kept(self, row: models.TreasuryMovement) -> str:
        return amount(row.charge, row.currency) if row.charge else "–"

    @admin.display(description="lost on the way", ordering="lost")
    def gone(self, row: models.TreasuryMovement) -> str:
        return amount(row.lost, row.currency) if row.lost else "–"

    @admin.display(description="from", ordering="source_kind")
    def source(self, row: models.TreasuryMovement) -> str:
        return f"{row.source_kind} {row.source_owner}".strip()

    @admin.display(description="to", ordering="target_kind")
    def target(self, row: models.TreasuryMovement) -> str:
        return f"{row.target_kind} {row.target_owner}".strip()

    @admin.display(description="days waiting", ordering="at")
    def days(self, row: models.TreasuryMovement) -> str:
        """Since it was sent, or proposed; of what is at its end none."""
        return "–" if row.status not in OPEN_STATUSES else str((now() - (row.approved_at or row.at)).days)

    @admin.display(description="entries")
    def posted(self, row: models.TreasuryMovement) -> SafeString:
        """What each of its legs posted."""
        references = [f"treasury:{row.pk}:{leg}:{number}" for leg in LEGS for number in range(1, MOST_ENTRIES + 1)]
        entries = models.LedgerEntry.objects.select_related("debit_account", "credit_account")
        return table(
            ("entry", "debit", "credit", "amount", "provider key"),
            (
                (
                    link(row_url(models.LedgerEntry, entry.pk), entry.purpose), entry.debit_account,
                    entry.credit_account, amount(entry.amount, entry.currency), entry.provider_key or "–",
                )
                for entry in entries.filter(reference__in=references).order_by("seq")
            ),
        )  # fmt: skip

    @admin.display(description="decide")
    def do(self, row: models.TreasuryMovement) -> SafeString:
        """Links to what can be done about it; who may not is refused there."""
        return format_html_join(
            " · ",
            '<a href="{}">{}</a>',
            ((_page(row.pk, name), name) for name, form in ACTIONS.items() if _is_possible(row, name, form)),
        )

    def get_urls(self) -> Any:
        """With the pages on which movements are proposed and decided about."""
        propose, act = self.admin_site.admin_view(self.propose_view), self.admin_site.admin_view(self.act_view)
        return [
            path("propose/", propose, name="wallet_treasurymovement_propose"),
            *(path(f"<uuid:key>/{name}/", act, {"action": name}, _name(name)) for name in ACTIONS),
            *super().get_urls(),
        ]

    def propose_view(self, request: HttpRequest) -> HttpResponse:
        """A form, and its command."""
        _must_have(request, (PROPOSES,))
        form = ProposalForm(request.POST if request.method == "POST" else None)

        def propose(by: str) -> UUID:
            return treasury_movements.propose(form.command(), by=by).id

        return self._decided(request, form, propose, "Propose a treasury movement", "Propose", dict)

    def act_view(self, request: HttpRequest, key: UUID, action: str) -> HttpResponse:
        """One of `ACTIONS` on one movement, with what it would post."""
        kind = ACTIONS[action]
        _must_have(request, kind.needs)
        row = models.TreasuryMovement.objects.filter(pk=key).first()
        if row is None:
            raise Http404("no such treasury movement")
        form = kind(request.POST) if request.method == "POST" else kind()

        def act(by: str) -> UUID:
            form.act(row, by)
            return key

        def shown() -> dict[str, Any]:
            form.initial["as_seen"], lines, refused = _preview(key)
            return {"movement": row, "facts": self._facts(row), "lines": lines, "refused": refused}

        return self._decided(request, form, act, f"{action.capitalize()}: {row.kind}", action.capitalize(), shown)

    def _decided(
        self,
        request: HttpRequest,
        form: forms.Form,
        act: Callable[[str], UUID],
        title: str,
        verb: str,
        shown: Callable[[], dict[str, Any]],
    ) -> HttpResponse:
        """What was asked is done; else, or where it is refused, the page: only that reads what `shown` gives."""
        if request.method == "POST" and form.is_valid():
            who = f"staff:{request.user.pk}"
            identify(request, who)
            with Telling(partial(form.add_error, None)):
                return HttpResponseRedirect(row_url(models.TreasuryMovement, act(who)))
        context = {**self.admin_site.each_context(request), "title": title, "form": form, "verb": verb, **shown()}
        return TemplateResponse(request, "wallet/treasury.html", context)

    def _facts(self, row: models.TreasuryMovement) -> list[tuple[str, Any]]:
        facts = [
            ("kind", row.kind), ("status", row.status), ("amount", self.money(row)), ("gets", self.gets(row)),
            ("KES for one USD", self.rate(row)), ("from", self.source(row)), ("to", self.target(row)),
            ("shown by", f"{row.reference}, {row.day}"), ("why", row.why), ("proposed by", row.by or row.drafted_by),
            ("approved by", row.approved_by), ("arrived by", row.arrival_reference), ("arrived on", row.arrival_day),
            ("kept on the way", self.kept(row)), ("lost on the way", self.gone(row)), ("seen by", row.arrival_by),
        ]  # fmt: skip
        return [(name, value) for name, value in facts if value not in {None, "", "–"}]


OPEN_STATUSES = ("draft", "proposed", "in_transit", "arriving")
LEGS, MOST_ENTRIES = ("whole", "sent", "arrived"), 12  # of a reversal as many as of what it reverses


def _preview(key: UUID) -> tuple[str, list[tuple[Any, ...]], str]:
    """How it looks; debit, credit, amount of what an approval would post; or why it would be refused today."""
    refused: list[str] = []
    with Telling(refused.append):
        as_seen, entries = treasury_movements.preview(key)
        return as_seen, [(entry.debit, entry.credit, entry.amount) for entry in entries], ""
    return "", [], refused[0]


def _name(action: str) -> str:
    return f"wallet_treasurymovement_{action}"


def _page(key: UUID, action: str) -> str:
    return reverse(f"admin:{_name(action)}", args=[key])


def _is_possible(row: models.TreasuryMovement, name: str, form: type[Acting]) -> bool:
    return row.status in form.statuses and not (name == "reverse" and row.reverses)


def _must_have(request: HttpRequest, permissions: tuple[str, ...]) -> None:
    """One of them. Raises `PermissionDenied`."""
    user: Any = request.user
    if not any(user.has_perm(permission) for permission in permissions):
        raise PermissionDenied
