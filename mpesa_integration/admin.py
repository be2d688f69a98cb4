"""Staff's pages of M-Pesa: what was asked and what came. Personal data is masked, messages are not shown."""

from django.contrib import admin
from django.utils.safestring import SafeString

from mpesa_integration import models
from shared_kernel.admin import ReadOnlyAdmin, amount, link, linked, masked, row_url, target_url


@admin.register(models.MpesaRequest)
class MpesaRequestAdmin(ReadOnlyAdmin):
    """One attempt of one leg: intent and outcome."""

    about = "mpesa_request"
    elsewhere = {"callbacks": ("mpesa_integration_mpesacallback", "request")}
    list_display = (
        "id",
        "reference",
        "leg",
        "attempt",
        "money",
        "status",
        "code",
        "receipt",
        "transaction",
        "created_at",
    )
    find_by = ("id", "transaction_id", "reference", "receipt", "merchant_request_id")
    ordering = ("-id",)
    transaction = linked("transaction", "transaction_id")
    fields = (
        "id", "transaction", "see_also", "leg", "attempt", "reference", "about", "money", "masked_phone", "shortcode",
        "status", "code", "was_unknown", "receipt", "merchant_request_id", "conversation_id", "created_at",
        "send_before", "outcome_at", "asked_at", "absences", "fence", "message",
    )  # fmt: skip
    readonly_fields = ("transaction", "see_also", "money", "masked_phone", "message")

    @admin.display(description="amount", ordering="amount")
    def money(self, row: models.MpesaRequest) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="phone")
    def masked_phone(self, row: models.MpesaRequest) -> str:
        return masked(row.phone, keep=4)

    @admin.display(description="M-Pesa's answer")
    def message(self, row: models.MpesaRequest) -> str:
        return stored(row.answer)


@admin.register(models.MpesaCallback)
class MpesaCallbackAdmin(ReadOnlyAdmin):
    """What came to a callback URL: a claim, and what was made of it."""

    about = "mpesa_callback"
    list_display = (
        "id",
        "kind",
        "verdict",
        "result_code",
        "blame",
        "fate",
        "money",
        "receipt",
        "times",
        "peer",
        "attempt",
        "received_at",
    )
    list_select_related = ("request",)
    find_by = ("id", "receipt", "sha256", "peer")
    ordering = ("-id",)
    fields = (
        "id", "attempt", "of_transaction", "kind", "verdict", "result_code", "blame", "fate", "money", "charged",
        "receipt", "times", "received_at", "last_received_at", "peer", "sha256", "message",
    )  # fmt: skip
    readonly_fields = ("attempt", "of_transaction", "money", "charged", "message")

    @admin.display(description="claimed amount", ordering="amount")
    def money(self, row: models.MpesaCallback) -> str:
        return amount(row.amount, "KES")

    @admin.display(description="claimed fee")
    def charged(self, row: models.MpesaCallback) -> str:
        return amount(row.fee, "KES")

    @admin.display(description="request")
    def attempt(self, row: models.MpesaCallback) -> SafeString:
        return link(row_url(models.MpesaRequest, row.request_id), row.request) if row.request else SafeString("–")

    @admin.display(description="transaction")
    def of_transaction(self, row: models.MpesaCallback) -> SafeString:
        if row.request is None or row.request.transaction_id is None:
            return SafeString("–")
        return link(target_url("transaction", str(row.request.transaction_id)), row.request.transaction_id)

    @admin.display(description="body")
    def message(self, row: models.MpesaCallback) -> str:
        return stored(row.body)


def stored(text: str) -> str:
    """That a message is kept, and how long it is; it names its customer, so that it is not shown here."""
    return f"{len(text)} characters, kept encrypted: `manage.py evidence` shows it" if text else "–"


@admin.register(models.MpesaBalance)
class MpesaBalanceAdmin(ReadOnlyAdmin):
    """What M-Pesa answered that a shortcode's accounts held."""

    about = "mpesa_balance"
    list_display = fields = ("id", "shortcode", "account", "money", "at")
    readonly_fields = ("money",)
    find_by = ("id", "shortcode")
    ordering = ("-id",)

    @admin.display(description="available", ordering="available")
    def money(self, row: models.MpesaBalance) -> str:
        return amount(row.available, "KES")


@admin.register(models.MpesaInitiator)
class MpesaInitiatorAdmin(ReadOnlyAdmin):
    """API operators; a stopped one calls nothing until `manage.py resume_initiator`."""

    about = "mpesa_initiator"
    list_display = fields = ("name", "stopped_at", "why")
    find_by = ("name",)


@admin.register(models.MpesaToken)
class MpesaTokenAdmin(ReadOnlyAdmin):
    """When the shared access token was fetched; never the token."""

    list_display = fields = ("id", "fetched_at")
