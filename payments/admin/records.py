"""Staff's pages of payments: Transactions with all that is theirs, rates, limits, floats, money in suspense."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments import models
from payments.admin.decisions import case_link
from payments.admin.filters import (
    AgeFilter,
    AttentionAgeFilter,
    ProviderFilter,
    ReasonFilter,
    StatusFilter,
    TypeFilter,
)
from payments.admin.suspense import settle_link
from payments.domain.transaction import TransactionNotFound
from payments.facade import BANDS, band_of, evidence, evidence_page, now, queries
from shared_kernel.admin import ReadOnlyAdmin, amount, link, linked, masked, row_url
from shared_kernel.api.context import identify
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.facade import current_context


@admin.register(models.Transaction)
class TransactionAdmin(ReadOnlyAdmin):
    """One payment: what was asked and promised, what the providers were asked, what was posted, and every step."""

    about = "transaction"
    elsewhere = {
        "M-Pesa requests": ("mpesa_integration_mpesarequest", "transaction_id"),
        "Deriv transfers": ("deriv_integration_derivtransfer", "transaction_id"),
        "ledger entries": ("wallet_ledgerentry", "transaction_id"),
        "events": ("shared_kernel_domainevent", "aggregate_id"),
        "float reservation": ("payments_floatreservation", "transaction_id"),
        "decisions": ("payments_proposal", "transaction_id"),
    }
    list_display = (
        "id", "created_at", "type", "status", "failure_code", "sends", "gets", "customer", "next_step_at", "attempts",
        "updated_at",
    )  # fmt: skip
    list_filter = (StatusFilter, ReasonFilter, AttentionAgeFilter, TypeFilter)
    find_by = ("id", "user_id", "quote_id", "deriv_transfer_id")
    ordering = ("-id",)
    customer = linked("user", "user_id")
    quote = linked("quote", "quote_id")
    readonly_fields = (
        "see_also", "decide", "story", "sends", "gets", "customer", "quote", "masked_phone", "masked_account",
        "timeline", "events",
    )  # fmt: skip
    fieldsets = (
        (
            None,
            {"fields": ("id", "type", "status", "decide", "see_also", "story", "customer", "quote", "sends", "gets")},
        ),
        ("Rate", {"fields": ("mid", "rate", "rate_source", "rate_locked_at", "rate_expires_at")}),
        (
            "Destination",
            {"fields": ("masked_phone", "platform", "masked_account", "deriv_currency", "agent", "deriv_transfer_id")},
        ),
        (
            "Progress",
            {
                "fields": (
                    "created_at", "login_checked_at", "confirmed_at", "expected_by", "updated_at", "next_step_at",
                    "leased_until", "attempts", "priority", "failure_code", "failure_detail", "attention_from",
                    "step_version", "version",
                )
            },
        ),
        ("Timeline", {"fields": ("timeline",)}),
        ("Events", {"fields": ("events",)}),
    )  # fmt: skip

    def get_urls(self) -> Any:
        """With the evidence of one Transaction, to look at and to take along."""
        own, name = "<uuid:id>/evidence/", "payments_transaction_evidence"
        return [
            path(own, self.admin_site.admin_view(self.told), name=name),
            path(f"{own}download/", self.admin_site.admin_view(self.told), {"download": True}, f"{name}_download"),
            *super().get_urls(),
        ]

    def told(self, request: HttpRequest, id: UUID, download: bool = False) -> HttpResponse:
        """The whole story in one page, personal data masked; each look leaves an audit row."""
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not request.user.has_perm("payments.see_evidence"):
            raise PermissionDenied
        identify(request, f"staff:{request.user.pk}")
        try:
            made = evidence.tell(TransactionId(id), by=current_context().actor)
        except TransactionNotFound as unknown:
            raise Http404(str(unknown)) from unknown
        except DomainError as too_long:  # more than one file tells
            return HttpResponse(str(too_long), status=422, content_type="text/plain")
        headers = {"Content-Security-Policy": evidence_page.policy(), "Cache-Control": "no-store"}
        if download:
            headers["Content-Disposition"] = f'attachment; filename="evidence-{id}.html"'
        return HttpResponse(evidence_page.page(made), headers=headers)

    @admin.display(description="decide")
    def decide(self, row: models.Transaction) -> SafeString:
        """A link to the page, while it stands before a person."""
        return case_link(row)

    @admin.display(description="evidence")
    def story(self, row: models.Transaction) -> SafeString:
        """Links to its evidence; who may not see it is refused there."""
        look, take = (reverse(f"admin:payments_transaction_evidence{end}", args=[row.pk]) for end in ("", "_download"))
        ask = reverse("admin:payments_reveal_ask", args=[row.pk])
        links = (
            '<a href="{}">look</a> · <a href="{}">download</a> · <a href="{}">ask for it in clear</a>; all is audited'
        )
        return format_html(links, look, take, ask)

    @admin.display(description="sends", ordering="amount")
    def sends(self, row: models.Transaction) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="gets", ordering="payout_amount")
    def gets(self, row: models.Transaction) -> str:
        return amount(row.payout_amount, row.payout_currency)

    @admin.display(description="phone")
    def masked_phone(self, row: models.Transaction) -> str:
        return masked(row.phone, keep=4)

    @admin.display(description="Deriv account")
    def masked_account(self, row: models.Transaction) -> str:
        return masked(row.deriv_account)


@admin.register(models.Quote)
class QuoteAdmin(ReadOnlyAdmin):
    """What was offered, and the Transaction that took it."""

    about = "quote"
    list_display = ("id", "type", "sends", "gets", "rate", "customer", "created_at", "expires_at", "transaction")
    list_filter = (TypeFilter,)
    find_by = ("id", "user_id", "transaction_id")
    ordering = ("-id",)
    customer = linked("user", "user_id")
    transaction = linked("transaction", "transaction_id")
    fields = (
        "id", "type", "customer", "transaction", "sends", "gets", "mid", "rate", "rate_source", "created_at",
        "expires_at",
    )  # fmt: skip
    readonly_fields = ("customer", "transaction", "sends", "gets")

    @admin.display(description="sends", ordering="send_amount")
    def sends(self, row: models.Quote) -> str:
        return amount(row.send_amount, row.send_currency)

    @admin.display(description="gets", ordering="get_amount")
    def gets(self, row: models.Quote) -> str:
        return amount(row.get_amount, row.get_currency)


@admin.register(models.ExchangeRate)
class ExchangeRateAdmin(ReadOnlyAdmin):
    """The rate table."""

    about = "exchange_rate"
    list_display = ("id", "mid", "margin_bps", "valid_from", "valid_until", "set_by", "approved_by")
    ordering = ("-valid_from",)


@admin.register(models.LimitRule)
class LimitRuleAdmin(ReadOnlyAdmin):
    """The limits and since when each counts; amounts as people read them."""

    about = "limit_rule"
    list_display = ("id", "subject", "currency", "least", "most", "day", "month", "valid_from")
    find_by = ("subject",)
    ordering = ("subject", "-valid_from")
    fields = ("id", "subject", "currency", "least", "most", "day", "month", "valid_from")
    readonly_fields = ("least", "most", "day", "month")

    @admin.display(description="minimum", ordering="minimum")
    def least(self, row: models.LimitRule) -> str:
        return amount(row.minimum, row.currency)

    @admin.display(description="maximum", ordering="maximum")
    def most(self, row: models.LimitRule) -> str:
        return amount(row.maximum, row.currency)

    @admin.display(description="per day", ordering="per_day")
    def day(self, row: models.LimitRule) -> str:
        return amount(row.per_day, row.currency)

    @admin.display(description="per month", ordering="per_month")
    def month(self, row: models.LimitRule) -> str:
        return amount(row.per_month, row.currency)


@admin.register(models.FloatAccount)
class FloatAccountAdmin(ReadOnlyAdmin):
    """What is promised from each provider account, in minor units."""

    about = "float_account"
    elsewhere = {"reservations": ("payments_floatreservation", "account")}
    list_display = ("account", "reserved")
    fields = ("account", "reserved", "see_also")
    readonly_fields = ("see_also",)


@admin.register(models.FloatReservation)
class FloatReservationAdmin(ReadOnlyAdmin):
    """Money promised to one Transaction, in minor units of the account."""

    list_display = ("created_at", "transaction", "float_account", "amount", "released_at")
    find_by = ("transaction_id",)
    ordering = ("-transaction_id",)
    transaction = linked("transaction", "transaction_id")
    fields = ("transaction", "float_account", "amount", "created_at", "released_at")
    readonly_fields = ("transaction", "float_account")

    @admin.display(description="account", ordering="account")
    def float_account(self, row: models.FloatReservation) -> SafeString:
        return link(row_url(models.FloatAccount, row.account), row.account)


@admin.register(models.OrphanMovement)
class OrphanMovementAdmin(ReadOnlyAdmin):
    """Money in suspense, and how long it has been lying there."""

    about = "orphan"
    list_display = (
        "found_at",
        "age",
        "provider",
        "account",
        "movement",
        "moved",
        "owner",
        "of",
        "settled_at",
        "settle",
    )
    list_filter = (ProviderFilter, AgeFilter, ("settled_at", admin.EmptyFieldListFilter))
    find_by = ("movement", "transaction_id")
    ordering = ("-id",)
    of = linked("transaction", "transaction_id")
    fields = (
        "id", "see_also", "provider", "account", "movement", "moved", "moved_at", "found_at", "age", "owner", "of",
        "settled_at", "settle",
    )  # fmt: skip
    readonly_fields = ("see_also", "age", "moved", "of", "settle")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        bands = queries.suspense_by_age(now(), BANDS)
        told = " · ".join(f"{name}: {count} ({amount(sum, currency)})" for name, currency, count, sum in bands)
        return super().changelist_view(request, {"subtitle": told, **(extra_context or {})})

    @admin.display(description="amount", ordering="amount")
    def moved(self, row: models.OrphanMovement) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="age", ordering="found_at")
    def age(self, row: models.OrphanMovement) -> str:
        return "settled" if row.settled_at else band_of(row.found_at, at=now())

    @admin.display(description="")
    def settle(self, row: models.OrphanMovement) -> SafeString:
        """A link to the page on which it is proposed, while it lies there."""
        return SafeString("–") if row.settled_at else settle_link(f"{row.provider}:{row.account}:{row.movement}")
