"""Deriv's rows: `deriv_transfers` (one attempt of one leg each) and `deriv_agents` (which credentials are frozen)."""

from django.db import models

from shared_kernel.infrastructure.encryption import EncryptedField
from shared_kernel.models import UuidField


class DerivTransfer(models.Model):
    """One attempt to move money at Deriv. Fixed when the intent commits; only the outcome is added.

    `open_outflow` is the Transaction while money may leave us by this attempt: one such attempt a Transaction.
    `verification_code` is a debit's, there until its outcome is known.
    """

    id = UuidField(primary_key=True)
    transaction_id = UuidField()
    leg = models.CharField(max_length=24)
    attempt = models.PositiveSmallIntegerField()
    reference = models.CharField(max_length=64)
    platform = models.CharField(max_length=8)
    agent = models.CharField(max_length=32)
    account = EncryptedField()
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=16)
    fence = models.PositiveIntegerField(default=1)
    code = models.CharField(max_length=128, blank=True, default="")
    send_before = models.DateTimeField()
    created_at = models.DateTimeField()
    outcome_at = models.DateTimeField(null=True)
    asked_at = models.DateTimeField(null=True)
    absences = models.PositiveIntegerField(default=0)
    was_unknown = models.BooleanField(default=False)
    provider_transaction_id = models.CharField(max_length=32, null=True)
    verification_code = EncryptedField(blank=True, default="")
    answer = EncryptedField(blank=True, default="")
    open_outflow = models.GeneratedField(
        expression=models.Case(
            models.When(
                models.Q(leg__in=["deriv_credit", "deriv_credit_back"])
                & ~models.Q(status__in=["done", "refused", "closed"]),
                then=models.F("transaction_id"),
            ),
            default=None,
        ),
        output_field=UuidField(null=True),
        db_persist=True,
        unique=True,
        null=True,
    )

    class Meta:
        db_table = "deriv_transfers"
        constraints = [
            models.UniqueConstraint(fields=["transaction_id", "leg", "attempt"], name="deriv_transfer_attempt"),
            models.UniqueConstraint(fields=["agent", "provider_transaction_id"], name="deriv_transfer_entry"),
            models.CheckConstraint(condition=models.Q(amount__gt=0), name="deriv_transfer_amount"),
        ]
        indexes = [
            models.Index(fields=["status", "send_before"], name="deriv_transfers_open"),
            models.Index(fields=["reference"], name="deriv_transfers_reference"),
        ]

    def __str__(self) -> str:
        return f"{self.reference} attempt {self.attempt}"


class DerivAgent(models.Model):
    """An agent credential, by its login id; the secret stays in the settings. Frozen ones send nothing."""

    loginid = models.CharField(primary_key=True, max_length=32)
    frozen_at = models.DateTimeField(null=True)
    frozen_why = models.CharField(max_length=255, blank=True, default="")

    class Meta:
        db_table = "deriv_agents"

    def __str__(self) -> str:
        return self.loginid
