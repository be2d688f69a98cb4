"""Staff's pages of people: their standing, devices, sessions and Deriv logins. Personal data is masked."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group
from django.utils.safestring import SafeString

from identity import models
from shared_kernel.admin import ReadOnlyAdmin, link, masked, row_url, table

admin.site.unregister(Group)  # who may do what is set by migrations and commands, not by hand


@admin.register(Group)
class GroupAdmin(ReadOnlyAdmin):
    """The groups of staff, with what each may do; `migrate` keeps ours to their table."""

    list_display = ("name",)
    fields = ("name", "rights")
    readonly_fields = ("rights",)

    @admin.display(description="rights")
    def rights(self, row: Group) -> SafeString:
        found = row.permissions.values_list("content_type__app_label", "codename", "name").order_by("codename")
        return table(("right", "what it allows"), ((f"{app}.{code}", about) for app, code, about in found))


def masked_email(text: str) -> str:
    """`j***@example.com`."""
    name, at, host = text.partition("@")
    return f"{name[:1]}***{at}{host}" if at else masked(text)


@admin.register(models.User)
class UserAdmin(ReadOnlyAdmin):
    """Somebody who may sign in."""

    about = "user"
    elsewhere = {
        "transactions": ("payments_transaction", "user_id"),
        "quotes": ("payments_quote", "user_id"),
        "ledger accounts": ("wallet_ledgeraccount", "owner"),
        "devices": ("identity_device", "user"),
        "sessions": ("identity_session", "user"),
        "Deriv logins": ("identity_derivlogin", "user"),
    }
    personal = ("phone", "email")
    list_display = (
        "id",
        "handle",
        "phone_masked",
        "email_masked",
        "tier",
        "kyc",
        "is_staff",
        "is_active",
        "created_at",
    )
    list_filter = ("is_staff", "is_active", ("frozen_at", admin.EmptyFieldListFilter))
    list_select_related = ("compliance",)
    find_by = ("id", "username")
    ordering = ("-id",)
    fields = (
        "id", "handle", "see_also", "phone_masked", "phone_verified_at", "email_masked", "email_verified_at", "tier",
        "kyc", "is_staff", "is_superuser", "is_active", "second_factor", "frozen_at", "created_at", "last_login",
        "timeline", "events",
    )  # fmt: skip
    readonly_fields = (
        "handle", "see_also", "phone_masked", "email_masked", "tier", "kyc", "second_factor", "timeline", "events",
    )  # fmt: skip

    @admin.display(description="name or handle", ordering="username")
    def handle(self, row: models.User) -> str:
        return row.username

    @admin.display(description="phone")
    def phone_masked(self, row: models.User) -> str:
        return masked(row.phone, keep=4)

    @admin.display(description="e-mail")
    def email_masked(self, row: models.User) -> str:
        return masked_email(row.email)

    @admin.display(description="tier")
    def tier(self, row: models.User) -> str:
        return str(getattr(getattr(row, "compliance", None), "tier", "–"))

    @admin.display(description="identity check")
    def kyc(self, row: models.User) -> str:
        return str(getattr(getattr(row, "compliance", None), "kyc_status", "–"))

    @admin.display(description="second factor of staff")
    def second_factor(self, row: models.User) -> str:
        """Since when it is there."""
        factor = models.StaffFactor.objects.filter(user=row).values_list("confirmed_at", flat=True).first()
        return f"since {factor:%Y-%m-%d %H:%M}" if factor else "–"


class OfUser(ReadOnlyAdmin):
    """A page of rows that belong to one user."""

    ordering = ("-pk",)

    @admin.display(description="user", ordering="user")
    def owner(self, row: Any) -> SafeString:
        return link(row_url(models.User, row.user_id), row.user_id)


@admin.register(models.Compliance)
class ComplianceAdmin(OfUser):
    """A customer's standing by law."""

    list_display = ("user_id", "owner", "kyc_status", "tier", "pep_status", "screened_at")
    list_filter = ("kyc_status", "pep_status")
    find_by = ("user_id",)
    fields = (
        "owner", "kyc_status", "kyc_status_at", "kyc_expires_at", "tier", "pep_status", "pep_status_at", "screened_at",
    )  # fmt: skip
    readonly_fields = ("owner",)


@admin.register(models.Device)
class DeviceAdmin(OfUser):
    """A device that a customer signs in from; its name is the customer's own text."""

    list_display = ("id", "owner", "name", "platform", "slot", "created_at", "last_seen_at", "revoked_at")
    fields = ("id", "owner", "name", "platform", "slot", "created_at", "last_seen_at", "revoked_at")
    readonly_fields = ("owner",)
    find_by = ("id", "user_id")


@admin.register(models.Session)
class SessionAdmin(OfUser):
    """One sign-in on one device."""

    list_display = ("id", "owner", "on_device", "created_at", "expires_at", "stepped_up_at", "ended_at", "ended_by")
    fields = ("id", "owner", "on_device", "created_at", "expires_at", "stepped_up_at", "ended_at", "ended_by")
    readonly_fields = ("owner", "on_device")
    find_by = ("id", "user_id")

    @admin.display(description="device")
    def on_device(self, row: models.Session) -> SafeString:
        return link(row_url(models.Device, row.device_id), row.device_id)


@admin.register(models.DerivLogin)
class DerivLoginAdmin(OfUser):
    """A Deriv account that is a customer's."""

    personal = ("account",)
    list_display = ("id", "owner", "platform", "account_masked", "currency", "name_matches", "bound_at", "revoked_at")
    fields = (
        "id", "owner", "platform", "account_masked", "currency", "name_matches", "bound_at", "checked_at", "revoked_at",
    )  # fmt: skip
    readonly_fields = ("owner", "account_masked")
    find_by = ("id", "user_id")

    @admin.display(description="account")
    def account_masked(self, row: models.DerivLogin) -> str:
        return masked(row.account)
