"""Staff's pages about Transactions that stand before a person: what is known, what two people decide, sending on."""

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.safestring import SafeString

from payments import models
from payments.admin.filters import WaitsFilter
from payments.admin.suspense import VerdictForm
from payments.domain.transaction import FINAL
from payments.facade import SAGAS, Case, Decision, Offer, Propose, TransactionStatus, TransactionType, people
from shared_kernel.admin import ReadOnlyAdmin, Telling, amount, link, linked, masked, or_busy, row_url, table
from shared_kernel.api.context import identify
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.identifiers import Phone, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.requests import DerivTransfer, Leg, ProviderRequest

PROPOSES, APPROVES = "payments.propose_transaction_decision", "payments.approve_transaction_decision"
RESUMES = "payments.resume_transaction"
HOLDS, RELEASES = "payments.hold_transaction", "payments.release_transaction"
PAGE = "admin:payments_proposal"
GONE = "this can't be decided any more: look at what stands now, and choose from it"


class ProposalForm(forms.Form):
    """One of what may be decided now, with what shows it."""

    decision = forms.ChoiceField(error_messages={"invalid_choice": GONE})
    reference = forms.CharField(
        max_length=32,
        required=False,
        help_text="took effect: the provider's own id that shows it (M-Pesa's receipt, the entry in the agent's book)",
    )
    amount = forms.DecimalField(
        max_digits=14,
        decimal_places=2,
        min_value=Decimal("0.01"),
        required=False,
        help_text="took effect: what M-Pesa moved, if it was another amount than was asked for",
    )
    why = forms.CharField(max_length=255, help_text="for whoever approves it and for the audit log; no personal data")

    def __init__(self, *given: Any, offers: dict[str, Offer], **more: Any) -> None:
        super().__init__(*given, **more)
        choices = [(key, _named(offer)) for key, offer in offers.items()]
        self.fields["decision"] = forms.ChoiceField(choices=choices, error_messages={"invalid_choice": GONE})
        self.order_fields(["decision", "reference", "amount", "why"])
        effects = [offer.request for offer in offers.values() if offer.decision is Decision.TOOK_EFFECT]
        if not effects:
            del self.fields["reference"]
        if all(isinstance(request, DerivTransfer) for request in effects):
            del self.fields["amount"]


class ReasonForm(forms.Form):
    """What one person may do alone: send it on, or hold it."""

    why = forms.CharField(max_length=255, help_text="for the audit log; no personal data")


