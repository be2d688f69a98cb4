"""Identity's rows: who may sign in, what is known of them, their devices and sessions, and their Deriv logins.

Personal data is in encrypted columns (bound to row and column, so every such row has a UUID key); what is looked up has
a blind index beside it. `users` holds customers and staff alike. What they submit for their identity check is in
`kyc`, how staff sign in in `staff`.
"""

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import Group, PermissionsMixin
from django.db import models
from django.utils import timezone

from identity.domain.kyc import KycStatus, PepStatus
from identity.models import kyc, staff  # noqa: F401 - Django finds here what these two hold; import them by name
from shared_kernel.infrastructure.encryption import BlindIndexField, EncryptedField, blind_index
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.models import Consented, UuidField


class StaffManager(BaseUserManager["User"]):
    """What Django's own sign-in (the staff site) and `createsuperuser` ask for: it finds staff, by e-mail or name.

    Customers are never found here, so that the staff site cannot be used to try their passwords.
    """

    def get_by_natural_key(self, username: str | None) -> "User":
        given = (username or "").strip().lower()
        known_by = {"email_index": blind_index("users.email", given)} if "@" in given else {"username": given}
        return self.get(is_staff=True, **known_by)

    def create_superuser(self, username: str, email: str, password: str | None = None) -> "User":
        """A member of staff with every right. `createsuperuser` asks for the three."""
        return self.create_staff(username, email, password, is_superuser=True)

    def create_staff(
        self, username: str, email: str, password: str | None, *groups: str, is_superuser: bool = False
    ) -> "User":
        """A member of staff in these groups, which have to be there."""
        address = email.strip().lower()
        row = self.model(
            username=username.strip().lower(),
            email=address,
            email_index=blind_index("users.email", address),
            is_staff=True,
            is_superuser=is_superuser,
        )
        row.set_password(password)
        row.save(using=self._db)
        row.groups.set([Group.objects.get(name=name) for name in groups])
        return row


