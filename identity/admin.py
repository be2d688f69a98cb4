"""Staff's pages of people: their standing, devices, sessions and Deriv logins. Personal data is masked."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_http_methods

from identity import models
from identity.facade import kyc_submissions, particulars, queries, totp_removals
from identity.models import kyc as kyc_rows, staff as staff_rows
from shared_kernel.admin import AskedAdmin, GivenOnceAdmin, ReadOnlyAdmin, link, masked, row_url, table
from shared_kernel.api.context import identify
from shared_kernel.domain.identifiers import UserId

admin.site.unregister(Group)  # who may do what is set by migrations and commands, not by hand

# As every page of the back-office has it (`penpay/headers.py`), and images that stand in the page itself.
IMAGES_WITHIN = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; "
    "form-action 'self'"
)


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


class LookForm(forms.Form):
    """Why somebody looks at what a customer submitted."""

    why = forms.CharField(max_length=255, help_text="for the audit log; no personal data")


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
        "identity checks": ("identity_kycsnapshot", "user"),
        "removals of their authenticator": ("identity_totpremoval", "user_id"),
        "reveals": ("identity_particularsreveal", "user_id"),
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
        "kyc", "in_clear", "is_staff", "is_superuser", "is_active", "second_factor", "authenticator", "frozen_at",
        "closed_at", "restricted_at", "erase_after", "created_at", "last_login", "timeline", "events",
    )  # fmt: skip
    readonly_fields = (
        "handle", "see_also", "phone_masked", "email_masked", "tier", "kyc", "in_clear", "second_factor",
        "authenticator", "timeline", "events",
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

    @admin.display(description="particulars in clear")
    def in_clear(self, row: models.User) -> SafeString:
        """Whoever may not ask is refused there."""
        ask = reverse("admin:identity_particularsreveal_ask", args=[row.pk])
        return link(ask, "ask for them, with a reason; another one approves")

    @admin.display(description="second factor of staff")
    def second_factor(self, row: models.User) -> str:
        """Since when it is there."""
        factor = staff_rows.StaffFactor.objects.filter(user=row).values_list("confirmed_at", flat=True).first()
        return f"since {factor:%Y-%m-%d %H:%M}" if factor else "–"

    @admin.display(description="authenticator of a customer")
    def authenticator(self, row: models.User) -> SafeString:
        """Whoever may not ask that it is removed is refused there."""
        if not models.TotpFactor.objects.filter(pk=row.pk, confirmed_at__isnull=False).exists():
            return SafeString("–")
        ask = reverse("admin:identity_totpremoval_ask", args=[row.pk])
        return link(ask, "in use; ask that it is removed, if the customer lost it")


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


@admin.register(kyc_rows.KycSnapshot)
class KycSnapshotAdmin(OfUser):
    """What a customer submitted for their identity check. In clear only on a page of its own, each look audited."""

    list_display = ("id", "owner", "version", "id_type", "id_country", "id_expires_on", "submitted_at")
    list_filter = ("id_type",)
    fields = ("id", "owner", "version", "id_type", "id_country", "id_expires_on", "submitted_at", "in_clear")
    readonly_fields = ("owner", "in_clear")
    find_by = ("id", "user_id")

    def get_urls(self) -> Any:
        look = self.admin_site.admin_view(require_http_methods(["GET", "POST"])(self.look))
        return [path("<uuid:id>/documents/", look, name="identity_kycsnapshot_documents"), *super().get_urls()]

    def look(self, request: HttpRequest, id: UUID) -> TemplateResponse:
        """Asks why, and then shows facts and images. The images stand in the page itself: no URL leads to one."""
        if not request.user.has_perm("identity.see_kyc"):
            raise PermissionDenied
        owner = kyc_rows.KycSnapshot.objects.filter(pk=id).values_list("user_id", flat=True).first()
        if owner is None:
            raise Http404
        shown = {**self.admin_site.each_context(request), "title": "Documents"}
        form = LookForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return TemplateResponse(request, "identity/documents.html", {**shown, "form": form})
        identify(request, f"staff:{request.user.pk}")
        kyc_submissions.looked_at(id, owner, why=form.cleaned_data["why"])
        shown |= queries.kyc_submission(id) or {}
        response = TemplateResponse(request, "identity/documents.html", shown)
        response.headers["Content-Security-Policy"] = IMAGES_WITHIN
        return response

    @admin.display(description="documents")
    def in_clear(self, row: kyc_rows.KycSnapshot) -> SafeString:
        """Whoever may not see them is refused there."""
        return link(
            reverse("admin:identity_kycsnapshot_documents", args=[row.pk]),
            "look at them, with a reason; each look is audited",
        )


@admin.register(models.ParticularsReveal)
class ParticularsRevealAdmin(GivenOnceAdmin):
    """Who asked for a customer's particulars in clear, who approved it, and when they were shown."""

    right_to_ask = right_to_approve = "identity.reveal_particulars"
    about_column, subject = "user_id", "a customer's particulars"
    said = "this customer's names, phone, e-mail, address and Deriv account in clear."
    list_display = ("at", "owner", "by", "why", "expires_at", "approved_by", "used_at")
    find_by = ("id", "user_id")
    ordering = ("-id",)
    readonly_fields = ("owner", "decide", "take")
    fields = ("id", "owner", "by", "why", "at", "expires_at", "decide", "approved_by", "approved_at", "take", "used_at")

    def ask(self, about: UUID, *, by: str, why: str) -> UUID:
        return particulars.ask(about, by=by, why=why).id

    def approve(self, key: UUID, *, by: str) -> None:
        particulars.approve(key, by=by)

    def given(self, request: HttpRequest, about: UUID, *, by: str) -> HttpResponse:
        particulars.take(about, by=by)
        shown = {**self.admin_site.each_context(request), "title": "Particulars", "facts": queries.particulars(about)}
        return TemplateResponse(request, "identity/documents.html", shown)

    @admin.display(description="user", ordering="user_id")
    def owner(self, row: models.ParticularsReveal) -> SafeString:
        return link(row_url(models.User, row.user_id), row.user_id)


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


