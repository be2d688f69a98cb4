"""Staff's pages of the ledger: accounts with their balances, and entries. Nothing is changed here, nor could it be."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet, Subquery, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString

from shared_kernel.admin import ReadOnlyAdmin, amount, link, linked, page_of, row_url
from wallet import models


@admin.register(models.LedgerAccount)
class LedgerAccountAdmin(ReadOnlyAdmin):
    """An account and what stands on it: credits minus debits."""

    list_display = ("id", "kind", "owner", "currency", "balance", "opened_at")
    find_by = ("id", "owner", "kind")
    ordering = ("kind", "owner", "currency")
    fields = ("id", "kind", "owner", "currency", "balance", "opened_at", "entries", "history")
    readonly_fields = ("balance", "entries", "history")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        slots = models.LedgerBalance.objects.filter(account=OuterRef("pk")).values("account")
        total = slots.annotate(total=Sum("credit_balance")).values("total")
        rows: QuerySet[Any] = super().get_queryset(request).annotate(total=Subquery(total))
        return rows

    @admin.display(description="balance (credit)")
    def balance(self, row: Any) -> str:
        return amount(int(row.total or 0), row.currency)

    @admin.display(description="entries")
    def entries(self, row: models.LedgerAccount) -> SafeString:
        return link(page_of("wallet_ledgerentry", account=row.pk), "entries of this account")

    @admin.display(description="history")
    def history(self, row: models.LedgerAccount) -> SafeString:
        """With the balance after each entry: a page for finance and auditors."""
        return link(f"{reverse('finance:account')}?account={row.pk}", "with running balance")


class AccountFilter(admin.SimpleListFilter):
    """`?account=`: entries that debit or credit one account; reached from the account's page."""

    title = parameter_name = "account"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(self.used_parameters["account"], "this one")] if self.used_parameters.get("account") else []

    def has_output(self) -> bool:
        return bool(self.used_parameters.get("account"))

    def queryset(self, request: Any, queryset: Any) -> Any:
        account = self.value()
        return queryset.filter(Q(debit_account=account) | Q(credit_account=account)) if account else queryset


@admin.register(models.LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """One amount from the credited to the debited account."""

    list_display = ("seq", "reference", "debited", "credited", "money", "transaction", "recorded_at")
    list_filter = (AccountFilter,)
    list_select_related = ("debit_account", "credit_account")
    find_by = ("id", "transaction_id", "journal_id", "reference", "provider_key")
    ordering = ("-seq",)
    transaction = linked("transaction", "transaction_id")
    fields = (
        "seq", "id", "journal", "purpose", "debited", "credited", "money", "transaction", "reference", "provider_key",
        "reverses", "effective_at", "recorded_at",
    )  # fmt: skip
    readonly_fields = ("journal", "debited", "credited", "money", "transaction")

    @admin.display(description="amount", ordering="amount")
    def money(self, row: models.LedgerEntry) -> str:
        return amount(row.amount, row.currency)

    @admin.display(description="journal")
    def journal(self, row: models.LedgerEntry) -> SafeString:
        return link(page_of("wallet_ledgerentry", journal_id=row.journal_id), row.journal_id)

    @admin.display(description="debit")
    def debited(self, row: models.LedgerEntry) -> SafeString:
        return link(row_url(models.LedgerAccount, row.debit_account_id), row.debit_account)

    @admin.display(description="credit")
    def credited(self, row: models.LedgerEntry) -> SafeString:
        return link(row_url(models.LedgerAccount, row.credit_account_id), row.credit_account)