@admin.register(models.Proposal)
class ProposalAdmin(ReadOnlyAdmin):
    """What was proposed about Transactions that stand before a person, and what became of it. Whoever has the right
    proposes, decides, or sends on, on pages of their own, by the commands that check it.
    """

    list_display = ("at", "decision", "of", "by", "why", "approved_by", "approved_at", "rejected_by", "rejected_at")
    list_filter = (WaitsFilter,)
    find_by = ("id", "transaction_id")
    ordering = ("-id",)
    of = linked("transaction", "transaction_id")
    readonly_fields = ("of", "moved", "destination", "decide", "told")
    fields = (
        "id", "decision", "of", "decide", "request_id", "moved", "destination", "by", "why", "at", "approved_by",
        "approved_at", "rejected_by", "rejected_at", "told",
    )  # fmt: skip

    @admin.display(description="another amount")
    def moved(self, row: models.Proposal) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="destination, as it was verified")
    def destination(self, row: models.Proposal) -> str:
        return masked(row.phone, keep=4) or masked(row.deriv_account) or "–"

    @admin.display(description="decide")
    def decide(self, row: models.Proposal) -> SafeString:
        """A link to the page, while there is something to decide."""
        if row.approved_at or row.rejected_at:
            return SafeString("–")
        return link(reverse(f"{PAGE}_decide", args=[row.pk]), "approve or reject")

    @admin.display(description="audit log")
    def told(self, row: models.Proposal) -> SafeString:
        """It is told with its Transaction."""
        return link(row_url(models.Transaction, row.transaction_id), "the timeline of its Transaction")

    def get_urls(self) -> Any:
        def wrap(view: Any) -> Any:
            return self.admin_site.admin_view(or_busy(view))

        return [
            path("case/<uuid:id>/", wrap(self.case_view), name="payments_proposal_case"),
            path("case/<uuid:id>/resume/", wrap(self.resume_view), name="payments_proposal_resume"),
            path("case/<uuid:id>/hold/", wrap(self.hold_view), name="payments_proposal_hold"),
            path("<uuid:key>/decide/", wrap(self.decide_view), name="payments_proposal_decide"),
            *super().get_urls(),
        ]

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The audit log knows it as its Transaction's."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = models.Proposal.objects.filter(pk=object_id).first() if _is_id(object_id) else None
        if row is None:
            raise Http404("no such proposal")
        return HttpResponseRedirect(row_url(models.Transaction, row.transaction_id))

    def case_view(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """What stands before a person, with the forms of what whoever looks may do."""
        self._must_have(request, PROPOSES, RESUMES, HOLDS)
        row, case = _case(id)
        offers = _offered(request, case)
        form = ProposalForm(request.POST or None, offers=offers)
        if request.method == "POST":
            if request.POST.get("decision") in {_key(offer) for offer in case.offers} - offers.keys():
                raise PermissionDenied
            if form.is_valid():
                given, offer = form.cleaned_data, offers[form.cleaned_data["decision"]]

                def act(who: str) -> str:
                    command = Propose(
                        transaction_id=case.transaction.id, type=case.transaction.type, decision=offer.decision, by=who,
                        why=given["why"], seen=_seen(request), **_evidence(offer, given),
                    )  # fmt: skip
                    return row_url(models.Proposal, people.propose(command))

                if done := self._act(request, form, act):
                    return done
        return self._show(request, row, case, "Decide about a Transaction", form=form)

    def resume_view(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """Back to where it came from: its own step sends nothing that it would not send by itself."""

        def resume(case: Case, who: str, why: str) -> None:
            saga = SAGAS[case.transaction.type]
            saga.resume(case.transaction.id, why=why)
            saga.drive([id])

        return self._alone(request, id, "resume", RESUMES, resume)

    def hold_view(self, request: HttpRequest, id: UUID) -> HttpResponse:
        """Nothing leaves until two people release it."""

        def hold(case: Case, who: str, why: str) -> None:
            SAGAS[case.transaction.type].hold(case.transaction.id, owner=who, why=why)

        return self._alone(request, id, "hold", HOLDS, hold)

    def _alone(
        self, request: HttpRequest, id: UUID, name: str, right: str, do: Callable[[Case, str, str], None]
    ) -> HttpResponse:
        """What one person does with a reason; `name` is its form on the page."""
        self._must_have(request, right)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row, case = _case(id)
        form, to = ReasonForm(request.POST), row_url(models.Transaction, id)
        if form.is_valid():

            def act(who: str) -> str:
                do(case, who, form.cleaned_data["why"])
                return to

            if done := self._act(request, form, act, otherwise=to):
                return done
        own = ProposalForm(offers=_offered(request, case))
        return self._show(request, row, case, "Decide about a Transaction", form=own, **{name: form})

    def decide_view(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """The same for whoever approves or rejects what was proposed."""
        self._must_have(request, APPROVES, RELEASES)
        proposal = models.Proposal.objects.filter(pk=key).first()
        if proposal is None:
            raise Http404("no such proposal")
        self._must_have(request, RELEASES if proposal.decision == Decision.RELEASE_HOLD else APPROVES)
        row, case = _case(proposal.transaction_id)
        form = VerdictForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data

            def act(who: str) -> str:
                if given["decision"] == "approve":
                    people.approve(key, by=who, seen=_seen(request))
                else:
                    people.reject(key, by=who, why=given["why"])
                return row_url(models.Proposal, key)

            if done := self._act(request, form, act, otherwise=row_url(models.Proposal, key)):
                return done
        told = {"proposal": proposal, "moved": self.moved(proposal), "destination": self.destination(proposal)}
        return self._show(request, row, case, "Approve or reject a decision", form=form, **told)

    def _act(
        self, request: HttpRequest, form: forms.Form, act: Callable[[str], str], otherwise: str = ""
    ) -> HttpResponse | None:
        """Who is signed in is who acts; None where it was refused. What is due after a decision may fail without it:
        that is logged, and tried again by the saga's own timer.
        """
        who = f"staff:{request.user.pk}"
        identify(request, who)
        to = otherwise
        with Telling(partial(form.add_error, None)):
            with suppress(StepsFailed):
                to = act(who)
            return HttpResponseRedirect(to)
        return None

    def _must_have(self, request: HttpRequest, *rights: str) -> None:
        user: Any = request.user
        if not any(user.has_perm(right) for right in rights):
            raise PermissionDenied

    def _show(self, request: HttpRequest, row: models.Transaction, case: Case, title: str, **more: Any) -> HttpResponse:
        user: Any = request.user
        shown = {
            "title": title,
            "row": row,
            "facts": _facts(row, case),
            "attempts": _attempts(case),
            "version": case.transaction.version,
            "waiting": _waiting(row.pk),
            "stands": row.status == TransactionStatus.NEEDS_ATTENTION,
            "offers": _offered(request, case),
            "may_propose": user.has_perm(PROPOSES),
            "may_resume": user.has_perm(RESUMES),
            "may_hold": user.has_perm(HOLDS) and case.transaction.hold is None,
            "resume": ReasonForm(),
            "hold": ReasonForm(),
        }
        context = {**self.admin_site.each_context(request), **shown, **more}
        return TemplateResponse(request, "payments/decide_transaction.html", context)


def case_link(row: models.Transaction) -> SafeString:
    """To the page on which it is decided about, or held, until it has ended; to release it, whatever its status."""
    if row.status in FINAL and not row.held_by:
        return SafeString("–")
    return link(reverse(f"{PAGE}_case", args=[row.pk]), "decide, send on, hold")


def _case(id: UUID) -> tuple[models.Transaction, Case]:
    """The row and the case read after it: whatever changes between shows as a version that was not seen."""
    row = models.Transaction.objects.filter(pk=id).first()
    if row is None:
        raise Http404("no such Transaction")
    return row, people.case(TransactionType(row.type), TransactionId(id))


def _offered(request: HttpRequest, case: Case) -> dict[str, Offer]:
    """What may be decided now and whoever looks may propose, by its key in the form."""
    user: Any = request.user
    rights = {offer: HOLDS if offer.decision is Decision.RELEASE_HOLD else PROPOSES for offer in case.offers}
    return {_key(offer): offer for offer, right in rights.items() if user.has_perm(right)}


def _key(offer: Offer) -> str:
    return f"{offer.decision}:{offer.request.id}" if offer.request else str(offer.decision)


def _named(offer: Offer) -> str:
    """As whoever decides reads it: what, of which attempt, to where."""
    name = str(offer.decision).replace("_", " ")
    if offer.request:
        return f"{name}: {offer.request.leg} {offer.request.attempt}, {offer.request.amount}, {offer.request.status}"
    if offer.to:
        shown = masked(offer.to.number, keep=4) if isinstance(offer.to, Phone) else masked(offer.to.account)
        return f"{name}: {shown}"
    return name


def _seen(request: HttpRequest) -> int:
    """The version on the page that was sent; none that there is, if the page did not say."""
    given = request.POST.get("seen", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 12 else -1


def _evidence(offer: Offer, given: dict[str, Any]) -> dict[str, Any]:
    """What belongs to a verdict; the rest of the form is left alone."""
    if offer.request is None:
        return {}
    if offer.decision is not Decision.TOOK_EFFECT:
        return {"request_id": offer.request.id}
    other = given.get("amount")
    moved = None if other is None else Money.of_decimal(other, offer.request.amount.currency)
    return {"request_id": offer.request.id, "reference": given.get("reference", ""), "amount": moved}


def _facts(row: models.Transaction, case: Case) -> list[tuple[str, Any]]:
    """What is known of it, personal data masked."""
    found = case.transaction
    facts = [
        ("Transaction", link(row_url(models.Transaction, row.pk), row.pk)),
        ("type", found.type),
        ("status", found.status),
        ("why it waits", found.failure_code),
        ("told to the customer", found.failure_detail),
        ("came from", found.attention_from),
        ("sends", found.amount),
        ("gets", found.payout),
        ("received", f"{found.confirmed_at:%Y-%m-%d %H:%M}" if found.confirmed_at else "not proven"),
        ("way out", found.outflow or "none chosen"),
        ("phone", masked(found.phone.number, keep=4)),
        ("Deriv account", f"{masked(found.login.account)} ({found.login.platform})"),
        ("held by", found.hold.owner if found.hold else ""),
        ("unchanged since", f"{found.updated_at:%Y-%m-%d %H:%M}"),
    ]
    return [(name, fact) for name, fact in facts if fact]


def _attempts(case: Case) -> SafeString:
    """Each attempt with what its provider last said of it."""

    def cells(request: ProviderRequest) -> tuple[Any, ...]:
        shown: str = getattr(request, "receipt", "") or getattr(request, "provider_transaction_id", "") or "–"
        times = (f"{at:%Y-%m-%d %H:%M}" if at else "–" for at in (request.outcome_at, request.asked_at))
        made = f"{request.created_at:%Y-%m-%d %H:%M}"
        return made, f"{request.leg} {request.attempt}", request.amount, request.status, request.code, shown, *times

    asked = [r for r in (*case.transaction.payments, *case.transaction.transfers) if r.leg is not Leg.STATUS_QUERY]
    heads = ("made", "attempt", "amount", "status", "the provider's code", "its own id", "answered", "last asked")
    return table(heads, map(cells, sorted(asked, key=lambda request: request.created_at)))


def _waiting(id: UUID) -> SafeString:
    """What is proposed about it and not decided yet."""
    rows = models.Proposal.objects.filter(transaction_id=id, approved_at=None, rejected_at=None).order_by("at")[:20]
    return table(
        ("at", "decision", "by", "why", ""),
        (
            (
                f"{row.at:%Y-%m-%d %H:%M}", row.decision.replace("_", " "), row.by, row.why,
                link(reverse(f"{PAGE}_decide", args=[row.pk]), "approve or reject"),
            )
            for row in rows
        ),
    )  # fmt: skip


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
