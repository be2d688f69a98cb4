"""What a customer is shown of themselves."""

from base64 import b64encode
from typing import Any
from uuid import UUID

from django.db.models import FilteredRelation, OuterRef, Q, Subquery

from identity import models
from identity.models import kyc as kyc_rows
from shared_kernel.infrastructure.encryption import DecryptionFailed, content_place, legible, open_content
from shared_kernel.infrastructure.persistence import now


def me(user_id: UUID) -> dict[str, Any] | None:
    """The account, in clear, for its owner's eyes only; None when there is no such customer. One query."""
    newest = models.Address.objects.filter(user_id=OuterRef("pk")).order_by("-created_at", "-id").values("id")[:1]
    address = FilteredRelation("addresses", condition=Q(addresses__id=Subquery(newest)))
    joined: tuple[str, ...] = ("profile", "compliance", "deriv_login", "address")
    row = models.User.objects.annotate(address=address).select_related(*joined).filter(pk=user_id).first()
    if row is None or not hasattr(row, "profile"):
        return None
    return {
        "id": str(row.id),
        "phone": f"+{row.phone}" if row.phone else "",
        "phone_verified": row.phone_verified_at is not None,
        "email": row.email,
        "email_verified": row.email_verified_at is not None,
        "full_name": row.profile.full_name,
        "address": _address(getattr(row, "address", None)),
        "kyc": {"status": standing(row.compliance), "tier": row.compliance.tier},
        "deriv_login_bound": getattr(row, "deriv_login", None) is not None,
        "created_at": row.created_at,
    }


def _address(row: models.Address | None) -> dict[str, str] | None:
    names = ("line", "town", "county", "postal_code", "country")
    return None if row is None else {name: getattr(row, name) for name in names}


def kyc(user_id: UUID) -> dict[str, str] | None:
    """Status and tier; a verification that has run out is `expired`."""
    row = models.Compliance.objects.filter(pk=user_id).first()
    if row is None:
        return None
    return {"status": standing(row), "tier": row.tier}


def standing(row: models.Compliance) -> str:
    """The KYC status at this moment: a verification that has run out is `expired`."""
    over = row.kyc_status == "verified" and row.kyc_expires_at is not None and row.kyc_expires_at <= now()
    return "expired" if over else row.kyc_status


def kyc_submission(id: UUID) -> dict[str, Any] | None:
    """One submission in clear, for staff who may see it, once the look is in the audit log; two queries.

    `facts` by their names; `images` as base64 of a JPEG by side, empty where it can't be decrypted.
    """
    row = kyc_rows.KycSnapshot.objects.filter(pk=id).first()
    if row is None:
        return None
    secret = ("full_name", "id_number", "date_of_birth", "gender", "kra_pin")
    plain = ("version", "id_type", "id_country", "id_issued_on", "id_expires_on", "nationality", "residence")
    facts = {name: legible(row, name) for name in secret} | {name: getattr(row, name) for name in plain}
    images = {image.side: _shown(image) for image in row.images.order_by("side")}
    return {"user_id": row.user_id, "facts": facts | {"submitted_at": row.submitted_at}, "images": images}


def _shown(image: kyc_rows.KycImage) -> str:
    try:
        return b64encode(open_content(image.key, bytes(image.content), content_place(image))).decode()
    except DecryptionFailed:
        return ""


def particulars(user_id: UUID) -> dict[str, str]:
    """A customer's names, contacts, address and Deriv account in clear, for staff who may see them, once that is in the
    audit log; what can't be decrypted says so.
    """
    row = models.User.objects.select_related("profile", "deriv_login").filter(pk=user_id).first()
    if row is None:
        return {}
    told = {"full name": legible(row.profile, "full_name")} if hasattr(row, "profile") else {}
    told |= {"phone": legible(row, "phone"), "e-mail": legible(row, "email")}
    if address := models.Address.objects.filter(user_id=user_id).order_by("-created_at", "-id").first():
        told |= {name.replace("_", " "): legible(address, name) for name in ("line", "town", "county", "postal_code")}
    if login := getattr(row, "deriv_login", None):
        told["Deriv account"] = legible(login, "account")
    return told


def statement_holder(user_id: UUID) -> dict[str, str]:
    """Whose statement it is, for a paper that is shown around: first name and initials, the number's ends; one SELECT.

    Empty texts where nothing is known.
    """
    row = models.User.objects.select_related("profile").filter(pk=user_id).first()
    first, *others = (row.profile.full_name.split() if row and hasattr(row, "profile") else []) or [""]
    phone = row.phone if row else ""
    return {
        "name": " ".join([first, *(f"{other[0]}." for other in others)]),
        "phone": f"+{phone[:4]}****{phone[-4:]}" if phone else "",
    }


def deriv_login_of(user_id: UUID) -> dict[str, Any] | None:
    """The Deriv login that deposits go to; None when none is bound."""
    rows = models.DerivLogin.objects.filter(active_for_id=user_id).defer("token", "refresh_token")
    row = rows.annotate(has_refresh_token=~Q(refresh_token="")).first()
    if row is None:
        return None
    over = row.expires_at is not None and row.expires_at <= now() and not row.has_refresh_token
    state = "lost" if row.lost_at is not None else "expired" if over else "active"
    known = {"platform": row.platform, "account": row.account, "currency": row.currency, "name": row.full_name}
    return known | {"state": state, "expires_at": row.expires_at}


def devices_of(user_id: UUID) -> list[dict[str, Any]]:
    """The active devices, oldest first."""
    rows = models.Device.objects.filter(user_id=user_id, revoked_at=None).order_by("created_at")
    return [
        {
            "id": row.client_id,
            "name": row.name,
            "platform": row.platform,
            "created_at": row.created_at,
            "last_seen_at": row.last_seen_at,
        }
        for row in rows
    ]


def party(user_id: UUID) -> dict[str, Any]:
    """A customer as a Transaction's evidence names them, in clear; empty where there is no such customer."""
    row = models.User.objects.select_related("profile", "compliance").filter(pk=user_id).first()
    if row is None:
        return {}
    profile, standing = getattr(row, "profile", None), getattr(row, "compliance", None)
    return {
        "id": str(row.id),
        "full_name": legible(profile, "full_name") if profile else "",
        "phone": legible(row, "phone"),
        "email": legible(row, "email"),
        "registered_at": row.created_at,
        "phone_verified_at": row.phone_verified_at,
        "kyc_status": standing.kyc_status if standing else "",
        "kyc_status_at": standing.kyc_status_at if standing else None,
        "tier": standing.tier if standing else "",
    }


def device(id: UUID) -> dict[str, Any]:
    """A device that somebody signed in from, revoked or not; its name is the customer's own text."""
    names = ("id", "name", "platform", "created_at", "revoked_at")
    return dict(models.Device.objects.filter(pk=id).values(*names).first() or {})
