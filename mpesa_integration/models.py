"""M-Pesa's rows: `mpesa_requests` (one attempt of one leg each), `mpesa_callbacks` (all that came), `mpesa_balances`,
`mpesa_initiators`, `mpesa_tokens`.
"""

from django.db import models

from shared_kernel.infrastructure.encryption import BlindIndexField, EncryptedField
from shared_kernel.models import UuidField


class MpesaRequest(models.Model):
    """One attempt to move money at M-Pesa, or one question about it. Fixed when the intent commits; only the outcome is
    added.

    `open_phone` is set while a prompt is open: the unique key allows one open prompt a phone. `open_outflow` is the
    Transaction while an attempt by which money leaves is neither dead nor done: the unique key allows one. A question
    about a shortcode's balance is of no Transaction, for no phone and of no amount.
    """

    id = UuidField(primary_key=True)
    transaction_id = UuidField(null=True)
    leg = models.CharField(max_length=24)
    attempt = models.PositiveSmallIntegerField()
    reference = models.CharField(max_length=32, unique=True)
    about = models.CharField(max_length=64, blank=True, default="")  # a receipt, or an OriginatorConversationID of ours
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    phone = EncryptedField(blank=True, default="")
    open_phone = BlindIndexField(null=True, unique=True)
    open_outflow = UuidField(null=True, unique=True)
    shortcode = models.CharField(max_length=10)
    callback_hash = models.CharField(max_length=64, unique=True)
    timeout_hash = models.CharField(max_length=64, null=True, unique=True)
    status = models.CharField(max_length=16)
    fence = models.PositiveIntegerField(default=1)
    code = models.CharField(max_length=128, blank=True, default="")
    send_before = models.DateTimeField()
    created_at = models.DateTimeField()
    outcome_at = models.DateTimeField(null=True)
    asked_at = models.DateTimeField(null=True)
    absences = models.PositiveIntegerField(default=0)
    was_unknown = models.BooleanField(default=False)
    conversation_id = models.CharField(max_length=128, blank=True, default="")
    merchant_request_id = models.CharField(max_length=128, blank=True, default="")
    checkout_request_id = EncryptedField(blank=True, default="")  # it ends in the subscriber's number
    checkout_index = BlindIndexField(null=True, unique=True)
    receipt = models.CharField(max_length=16, null=True, unique=True)
    answer = EncryptedField(blank=True, default="")

    class Meta:
        db_table = "mpesa_requests"
        constraints = [
            models.UniqueConstraint(fields=["transaction_id", "leg", "attempt"], name="mpesa_request_attempt"),
            models.CheckConstraint(
                condition=models.Q(amount__gt=0) | models.Q(transaction_id__isnull=True, amount=0),
                name="mpesa_request_amount",
            ),
        ]
        indexes = [models.Index(fields=["status", "send_before"], name="mpesa_requests_open")]

    def __str__(self) -> str:
        return f"{self.reference} attempt {self.attempt}"


class MpesaCallback(models.Model):
    """What came to a callback URL, as it came. The same body again for the same attempt is counted in `times`.

    `amount` and `fee` are as claimed, in minor units of KES.
    """

    id = UuidField(primary_key=True)
    request = models.ForeignKey(MpesaRequest, models.PROTECT, null=True, related_name="callbacks")
    kind = models.CharField(max_length=2)
    received_at = models.DateTimeField()
    last_received_at = models.DateTimeField()
    times = models.PositiveIntegerField(default=1)
    peer = models.CharField(max_length=45)
    sha256 = models.CharField(max_length=64)
    verdict = models.CharField(max_length=16)
    result_code = models.CharField(max_length=64, blank=True, default="")
    amount = models.BigIntegerField(null=True)
    receipt = models.CharField(max_length=16, blank=True, default="")  # as claimed
    fate = models.CharField(max_length=32, blank=True, default="")
    blame = models.CharField(max_length=16, blank=True, default="")
    fee = models.BigIntegerField(null=True)
    headers = EncryptedField(blank=True, default="")
    body = EncryptedField(blank=True, default="")

    class Meta:
        db_table = "mpesa_callbacks"
        constraints = [models.UniqueConstraint(fields=["request", "kind", "sha256"], name="mpesa_callback_single")]
        indexes = [
            models.Index(fields=["received_at"], name="mpesa_callbacks_received"),
            models.Index(fields=["receipt"], name="mpesa_callbacks_receipt"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class MpesaBalance(models.Model):
    """What M-Pesa answered that one account of a shortcode held at a moment, in minor units of KES."""

    id = UuidField(primary_key=True)
    shortcode = models.CharField(max_length=10)
    account = models.CharField(max_length=64)
    available = models.BigIntegerField()
    at = models.DateTimeField()
    request = models.ForeignKey(MpesaRequest, models.PROTECT, related_name="balances")

    class Meta:
        db_table = "mpesa_balances"
        constraints = [models.UniqueConstraint(fields=["request", "account", "at"], name="mpesa_balance_once")]
        indexes = [models.Index(fields=["shortcode", "account", "at"], name="mpesa_balances_newest")]

    def __str__(self) -> str:
        return f"{self.shortcode} {self.account}"


class MpesaInitiator(models.Model):
    """An API operator, by its name; the password stays in the settings. A stopped one calls nothing."""

    name = models.CharField(primary_key=True, max_length=64)
    stopped_at = models.DateTimeField(null=True)
    why = models.CharField(max_length=255, blank=True, default="")

    class Meta:
        db_table = "mpesa_initiators"

    def __str__(self) -> str:
        return self.name


class MpesaToken(models.Model):
    """The access token that all processes share, by consumer key and host: a new one ends the one before."""

    id = UuidField(primary_key=True)
    token = EncryptedField()
    fetched_at = models.DateTimeField()

    class Meta:
        db_table = "mpesa_tokens"

    def __str__(self) -> str:
        return str(self.id)
