"""The kernel's rows: `domain_events` (the outbox), `idempotency_keys`, `audit_logs`, `seals`, `anchor_continuations`,
`leases`, `rate_limit_counters`; the id column that all share, and the columns of what takes two people.
"""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models

if TYPE_CHECKING:
    UuidFieldBase = models.Field[Any, Any]  # a nullable column would need a type of its own
else:  # generic for the type checker only
    UuidFieldBase = models.Field


class UuidField(UuidFieldBase):
    """A UUID as 16 bytes, in one column type on MySQL, MariaDB and SQLite, so that UUIDv7 keys sort by time
    everywhere.
    """

    description = "UUID in 16 bytes"

    def db_type(self, connection: Any) -> str:
        return "binary(16)" if connection.vendor == "mysql" else "blob"

    def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
        placeholder: str = connection.ops.binary_placeholder_sql(value)
        return placeholder

    def get_internal_type(self) -> str:
        return "BinaryField"

    def to_python(self, value: Any) -> UUID | None:
        if value is None or isinstance(value, UUID):
            return value
        return UUID(bytes=bytes(value)) if isinstance(value, bytes | memoryview) else UUID(str(value))

    def from_db_value(self, value: Any, *_: Any) -> UUID | None:
        return None if value is None else UUID(bytes=bytes(value))

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return self.to_python(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> bytes | None:
        uuid = self.to_python(value)
        return None if uuid is None else uuid.bytes

    def value_to_string(self, obj: models.Model) -> str:
        return str(self.value_from_object(obj) or "")


class DomainEvent(models.Model):
    """An event in the outbox. All but the delivery columns are immutable; `seq` gives the order within one aggregate.

    `published_at` is NULL while it waits for the relay. `next_attempt_at` on a published event says when it is
    published again unless it was delivered by then: set by a failure, and from the start where a subscriber must not
    miss it.
    """

    seq = models.BigAutoField(primary_key=True)
    id = UuidField(unique=True)
    type = models.CharField(max_length=64)
    aggregate_id = UuidField()
    payload = models.JSONField()
    context = models.JSONField(default=dict)
    occurred_at = models.DateTimeField()
    # delivery
    published_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    parked_at = models.DateTimeField(null=True)
    discarded_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        db_table = "domain_events"
        indexes = [
            models.Index(fields=["published_at", "seq"], name="events_unpublished"),
            models.Index(fields=["aggregate_id", "seq"], name="events_of_aggregate"),
            models.Index(fields=["parked_at"], name="events_parked"),
            models.Index(fields=["next_attempt_at"], name="events_due"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class IdempotencyKey(models.Model):
    """A claimed key: what it was claimed for, the id that came of it, and the answer to repeat.

    Money keys are never purged.
    """

    id = models.BigAutoField(primary_key=True)
    scope = models.CharField(max_length=128)
    key = models.CharField(max_length=128)
    fingerprint = models.CharField(max_length=64)
    result = UuidField(null=True)
    answer = models.TextField(blank=True, default="")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "idempotency_keys"
        constraints = [models.UniqueConstraint(fields=["scope", "key"], name="idempotency_scope_key")]

    def __str__(self) -> str:
        return f"{self.scope} {self.key}"


class AuditLog(models.Model):
    """Who did what to which target, when, from where and why. Append-only: triggers refuse UPDATE and DELETE."""

    seq = models.BigAutoField(primary_key=True)
    action = models.CharField(max_length=64)
    target_type = models.CharField(max_length=32)
    target_id = models.CharField(max_length=64)
    before = models.CharField(max_length=64, blank=True, default="")
    after = models.CharField(max_length=64, blank=True, default="")
    why = models.CharField(max_length=255, blank=True, default="")
    details = models.JSONField(default=dict)
    actor = models.CharField(max_length=64)
    device = models.CharField(max_length=64, blank=True, default="")
    address = models.CharField(max_length=45, blank=True, default="")
    request_id = models.CharField(max_length=64, blank=True, default="")
    at = models.DateTimeField()

    class Meta:
        db_table = "audit_logs"
        indexes = [
            models.Index(fields=["target_type", "target_id", "seq"], name="audit_of_target"),
            models.Index(fields=["action", "seq"], name="audit_of_action"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target_id}"


class Seal(models.Model):
    """Some rows of the table `chain`, in order, and the hash of the seal before: `shared_kernel/domain/seals.py`.

    Append-only: triggers refuse UPDATE and DELETE.
    """

    id = models.BigAutoField(primary_key=True)
    chain = models.CharField(max_length=64)
    number = models.PositiveBigIntegerField()
    layout = models.PositiveSmallIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    row_count = models.PositiveIntegerField()
    marks = models.BinaryField()
    sealed_at = models.DateTimeField()
    hash = models.CharField(max_length=64)

    class Meta:
        db_table = "seals"
        constraints = [models.UniqueConstraint(fields=["chain", "number"], name="seal_number")]
        indexes = [models.Index(fields=["chain", "last_seq"], name="seals_by_row")]

    def __str__(self) -> str:
        return f"{self.chain} {self.number}"


class Consented(models.Model):
    """What one person asked for and another one approves: the columns of a `Consent`. Never deleted, nor used twice."""

    id = UuidField(primary_key=True)
    by = models.CharField(max_length=64)
    why = models.CharField(max_length=255)
    at = models.DateTimeField()
    expires_at = models.DateTimeField()
    approved_by = models.CharField(max_length=64, blank=True, default="")
    approved_at = models.DateTimeField(null=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(condition=~models.Q(approved_by=models.F("by")), name="%(class)s_four_eyes"),
            models.CheckConstraint(condition=~models.Q(by="") & ~models.Q(why=""), name="%(class)s_says_who_and_why"),
            models.CheckConstraint(
                condition=models.Q(used_at=None) | ~models.Q(approved_by=""), name="%(class)s_used_once_approved"
            ),
        ]


class AnchorContinuation(Consented):
    """That a chain's anchor is begun anew from the seal `number` (0: from before the first one), and what was found.

    A draft of `drafted_by`, a login and machine, until somebody who is signed in is `by`.
    """

    by = models.CharField(max_length=64, blank=True, default="")
    drafted_by = models.CharField(max_length=64, blank=True, default="")

    chain = models.CharField(max_length=64)
    generation = models.PositiveIntegerField()
    number = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)
    anchor_number = models.PositiveBigIntegerField()
    anchor_hash = models.CharField(max_length=64)
    found = models.CharField(max_length=255)

    class Meta(Consented.Meta):
        db_table = "anchor_continuations"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(approved_by="") | ~models.Q(by="") & ~models.Q(approved_by=models.F("by")),
                name="anchorcontinuation_four_eyes",
            ),
            models.CheckConstraint(
                condition=(~models.Q(by="") | ~models.Q(drafted_by="")) & ~models.Q(why=""),
                name="anchorcontinuation_says_who_and_why",
            ),
            *Consented.Meta.constraints[2:],
        ]
        indexes = [models.Index(fields=["chain", "at"], name="continuations_of")]

    def __str__(self) -> str:
        return f"{self.chain} from seal {self.number}"


class Lease(models.Model):
    """A short exclusive right that runs out by itself (`expires_at`)."""

    name = models.CharField(primary_key=True, max_length=128)
    holder = models.CharField(max_length=64, blank=True, default="")
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "leases"

    def __str__(self) -> str:
        return self.name


class RateLimitCounter(models.Model):
    """Tries of one counter of a rate limit, while Redis cannot be asked: `shared_kernel/domain/rate_limits.py`.

    `slices` is `number:tries number:tries`; the first refusal is told of again from `told_until` (seconds since 1970).
    """

    key = models.CharField(primary_key=True, max_length=64)  # an HMAC: it tells nobody of whom
    slices = models.TextField(blank=True, default="")
    told_until = models.FloatField(default=0.0)
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "rate_limit_counters"
        indexes = [models.Index(fields=["expires_at"], name="rate_limit_counters_old")]

    def __str__(self) -> str:
        return self.key
