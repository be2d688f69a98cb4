"""The pages of anchors begun anew, events and audit rows."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from shared_kernel import models
from shared_kernel.admin.deciding import ConsentAdmin
from shared_kernel.admin.pages import ReadOnlyAdmin, link, target_url
from shared_kernel.facade import continuing, now


@admin.register(models.AnchorContinuation)
class AnchorContinuationAdmin(ConsentAdmin):
    """Anchors that somebody wants begun anew, because seals and anchor contradict one another. Think of an attack.

    `manage.py continue_anchor` drafts them; who is signed in makes a draft theirs, and another one approves.
    """

    right_to_ask = "shared_kernel.continue_anchor"
    right_to_approve = "shared_kernel.approve_anchor"
    list_display = ("at", "chain", "number", "anchor_number", "by", "expires_at", "approved_by", "used_at")
    ordering = ("-id",)
    readonly_fields = ("decide",)
    fields = (
        "id", "chain", "generation", "number", "hash", "anchor_number", "anchor_hash", "found", "drafted_by", "by",
        "why", "at", "expires_at", "decide", "approved_by", "approved_at", "used_at",
    )  # fmt: skip

    def get_urls(self) -> Any:
        return [self.page_to("adopt", self.adopting), *super().get_urls()]

    def approve(self, key: UUID, *, by: str) -> None:
        continuing.approve(key, by=by)

    def adopting(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """Who is signed in makes the draft theirs."""
        return self.acting(request, key, "Ask for it", self.right_to_ask, continuing.adopt)

    @admin.display(description="decide")
    def decide(self, row: models.AnchorContinuation) -> SafeString:
        """Of a draft, to the page on which somebody asks for it."""
        return super().decide(row) if row.by or row.expires_at <= now() else self.link_to(row, "adopt", "ask for it")


@admin.register(models.DomainEvent)
class DomainEventAdmin(ReadOnlyAdmin):
    """The outbox: what was told, and whether it arrived."""

    list_display = ("seq", "type", "aggregate", "occurred_at", "published_at", "attempts", "parked_at")
    list_filter = (("parked_at", admin.EmptyFieldListFilter), ("published_at", admin.EmptyFieldListFilter))
    find_by = ("id", "aggregate_id")
    ordering = ("-seq",)
    fields = (
        "seq", "id", "type", "aggregate", "payload", "context", "occurred_at", "published_at", "attempts",
        "next_attempt_at", "parked_at", "discarded_at", "error",
    )  # fmt: skip
    readonly_fields = ("aggregate",)

    @admin.display(description="of", ordering="aggregate_id")
    def aggregate(self, row: models.DomainEvent) -> SafeString:
        """The aggregate, linked to its page: its kind is the payload's field that holds its id."""
        kinds = (name.removesuffix("_id") for name, value in row.payload.items() if value == str(row.aggregate_id))
        return link(
            next((url for kind in kinds if (url := target_url(kind, str(row.aggregate_id)))), ""), row.aggregate_id
        )


@admin.register(models.AuditLog)
class AuditLogAdmin(ReadOnlyAdmin):
    """Who did what to which target."""

    list_display = ("seq", "at", "action", "target", "before", "after", "why", "actor", "address", "request_id")
    find_by = ("target_id", "request_id", "actor", "action")
    ordering = ("-seq",)
    fields = (
        "seq", "at", "action", "target_type", "target", "before", "after", "why", "details", "actor", "device",
        "address", "request_id",
    )  # fmt: skip
    readonly_fields = ("target",)

    @admin.display(description="target", ordering="target_id")
    def target(self, row: models.AuditLog) -> SafeString:
        """The target, linked to its page where there is one."""
        return link(target_url(row.target_type, row.target_id), f"{row.target_type} {row.target_id}")
