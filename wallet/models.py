"""The ledger's rows: `ledger_accounts`, `ledger_entries`, and the kept balances in slots; and `treasury_movements`.

What the columns cannot say, `wallet/infrastructure/guards.py` adds in the database: both accounts of an entry have its
currency, a reversal mirrors its entry, and neither entries nor accounts are ever changed or deleted.
"""

from django.db import models
from django.db.models import F, Q

from shared_kernel.models import UuidField


class LedgerAccount(models.Model):
    """One account in one currency. `id` is derived from the rest; `owner` is "" or a shortcode, an agent, a user id."""

    id = UuidField(primary_key=True)
    kind = models.CharField(max_length=32)
    currency = models.CharField(max_length=3)
    owner = models.CharField(max_length=64, blank=True, default="")
    opened_at = models.DateTimeField()

    class Meta:
        db_table = "ledger_accounts"
        constraints = [
            models.UniqueConstraint(fields=["kind", "currency", "owner"], name="ledger_account_name"),
            models.UniqueConstraint(fields=["id", "currency"], name="ledger_account_currency"),
        ]
        indexes = [models.Index(fields=["owner", "kind"], name="ledger_accounts_of_owner")]

    def __str__(self) -> str:
        return f"{self.kind} {self.owner} {self.currency}"


class LedgerEntry(models.Model):
    """`amount` minor units from the credited to the debited account. Append-only: triggers refuse UPDATE and DELETE."""

    seq = models.BigAutoField(primary_key=True)
    id = UuidField(unique=True)
    journal_id = UuidField()
    purpose = models.CharField(max_length=32)
    debit_account = models.ForeignKey(
        LedgerAccount, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )  # the key in the database is (debit_account_id, currency)
    credit_account = models.ForeignKey(
        LedgerAccount, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    transaction_id = UuidField(null=True)
    reference = models.CharField(max_length=191)
    provider_key = models.CharField(max_length=128, null=True)
    reverses = UuidField(null=True)
    effective_at = models.DateTimeField()
    recorded_at = models.DateTimeField()

    class Meta:
        db_table = "ledger_entries"
        verbose_name_plural = "ledger entries"
        constraints = [
            models.UniqueConstraint(fields=["reference"], name="ledger_entry_reference"),
            models.UniqueConstraint(fields=["provider_key"], name="ledger_entry_provider_key"),
            models.UniqueConstraint(fields=["reverses"], name="ledger_entry_reverses"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="ledger_amount_positive"),
            models.CheckConstraint(condition=~Q(debit_account=F("credit_account")), name="ledger_two_accounts"),
        ]
        indexes = [
            models.Index(fields=["debit_account", "currency", "seq"], name="ledger_entries_debited"),
            models.Index(fields=["credit_account", "currency", "seq"], name="ledger_entries_credited"),
            models.Index(fields=["transaction_id", "seq"], name="ledger_entries_of_transaction"),
            # Balances as of a moment and sums of all entries are read from these alone. One for both times: by the
            # recorded one an account's part is read whole, which costs no more than a moment of today would.
            models.Index(fields=["debit_account", "effective_at", "recorded_at", "amount"], name="ledger_debited_at"),
            models.Index(fields=["credit_account", "effective_at", "recorded_at", "amount"], name="ledger_credited_at"),
        ]

    def __str__(self) -> str:
        return f"{self.reference}: {self.amount} {self.currency}"


class LedgerBalance(models.Model):
    """A part of a balance: credits minus debits, in minor units; the balance of an account is the sum of its slots.

    Slot 0 is for accounts that must never be overdrawn (customers in transit), and the database refuses it below zero.
    House accounts use slots 1 to 16, each its own writer's, so that no writer waits for another; slot 17 holds what
    `rebuild_balances` had to correct.
    """

    pk = models.CompositePrimaryKey("account_id", "slot")
    account = models.ForeignKey(LedgerAccount, models.PROTECT, related_name="+", db_index=False)
    slot = models.PositiveSmallIntegerField()
    credit_balance = models.BigIntegerField()

    class Meta:
        db_table = "ledger_balances"
        constraints = [
            models.CheckConstraint(condition=~Q(slot=0) | Q(credit_balance__gte=0), name="ledger_in_transit_covered")
        ]

    def __str__(self) -> str:
        return f"{self.account_id} {self.slot}: {self.credit_balance}"


class TreasuryMovement(models.Model):
    """What staff move of the house's own money, from proposal to arrival. Amounts in minor units; `got` is of the other
    currency, for an FX close-out alone; `charge` and `lost` are of the one that was sent. What was proposed never
    changes, and no row is deleted (triggers).
    """

    id = UuidField(primary_key=True)
    kind = models.CharField(max_length=32)
    status = models.CharField(max_length=16)
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    got = models.BigIntegerField(null=True)
    got_currency = models.CharField(max_length=3, blank=True, default="")
    source_kind = models.CharField(max_length=32)
    source_owner = models.CharField(max_length=64, blank=True, default="")
    target_kind = models.CharField(max_length=32)
    target_owner = models.CharField(max_length=64, blank=True, default="")
    reference = models.CharField(max_length=64)
    day = models.DateField()
    why = models.CharField(max_length=255)
    reverses = UuidField(null=True)
    drafted_by = models.CharField(max_length=64, blank=True, default="")
    at = models.DateTimeField()
    by = models.CharField(max_length=64, blank=True, default="")
    approved_by = models.CharField(max_length=64, blank=True, default="")
    approved_at = models.DateTimeField(null=True)
    arrival_reference = models.CharField(max_length=64, blank=True, default="")
    arrival_day = models.DateField(null=True)
    charge = models.BigIntegerField(default=0)
    lost = models.BigIntegerField(default=0)
    arrival_by = models.CharField(max_length=64, blank=True, default="")
    arrival_approved_by = models.CharField(max_length=64, blank=True, default="")
    closed_by = models.CharField(max_length=64, blank=True, default="")
    closed_why = models.CharField(max_length=255, blank=True, default="")
    closed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "treasury_movements"
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                condition=Q(amount__gt=0, charge__gte=0, lost__gte=0), name="treasury_amount_positive"
            ),
            models.CheckConstraint(
                condition=Q(charge__lt=F("amount") - F("lost")) | Q(charge=0, lost=F("amount")),
                name="treasury_charge_is_a_part",
            ),
            models.CheckConstraint(condition=~Q(why="") & ~Q(reference=""), name="treasury_says_why_and_what_shows_it"),
            models.CheckConstraint(condition=Q(status="draft") | Q(status="rejected") | ~Q(by=""), name="treasury_by"),
            models.CheckConstraint(condition=Q(approved_by="") | ~Q(approved_by=F("by")), name="treasury_four_eyes"),
            models.CheckConstraint(
                condition=Q(arrival_approved_by="") | ~Q(arrival_approved_by=F("arrival_by")),
                name="treasury_arrival_four_eyes",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["draft", "proposed", "rejected"]) | ~Q(approved_by=""),
                name="treasury_posted_is_approved",
            ),
            models.CheckConstraint(
                condition=~Q(status__in=["arriving", "arrived"])
                | (~Q(arrival_by="") & ~Q(arrival_reference="") & Q(arrival_day__isnull=False)),
                name="treasury_arrival_is_shown",
            ),
            models.CheckConstraint(
                condition=~Q(status="arrived") | ~Q(arrival_approved_by=""), name="treasury_arrived_is_approved"
            ),
        ]
        indexes = [models.Index(fields=["status", "id"], name="treasury_by_status")]

    def __str__(self) -> str:
        return f"{self.kind} {self.reference}"
