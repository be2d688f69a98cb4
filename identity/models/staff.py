"""How staff sign in: second factors, recovery codes and counted tries."""

from django.conf import settings
from django.db import models

from shared_kernel.infrastructure.encryption import BlindIndexField, EncryptedField
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.models import UuidField


class StaffFactor(models.Model):
    """A member of staff's authenticator app: the secret that it shares with us. It counts from `confirmed_at` on."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.PROTECT, related_name="staff_factor")
    secret = EncryptedField()  # base32
    created_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True)
    last_step = models.BigIntegerField(default=0)  # of 30 s each since 1970; no code of it or an older one is taken

    class Meta:
        db_table = "staff_factors"

    def __str__(self) -> str:
        return str(self.id)


class StaffRecoveryCode(models.Model):
    """A code that stands in for the authenticator, once; stored as an HMAC."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    factor = models.ForeignKey(StaffFactor, models.CASCADE, related_name="recovery_codes")
    hash = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "staff_recovery_codes"
        constraints = [models.UniqueConstraint(fields=["factor", "hash"], name="staff_recovery_code_once")]

    def __str__(self) -> str:
        return str(self.id)


class StaffSignInTries(models.Model):
    """How often somebody tried lately to sign in as a member of staff, by account, address or known browser.

    Rows are forgotten a while after their last try, by the tries that come later.
    """

    id = UuidField(primary_key=True, default=new_id, editable=False)
    key = BlindIndexField(unique=True)
    count = models.PositiveSmallIntegerField()
    last_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "staff_sign_in_tries"

    def __str__(self) -> str:
        return str(self.id)
