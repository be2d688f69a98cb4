"""Staff's pages of Deriv: transfers that were asked for, and agent credentials. Personal data is masked."""

from django.contrib import admin

from deriv_integration import models
from shared_kernel.admin import ReadOnlyAdmin, amount, linked, masked


@admin.register(models.DerivTransfer)
class DerivTransferAdmin(ReadOnlyAdmin):
    """One attempt of one leg: intent and outcome."""

    about = "deriv_transfer"
    list_display = (
        "id", "reference", "leg", "attempt", "money", "status", "code", "provider_transaction_id", "transaction",
        "created_at",
    )  # fmt: skip
    find_by = ("id", "transaction_id", "reference", "provider_transaction_id")
    ordering = ("-id",)
    transaction = linked("transaction", "transaction_id")
    fields = (
        "id", "transaction", "see_also", "leg", "attempt", "reference", "money", "platform", "agent", "masked_account",
        "status", "code", "provider_transaction_id", "created_at", "send_before", "outcome_at", "asked_at", "absences",
        "was_unknown", "fence", "code_held", "message",
    )  # fmt: skip
    readonly_fields = ("transaction", "see_also", "money", "masked_account", "code_held", "message")

    @admin.display(description="amount", ordering="amount")
    def money(self, row: models.DerivTransfer) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="account")
    def masked_account(self, row: models.DerivTransfer) -> str:
        return masked(row.account)

    @admin.display(description="one-time code", boolean=True)
    def code_held(self, row: models.DerivTransfer) -> bool:
        """Whether the customer's code is still kept; nobody is shown it."""
        return bool(row.verification_code)

    @admin.display(description="Deriv's answer")
    def message(self, row: models.DerivTransfer) -> str:
        return f"{len(row.answer)} characters, kept encrypted: `manage.py evidence` shows it" if row.answer else "–"


@admin.register(models.DerivAgent)
class DerivAgentAdmin(ReadOnlyAdmin):
    """Which agent credentials are frozen, and why."""

    about = "deriv_agent"
    list_display = ("loginid", "frozen_at", "frozen_why")
    fields = ("loginid", "frozen_at", "frozen_why", "timeline")
    readonly_fields = ("timeline",)
