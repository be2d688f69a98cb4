"""What customers submitted for their identity check: rows that are kept as they were given."""

from django.conf import settings
from django.db import models

from identity.domain.kyc_snapshot import IdType, Side
from shared_kernel.infrastructure.encryption import BlindIndexField, EncryptedField
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.models import UuidField


class KycDocument(models.Model):
    """An identity document that a customer submitted: theirs for ever, so that one person has one account."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="kyc_documents")
    document_index = BlindIndexField(unique=True)  # of type, country and number
    claimed_at = models.DateTimeField()

    class Meta:
        db_table = "kyc_documents"

    def __str__(self) -> str:
        return str(self.id)


class KycSnapshot(models.Model):
    """One submission for the identity check, as it was given. Append-only; the newest `version` counts.

    Countries and the document's dates are in clear, for reports count by country and documents run out by date.
    """

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="kyc_snapshots")
    version = models.PositiveIntegerField()
    document = models.ForeignKey(KycDocument, models.PROTECT, related_name="snapshots")
    full_name = EncryptedField()
    id_type = models.CharField(max_length=16, choices=[(t.value, t.value) for t in IdType])
    id_country = models.CharField(max_length=2)  # whose authority gave it out; countries are ISO 3166-1
    id_number = EncryptedField()
    id_issued_on = models.DateField()
    id_expires_on = models.DateField()
    date_of_birth = EncryptedField()  # YYYY-MM-DD
    gender = EncryptedField()  # F, M, X
    nationality = models.CharField(max_length=2)
    residence = models.CharField(max_length=2)
    kra_pin = EncryptedField(blank=True, default="")
    submitted_at = models.DateTimeField()

    class Meta:
        db_table = "kyc_snapshots"
        verbose_name = "submission for the identity check"
        verbose_name_plural = "submissions for the identity check"
        constraints = [
            models.UniqueConstraint(fields=["user", "version"], name="kyc_snapshot_version"),
            models.CheckConstraint(
                name="kyc_snapshot_id_type", condition=models.Q(id_type__in=[t.value for t in IdType])
            ),
            models.CheckConstraint(
                name="kyc_snapshot_dates", condition=models.Q(id_issued_on__lt=models.F("id_expires_on"))
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class KycImage(models.Model):
    """An image of a submission: a JPEG, encrypted under a key of its own. Append-only; no URL leads here."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    snapshot = models.ForeignKey(KycSnapshot, models.PROTECT, related_name="images")
    side = models.CharField(max_length=8, choices=[(s.value, s.value) for s in Side])
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    key = EncryptedField()  # of `content`
    content = models.BinaryField()

    class Meta:
        db_table = "kyc_images"
        constraints = [
            models.UniqueConstraint(fields=["snapshot", "side"], name="kyc_image_side"),
            models.CheckConstraint(name="kyc_image_side_known", condition=models.Q(side__in=[s.value for s in Side])),
        ]

    def __str__(self) -> str:
        return str(self.id)