class User(AbstractBaseUser, PermissionsMixin):
    """Somebody who may sign in. Customers sign in with phone or e-mail; their `username` is a random handle.

    `token_epoch` ends all sessions at once when it goes up: a session holds the epoch of its birth. A customer whose
    data was erased is `restricted_at` for ever; what the law keeps of them, and of whom `closed_at` ended the account,
    goes after `erase_after`.
    """

    id = UuidField(primary_key=True, default=new_id, editable=False)
    username = models.CharField("staff name", max_length=64, unique=True)
    phone = EncryptedField(blank=True, default="")  # 2547XXXXXXXX
    phone_index = BlindIndexField(unique=True, null=True, blank=True)
    email = EncryptedField(blank=True, default="")  # in lower case
    email_index = BlindIndexField(unique=True, null=True, blank=True)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    frozen_at = models.DateTimeField(null=True, blank=True)
    token_epoch = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    phone_verified_at = models.DateTimeField(null=True, blank=True)
    phone_changed_at = models.DateTimeField(null=True, blank=True)  # NULL: it is the one of the registration
    email_verified_at = models.DateTimeField(null=True, blank=True)
    totp_removed_at = models.DateTimeField(null=True, blank=True)  # by support, two people of it
    closed_at = models.DateTimeField(null=True, blank=True)
    restricted_at = models.DateTimeField(null=True, blank=True)
    erase_after = models.DateTimeField(null=True, blank=True)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["email"]
    objects: ClassVar[StaffManager] = StaffManager()

    class Meta:
        db_table = "users"
        indexes = [models.Index(fields=["erase_after"], name="users_to_be_erased")]
        constraints = [
            models.CheckConstraint(
                name="user_restricted_is_closed", condition=models.Q(restricted_at=None) | models.Q(is_active=False)
            ),
            models.CheckConstraint(
                name="user_closed_is_not_active", condition=models.Q(closed_at=None) | models.Q(is_active=False)
            ),
            models.CheckConstraint(
                name="user_erased_later_is_closed",
                condition=models.Q(erase_after=None) | models.Q(closed_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.username


class Profile(models.Model):
    """What a customer told of themselves."""

    user = models.OneToOneField(User, models.PROTECT, primary_key=True, related_name="profile")
    full_name = EncryptedField()
    date_of_birth = EncryptedField(blank=True, default="")  # YYYY-MM-DD
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "user_profile"

    def __str__(self) -> str:
        return str(self.user_id)


class Address(models.Model):
    """Where a customer lives, since when; the newest counts."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, models.PROTECT, related_name="addresses")
    line = EncryptedField()
    town = EncryptedField(blank=True, default="")
    county = EncryptedField(blank=True, default="")
    postal_code = EncryptedField(blank=True, default="")
    country = models.CharField(max_length=2, default="KE")  # ISO 3166-1
    created_at = models.DateTimeField()

    class Meta:
        db_table = "user_address"

    def __str__(self) -> str:
        return str(self.id)


class Compliance(models.Model):
    """A customer's standing by law; each change has its audit row."""

    user = models.OneToOneField(User, models.PROTECT, primary_key=True, related_name="compliance")
    kyc_status = models.CharField(max_length=16, choices=[(s.value, s.value) for s in KycStatus], default="none")
    kyc_status_at = models.DateTimeField(null=True, blank=True)
    kyc_expires_at = models.DateTimeField(null=True, blank=True)
    tier = models.CharField(max_length=16, default="none")
    pep_status = models.CharField(max_length=16, choices=[(s.value, s.value) for s in PepStatus], default="unknown")
    pep_status_at = models.DateTimeField(null=True, blank=True)
    screened_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "user_compliance"
        constraints = [
            models.CheckConstraint(
                name="compliance_kyc_status", condition=models.Q(kyc_status__in=[s.value for s in KycStatus])
            ),
            models.CheckConstraint(
                name="compliance_pep_status", condition=models.Q(pep_status__in=[s.value for s in PepStatus])
            ),
        ]

    def __str__(self) -> str:
        return str(self.user_id)


class Verification(models.Model):
    """A one-time code that was sent to the `user`: an HMAC, open for one use until `expires_at` or too many tries.

    `open` is true or NULL, so that the unique constraint admits one open code for each customer, purpose and asker.
    `asker` says who asked for a reset: `device:<id>` of a device that is known, empty for strangers; it is empty
    for all other purposes.
    """

    id = UuidField(primary_key=True, default=new_id, editable=False)
    purpose = models.CharField(max_length=32)
    asker = models.CharField(max_length=64, blank=True, default="", db_default="")
    code_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)  # NULL: nobody knows that it went out
    expires_at = models.DateTimeField()
    attempts = models.PositiveSmallIntegerField(default=0)
    consumed_at = models.DateTimeField(null=True)
    open = models.BooleanField(null=True, default=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return str(self.id)


class PhoneVerification(Verification):
    """A code that went by SMS."""

    user = models.ForeignKey(User, models.PROTECT, related_name="phone_verifications")
    phone = EncryptedField()

    class Meta:
        db_table = "user_phone_verification"
        indexes = [models.Index(fields=["user", "created_at"], name="phone_verification_recent")]
        constraints = [
            models.UniqueConstraint(fields=["user", "purpose", "asker", "open"], name="phone_verification_one_open"),
            models.CheckConstraint(name="phone_verification_open", condition=models.Q(open=True) | models.Q(open=None)),
        ]


class EmailVerification(Verification):
    """A code that went by e-mail."""

    user = models.ForeignKey(User, models.PROTECT, related_name="email_verifications")
    email = EncryptedField()

    class Meta:
        db_table = "user_email_verification"
        indexes = [models.Index(fields=["user", "created_at"], name="email_verification_recent")]
        constraints = [
            models.UniqueConstraint(fields=["user", "purpose", "asker", "open"], name="email_verification_one_open"),
            models.CheckConstraint(name="email_verification_open", condition=models.Q(open=True) | models.Q(open=None)),
        ]


class TotpFactor(models.Model):
    """A customer's authenticator app. `last_counter` is the time step of the last code: none is taken twice.

    Wrong codes are counted for a new device's sign-in and for step-ups apart.
    """

    user = models.OneToOneField(User, models.PROTECT, primary_key=True, related_name="totp_factor")
    secret = EncryptedField()  # base32
    created_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True)
    last_counter = models.BigIntegerField(default=0)
    sign_in_failures = models.PositiveSmallIntegerField(default=0)
    sign_in_locks = models.PositiveSmallIntegerField(default=0)
    sign_in_failed_at = models.DateTimeField(null=True)
    sign_in_locked_until = models.DateTimeField(null=True)
    step_up_failures = models.PositiveSmallIntegerField(default=0)
    step_up_locks = models.PositiveSmallIntegerField(default=0)
    step_up_failed_at = models.DateTimeField(null=True)
    step_up_locked_until = models.DateTimeField(null=True)

    class Meta:
        db_table = "totp_factors"

    def __str__(self) -> str:
        return str(self.user_id)


class ParticularsReveal(Consented):
    """That one of staff is shown a customer's particulars in clear, once."""

    user_id = UuidField()

    class Meta(Consented.Meta):
        db_table = "particulars_reveals"
        indexes = [models.Index(fields=["user_id", "at"], name="particulars_reveals_of")]

    def __str__(self) -> str:
        return f"{self.user_id} in clear"


class TotpRemoval(Consented):
    """That a customer's lost authenticator is taken away: asked for by one of support, approved by another person."""

    user_id = UuidField()

    class Meta(Consented.Meta):
        db_table = "totp_removals"
        indexes = [models.Index(fields=["user_id", "at"], name="totp_removals_of")]
        verbose_name = "removal of an authenticator"
        verbose_name_plural = "removals of authenticators"

    def __str__(self) -> str:
        return f"the authenticator of {self.user_id} is taken away"


class Notice(models.Model):
    """What a customer is told of on a channel of theirs; the target is emptied once it was sent."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, models.PROTECT, related_name="notices")
    kind = models.CharField(max_length=32)
    channel = models.CharField(max_length=8)
    target = EncryptedField(blank=True, default="")
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "user_notices"

    def __str__(self) -> str:
        return str(self.id)


class DerivLogin(models.Model):
    """A Deriv account that is a customer's, proven by its token. It stays this customer's for ever (`account_index`).

    `active_for` is the customer while this is the account that deposits go to, else NULL: one for each customer.
    """

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, models.PROTECT, related_name="deriv_logins")
    active_for = models.OneToOneField(User, models.PROTECT, null=True, related_name="deriv_login")
    platform = models.CharField(max_length=8)
    account = EncryptedField()
    account_index = BlindIndexField(unique=True)
    currency = models.CharField(max_length=8)
    full_name = EncryptedField()
    name_matches = models.BooleanField()
    token = EncryptedField(blank=True, default="")
    refresh_token = EncryptedField(blank=True, default="")
    expires_at = models.DateTimeField(null=True)  # of the token; NULL: it lasts until Deriv refuses it
    refreshed_at = models.DateTimeField(null=True)
    refreshing_until = models.DateTimeField(null=True)  # set while one request asks Deriv for another token
    lost_at = models.DateTimeField(null=True)  # Deriv refused the token: the customer has to bind anew
    bound_at = models.DateTimeField()
    checked_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "deriv_logins"
        constraints = [
            models.CheckConstraint(
                name="deriv_login_active_is_own",
                condition=models.Q(active_for=None, revoked_at__isnull=False)
                | models.Q(active_for__isnull=False, active_for=models.F("user"), revoked_at=None),
            )
        ]

    def __str__(self) -> str:
        return str(self.id)


class DerivAuthorization(models.Model):
    """A sign-in at Deriv that a customer began: found by a hash of its state, gone once it is over.

    `code_hash` is an HMAC of the code that Deriv's redirect brought: the session that began has to hand the code over.
    """

    user = models.OneToOneField(User, models.PROTECT, primary_key=True, related_name="deriv_authorization")
    session_id = UuidField()
    platform = models.CharField(max_length=8)
    state_hash = models.CharField(max_length=64, unique=True)  # SHA-256 of 256 random bits
    verifier = EncryptedField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    returned_at = models.DateTimeField(null=True)
    code_hash = models.CharField(max_length=64, blank=True, default="")
    tries = models.PositiveSmallIntegerField(default=0)

    class Meta:
        db_table = "deriv_authorizations"

    def __str__(self) -> str:
        return str(self.user_id)


class Device(models.Model):
    """A device that a customer signs in from, bound by a secret that its cookie holds (SHA-256 here).

    `slot` counts from 1 to the device limit and is NULL once revoked, so that the database holds the limit, too.
    """

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, models.PROTECT, related_name="devices")
    client_id = models.CharField(max_length=64)  # the id that the client goes by
    name = models.CharField(max_length=64)
    platform = models.CharField(max_length=32)
    secret_hash = models.CharField(max_length=64)
    slot = models.PositiveSmallIntegerField(null=True)
    created_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "devices"
        constraints = [
            models.UniqueConstraint(fields=["user", "slot"], name="device_slot"),
            models.CheckConstraint(
                name="device_slot_while_active",
                condition=models.Q(slot=None, revoked_at__isnull=False)
                | models.Q(slot__isnull=False, slot__gte=1, revoked_at=None),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Session(models.Model):
    """One sign-in on one device: the family of its refresh tokens, and what every access token names as `sid`."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, models.PROTECT, related_name="sessions")
    device = models.ForeignKey(Device, models.PROTECT, related_name="sessions")
    token_epoch = models.PositiveIntegerField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()  # however often it is refreshed
    stepped_up_at = models.DateTimeField(null=True)
    password_tries = models.PositiveSmallIntegerField(default=0, db_default=0)
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=32, blank=True, default="")

    class Meta:
        db_table = "sessions"

    def __str__(self) -> str:
        return str(self.id)


class RefreshToken(models.Model):
    """One refresh token of a session (SHA-256 of it): used once, then replaced; a second use ends the session."""

    id = UuidField(primary_key=True, default=new_id, editable=False)
    family = models.ForeignKey(Session, models.PROTECT, related_name="refresh_tokens")
    hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    replaced_by = UuidField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "refresh_tokens"

    def __str__(self) -> str:
        return str(self.id)
