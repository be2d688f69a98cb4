"""The rows of payments:

`transactions`, `quotes`, `exchange_rates`, `limit_rules`, float accounts and their reservations, `orphan_movements`,
`proposals`, `reveals`, `suspense_settlements`, `suspense_claims`, `provider_balances`, `balance_drifts`,
`reconciliation_runs`, `reconciliation_breaks`.
"""

from django.db import models

from shared_kernel.infrastructure.encryption import BlindIndexField, EncryptedField
from shared_kernel.models import Consented, UuidField


class Transaction(models.Model):
    """A deposit or withdrawal; its provider requests live with the integrations, its entries in the wallet."""

    id = UuidField(primary_key=True)
    type = models.CharField(max_length=16)
    lane = models.CharField(max_length=72, blank=True, default="mpesa")
    user_id = UuidField()
    quote_id = UuidField(unique=True)
    status = models.CharField(max_length=24)
    version = models.PositiveIntegerField(default=0)
    step_version = models.PositiveSmallIntegerField(default=1)
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    payout_amount = models.BigIntegerField()
    payout_currency = models.CharField(max_length=3)
    mid = models.DecimalField(max_digits=18, decimal_places=8)
    rate = models.DecimalField(max_digits=18, decimal_places=8)
    rate_source = models.CharField(max_length=32)
    rate_locked_at = models.DateTimeField()
    rate_expires_at = models.DateTimeField()
    min_payout = models.BigIntegerField(null=True)
    phone = EncryptedField()
    phone_index = BlindIndexField()
    platform = models.CharField(max_length=8)
    deriv_account = EncryptedField()
    deriv_currency = models.CharField(max_length=3)
    agent = models.CharField(max_length=64)
    login_checked_at = models.DateTimeField(null=True)
    confirmed_at = models.DateTimeField(null=True)
    expected_by = models.DateTimeField(null=True)
    failure_code = models.CharField(max_length=64, blank=True, default="")
    failure_detail = models.CharField(max_length=255, blank=True, default="")
    attention_from = models.CharField(max_length=24, blank=True, default="")
    deriv_transfer_id = models.CharField(max_length=64, blank=True, default="")
    credit_back_id = models.CharField(max_length=64, blank=True, default="")
    mpesa_receipt = models.CharField(max_length=64, blank=True, default="")
    outflow = models.CharField(max_length=12, blank=True, default="")  # payout or give-back: never both
    paid_amount = models.BigIntegerField(null=True)
    refund_by_b2c = models.BooleanField(default=False)
    held_by = models.CharField(max_length=64, blank=True, default="")
    held_why = models.CharField(max_length=255, blank=True, default="")
    held_at = models.DateTimeField(null=True)
    priority = models.PositiveSmallIntegerField(default=5)
    ordered_while_waiting = models.BooleanField(default=False, db_default=False)  # a payout, by a session new then
    behind = models.PositiveSmallIntegerField(default=0)  # the customer's other unfinished ones when it was created
    turn_at = models.DateTimeField(null=True)
    next_step_at = models.DateTimeField(null=True)
    leased_until = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "transactions"
        indexes = [
            models.Index(fields=["user_id", "created_at"], name="transactions_of_user"),
            models.Index(fields=["lane", "priority", "turn_at"], name="transactions_due"),
            models.Index(fields=["status", "updated_at"], name="transactions_by_status"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(amount__gt=0, payout_amount__gt=0), name="transactions_positive"),
            models.CheckConstraint(  # promise 1: the one choice, held by the database as well
                condition=~models.Q(status__in=["REFUND_PENDING", "REFUNDED", "CREDIT_BACK_PENDING", "REVERSED"])
                | models.Q(outflow="give_back"),
                name="transactions_given_back",
            ),
            models.CheckConstraint(
                condition=~models.Q(status__in=["DERIV_TRANSFER_SENT", "MPESA_DISBURSING"])
                | models.Q(outflow="payout"),
                name="transactions_paid_out",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class Quote(models.Model):
    """What was offered; used by at most one Transaction."""

    id = UuidField(primary_key=True)
    user_id = UuidField()
    type = models.CharField(max_length=16)
    send_amount = models.BigIntegerField()
    send_currency = models.CharField(max_length=3)
    get_amount = models.BigIntegerField()
    get_currency = models.CharField(max_length=3)
    mid = models.DecimalField(max_digits=18, decimal_places=8)
    rate = models.DecimalField(max_digits=18, decimal_places=8)
    rate_source = models.CharField(max_length=32)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    transaction_id = UuidField(null=True, unique=True)
    agent = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        db_table = "quotes"
        indexes = [models.Index(fields=["user_id", "created_at"], name="quotes_of_user")]

    def __str__(self) -> str:
        return str(self.id)


class ExchangeRate(models.Model):
    """Staff's rate table: one USD in KES, the margin that a customer pays, and how long it is good for."""

    id = models.BigAutoField(primary_key=True)
    mid = models.DecimalField(max_digits=18, decimal_places=8)
    margin_bps = models.PositiveIntegerField()
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField()
    set_by = models.CharField(max_length=64)
    approved_by = models.CharField(max_length=64)

    class Meta:
        db_table = "exchange_rates"
        indexes = [models.Index(fields=["valid_from"], name="rates_by_time")]
        constraints = [
            models.CheckConstraint(condition=models.Q(mid__gt=0), name="rates_positive"),
            models.CheckConstraint(condition=~models.Q(set_by=models.F("approved_by")), name="rates_four_eyes"),
        ]

    def __str__(self) -> str:
        return f"{self.mid} from {self.valid_from:%Y-%m-%d %H:%M}"


class LimitRule(models.Model):
    """A dated limit. `subject` is `tier:<name>` or `provider:<leg>`; amounts in minor units; the newest valid row
    counts.
    """

    id = models.BigAutoField(primary_key=True)
    subject = models.CharField(max_length=48)
    currency = models.CharField(max_length=3)
    minimum = models.BigIntegerField()
    maximum = models.BigIntegerField()
    per_day = models.BigIntegerField(null=True)
    per_month = models.BigIntegerField(null=True)
    valid_from = models.DateTimeField()

    class Meta:
        db_table = "limit_rules"
        constraints = [models.UniqueConstraint(fields=["subject", "currency", "valid_from"], name="limit_rules_dated")]

    def __str__(self) -> str:
        return f"{self.subject} {self.currency}"


class FloatAccount(models.Model):
    """What is promised from one provider account; the row is locked by whoever decides."""

    account = models.CharField(primary_key=True, max_length=64)
    reserved = models.BigIntegerField(default=0)

    class Meta:
        db_table = "float_accounts"
        constraints = [models.CheckConstraint(condition=models.Q(reserved__gte=0), name="float_reserved_not_negative")]

    def __str__(self) -> str:
        return self.account


class FloatReservation(models.Model):
    """Money promised to one Transaction from a float account, until its leg ended or is proven dead."""

    transaction_id = UuidField(primary_key=True)
    account = models.CharField(max_length=64)
    amount = models.BigIntegerField()
    created_at = models.DateTimeField()
    released_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "float_reservations"
        indexes = [models.Index(fields=["account", "released_at"], name="reservations_open")]

    def __str__(self) -> str:
        return str(self.transaction_id)


class OrphanMovement(models.Model):
    """Money in a provider's book that no Transaction explains; it lies in suspense until a person settles it.

    `amount` is signed; `movement` is the provider's id; `owner` answers for it. What it was settled as, the
    `suspense_settlements` with its provider key say.
    """

    id = UuidField(primary_key=True)
    provider = models.CharField(max_length=8)
    account = models.CharField(max_length=64)
    movement = models.CharField(max_length=64)
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    reference = EncryptedField(blank=True, default="")
    transaction_id = UuidField(null=True)
    moved_at = models.DateTimeField()
    found_at = models.DateTimeField()
    owner = models.CharField(max_length=32)
    settled_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "orphan_movements"
        constraints = [
            models.UniqueConstraint(fields=["provider", "account", "movement"], name="orphan_once"),
            models.CheckConstraint(condition=~models.Q(amount=0), name="orphan_moves"),
        ]
        indexes = [models.Index(fields=["settled_at", "found_at"], name="orphans_open")]

    def __str__(self) -> str:
        return f"{self.provider} {self.movement}"


class Proposal(models.Model):
    """A decision about a Transaction that one person proposed, and another one approved or somebody turned down."""

    id = UuidField(primary_key=True)
    transaction_id = UuidField()
    type = models.CharField(max_length=16)
    decision = models.CharField(max_length=16)
    by = models.CharField(max_length=64)
    why = models.CharField(max_length=255)
    at = models.DateTimeField()
    request_id = UuidField(null=True)
    reference = EncryptedField(blank=True, default="")
    amount = models.BigIntegerField(null=True)
    currency = models.CharField(max_length=3, blank=True, default="")
    phone = EncryptedField(blank=True, default="")
    platform = models.CharField(max_length=8, blank=True, default="")
    deriv_account = EncryptedField(blank=True, default="")
    deriv_currency = models.CharField(max_length=3, blank=True, default="")
    approved_by = models.CharField(max_length=64, blank=True, default="")
    approved_at = models.DateTimeField(null=True)
    rejected_by = models.CharField(max_length=64, blank=True, default="")
    rejected_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "proposals"
        constraints = [
            models.CheckConstraint(condition=~models.Q(approved_by=models.F("by")), name="proposals_four_eyes"),
            models.CheckConstraint(condition=~models.Q(by="") & ~models.Q(why=""), name="proposals_say_who_and_why"),
            models.CheckConstraint(
                condition=models.Q(approved_by="") | models.Q(rejected_by=""), name="proposals_decided_once"
            ),
        ]
        indexes = [
            models.Index(fields=["transaction_id", "at"], name="proposals_of"),
            models.Index(fields=["approved_at", "rejected_at", "at"], name="proposals_open"),
        ]

    def __str__(self) -> str:
        return f"{self.decision} {self.transaction_id}"


class SuspenseSettlement(models.Model):
    """What one person proposed to become of money in suspense, and what another one decided. `item` and `proof` are
    names as in `suspense_claims`; `amount` is signed, above zero it came in.
    """

    id = UuidField(primary_key=True)
    item = models.CharField(max_length=160)
    kind = models.CharField(max_length=16)
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    transaction_id = UuidField(null=True)
    movement = models.CharField(max_length=96, blank=True, default="")
    proof = models.CharField(max_length=160, blank=True, default="")
    by = models.CharField(max_length=64)
    why = models.CharField(max_length=255)
    at = models.DateTimeField()
    status = models.CharField(max_length=16)
    decided_by = models.CharField(max_length=64, blank=True, default="")
    decided_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "suspense_settlements"
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(status="approved")
                | (~models.Q(decided_by="") & ~models.Q(decided_by=models.F("by"))),
                name="settlement_four_eyes",
            ),
            models.CheckConstraint(condition=~models.Q(by="") & ~models.Q(why=""), name="settlement_says_who_and_why"),
            models.CheckConstraint(
                condition=~models.Q(kind__in=["returned", "recovered"]) | ~models.Q(movement="") & ~models.Q(proof=""),
                name="settlement_is_proven",
            ),
            models.CheckConstraint(
                condition=~models.Q(kind="matched") | models.Q(transaction_id__isnull=False),
                name="settlement_matches_one",
            ),
            models.CheckConstraint(
                condition=~models.Q(kind="loss_recovered") | (models.Q(amount__gt=0) & ~models.Q(proof="")),
                name="settlement_names_its_loss",
            ),
        ]
        indexes = [models.Index(fields=["status", "at"], name="settlements_open")]

    def __str__(self) -> str:
        return f"{self.kind} {self.item}"