@admin.register(models.TotpRemoval)
class TotpRemovalAdmin(AskedAdmin):
    """Who asked that a customer's lost authenticator is taken away, and who approved it, which did it."""

    right_to_ask, right_to_approve = "identity.ask_totp_removal", "identity.approve_totp_removal"
    subject = "the removal of a lost authenticator"
    said = (
        "once another person has approved it, the authenticator is gone, all sessions end, the customer's verified "
        "phone and address are told, and large payouts wait as after a change of phone. Say how you made sure that it "
        "is the customer who asks."
    )
    list_display = ("at", "of", "by", "why", "expires_at", "approved_by", "used_at")
    find_by = ("id", "user_id")
    ordering = ("-id",)
    readonly_fields = ("of", "decide")
    fields = ("id", "of", "by", "why", "at", "expires_at", "decide", "approved_by", "approved_at", "used_at")

    def ask(self, about: UUID, *, by: str, why: str) -> UUID:
        return totp_removals.ask(UserId(about), by=by, why=why).id

    def approve(self, key: UUID, *, by: str) -> None:
        totp_removals.approve(key, by=by)

    @admin.display(description="customer")
    def of(self, row: models.TotpRemoval) -> SafeString:
        return link(row_url(models.User, row.user_id), row.user_id)


@admin.register(models.DerivLogin)
class DerivLoginAdmin(OfUser):
    """A Deriv account that is a customer's."""

    personal = ("account",)
    list_display = ("id", "owner", "platform", "account_masked", "currency", "name_matches", "bound_at", "revoked_at")
    fields = (
        "id", "owner", "platform", "account_masked", "currency", "name_matches", "bound_at", "checked_at", "revoked_at",
        "expires_at", "lost_at",
    )  # fmt: skip
    readonly_fields = ("owner", "account_masked")
    find_by = ("id", "user_id")

    @admin.display(description="account")
    def account_masked(self, row: models.DerivLogin) -> str:
        return masked(row.account)