class SuspenseClaim(models.Model):
    """Each name, of an item or of what proves it, is in one settlement that is proposed or approved at most."""

    name = models.CharField(primary_key=True, max_length=160)
    settlement = models.ForeignKey(SuspenseSettlement, models.PROTECT, related_name="claims")

    class Meta:
        db_table = "suspense_claims"

    def __str__(self) -> str:
        return self.name


class ProviderBalance(models.Model):
    """What a provider says that one account of ours holds, in minor units; NULL while its answer is awaited.

    `ledger` is what our ledger said when it was asked, `coming` and `going` what was sent by then, or until the
    answer, and not posted: so far the two may be apart.
    """

    id = UuidField(primary_key=True)
    provider = models.CharField(max_length=8)
    account = models.CharField(max_length=64)
    sub_account = models.CharField(max_length=32)
    currency = models.CharField(max_length=3)
    question = UuidField(null=True)
    asked_at = models.DateTimeField()
    ledger = models.BigIntegerField()
    coming = models.BigIntegerField()
    going = models.BigIntegerField()
    amount = models.BigIntegerField(null=True)
    as_of = models.DateTimeField(null=True)

    class Meta:
        db_table = "provider_balances"
        constraints = [
            models.CheckConstraint(condition=models.Q(coming__gte=0, going__gte=0), name="balance_in_flight"),
            models.CheckConstraint(
                condition=models.Q(amount__isnull=True, as_of__isnull=True)
                | models.Q(amount__isnull=False, as_of__isnull=False),
                name="balance_as_of_a_moment",
            ),
        ]
        indexes = [
            models.Index(fields=["provider", "account", "sub_account", "as_of"], name="balances_newest"),
            models.Index(fields=["as_of", "asked_at"], name="balances_awaited"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.account} {self.sub_account}"


class BalanceDrift(models.Model):
    """A provider's balance and our ledger were apart by more than what is in flight, from `since` to `over_at`."""

    id = UuidField(primary_key=True)
    provider = models.CharField(max_length=8)
    account = models.CharField(max_length=64)
    sub_account = models.CharField(max_length=32)
    currency = models.CharField(max_length=3)
    since = models.DateTimeField()
    looks = models.PositiveIntegerField(default=1)
    difference = models.BigIntegerField()  # theirs less ours, by the last look
    unexplained = models.BigIntegerField()  # how much of it nothing in flight explains
    seen_at = models.DateTimeField()
    alerted_at = models.DateTimeField(null=True)
    over_at = models.DateTimeField(null=True)
    open_as = models.CharField(max_length=128, null=True, unique=True)  # one open drift an account

    class Meta:
        db_table = "balance_drifts"
        indexes = [models.Index(fields=["over_at", "since"], name="drifts_open")]

    def __str__(self) -> str:
        return f"{self.provider} {self.account} {self.sub_account}"


class Reveal(Consented):
    """That a Transaction's evidence is given to one person with personal data in clear, once."""

    transaction_id = UuidField()

    class Meta(Consented.Meta):
        db_table = "reveals"
        indexes = [models.Index(fields=["transaction_id", "at"], name="reveals_of")]

    def __str__(self) -> str:
        return f"evidence of {self.transaction_id} in clear"


class ReconciliationRun(models.Model):
    """What one run over one account's book found; written with its breaks, so that a run is there as a whole or not."""

    id = UuidField(primary_key=True)
    provider = models.CharField(max_length=8)
    account = models.CharField(max_length=64)
    sub_account = models.CharField(max_length=32)
    since = models.DateTimeField()
    until = models.DateTimeField()
    read_since = models.DateTimeField()
    source = models.CharField(max_length=128)
    digest = models.CharField(max_length=64, blank=True, default="")
    matched = models.PositiveIntegerField()
    missing_here = models.PositiveIntegerField()
    missing_there = models.PositiveIntegerField()
    different_amount = models.PositiveIntegerField()
    reverted = models.PositiveIntegerField()
    unchecked = models.PositiveIntegerField()
    opened = models.PositiveIntegerField()
    closed = models.PositiveIntegerField()
    still_open = models.PositiveIntegerField()
    at = models.DateTimeField()
    by = models.CharField(max_length=64)

    class Meta:
        db_table = "reconciliation_runs"
        indexes = [models.Index(fields=["provider", "account", "digest"], name="reconciliation_runs_file")]

    def __str__(self) -> str:
        return f"{self.provider} {self.account} {self.since:%Y-%m-%d}"


class ReconciliationBreak(models.Model):
    """A difference between a provider's book and the ledger. Amounts signed, in minor units; NULL: not in that book."""

    id = UuidField(primary_key=True)
    kind = models.CharField(max_length=16)
    provider = models.CharField(max_length=8)
    account = models.CharField(max_length=64)
    sub_account = models.CharField(max_length=32)
    known_as = models.CharField(max_length=96)
    movement = models.CharField(max_length=96, blank=True, default="")
    reference = models.CharField(max_length=96, blank=True, default="")
    provider_key = models.CharField(max_length=128, blank=True, default="")
    theirs = models.BigIntegerField(null=True)
    ours = models.BigIntegerField(null=True)
    currency = models.CharField(max_length=3)
    transaction_id = UuidField(null=True)
    at = models.DateTimeField()
    opened_at = models.DateTimeField()
    owner = models.CharField(max_length=32)
    status = models.CharField(max_length=16)
    resolution = models.CharField(max_length=16, blank=True, default="")
    resolved_by = models.CharField(max_length=64, blank=True, default="")
    why = models.CharField(max_length=255, blank=True, default="")
    resolved_at = models.DateTimeField(null=True)
    approved_by = models.CharField(max_length=64, blank=True, default="")
    closed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "reconciliation_breaks"
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "account", "sub_account", "known_as", "kind"], name="break_opened_once"
            ),
            models.CheckConstraint(
                condition=models.Q(approved_by="") | ~models.Q(approved_by=models.F("resolved_by")),
                name="break_four_eyes",
            ),
            models.CheckConstraint(
                condition=~models.Q(status__in=["proposed", "resolved"])
                | (~models.Q(resolved_by="") & ~models.Q(why="")),
                name="break_says_who_and_why",
            ),
            models.CheckConstraint(
                condition=~models.Q(status="resolved", resolution="into_suspense") | ~models.Q(approved_by=""),
                name="break_posts_by_two",
            ),
        ]
        indexes = [
            models.Index(fields=["status", "opened_at"], name="breaks_open"),
            models.Index(fields=["transaction_id"], name="breaks_of"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.known_as}"
