"""What pages on which staff decide have in common: how a refusal is told, and what takes two people."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.safestring import SafeString

from shared_kernel.admin.pages import ReadOnlyAdmin, link, row_url
from shared_kernel.domain.errors import DomainError
from shared_kernel.facade import acting_as, current_context, lock_lost, now

BUSY = "somebody else is deciding at this moment, and nothing was stored: try it again"
View = Callable[..., HttpResponse]


@dataclass(frozen=True)
class Telling:
    """Around what somebody decides, one unit of work: what refuses it is given to `tell`, in words for whoever decides,
    and the block ends there. That is a `DomainError`, or a lock that was not to be had; everything else goes on.
    """

    tell: Callable[[str], object]

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, DomainError):
            self.tell(error.detail)
        elif isinstance(error, DatabaseError) and lock_lost(error):
            self.tell(BUSY)
        else:
            return False
        return True


def or_busy(view: View) -> View:
    """A page that reads under a lock what it shows: where that is not to be had there is nothing to show (503)."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except DatabaseError as error:
            if not lock_lost(error):
                raise
        context = {**admin.site.each_context(request), "title": "Busy", "busy": BUSY}
        return TemplateResponse(request, "shared_kernel/busy.html", context, status=503, headers={"Retry-After": "1"})

    return answer


class ConsentAdmin(ReadOnlyAdmin):
    """What takes two people: each row has a page on which another one than who asked approves it."""

    right_to_approve: ClassVar[str]

    def approve(self, key: UUID, *, by: str) -> None:
        """Carries the approval out. Raises `DomainError` for what it refuses."""
        raise NotImplementedError

    def get_urls(self) -> Any:
        return [self.page_to("approve", self.approving), *super().get_urls()]

    def page_to(self, name: str, view: View) -> Any:
        """The address of a page that decides about one row."""
        return path(f"<uuid:key>/{name}/", self.admin_site.admin_view(view), name=self._named(name))

    def approving(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """Who is signed in is who approves."""
        return self.acting(request, key, "Approve", self.right_to_approve, self.approve)

    def acting(self, request: HttpRequest, key: UUID, verb: str, right: str, act: Callable[..., None]) -> HttpResponse:
        """A page that shows what it is about, and a button: `act(key, by=who is signed in)`."""
        row = self.model._default_manager.filter(pk=key).first()
        if row is None or not request.user.has_perm(right):
            raise PermissionDenied
        refused: list[str] = []
        if request.method == "POST":
            who = f"staff:{request.user.pk}"
            with Telling(refused.append), acting_as(replace(current_context(), actor=who)):
                act(key, by=who)
                return HttpResponseRedirect(row_url(self.model, key))
        shown = [(str(name).replace("_", " "), getattr(row, name)) for name in self._told()]
        told = {"title": f"{verb}: {row}", "verb": verb, "refused": refused, "shown": shown}
        return TemplateResponse(
            request, "shared_kernel/approve.html", {**self.admin_site.each_context(request), **told}
        )

    def _told(self) -> list[str]:
        """The columns that whoever approves has to know."""
        later = {"id", "approved_by", "approved_at", "used_at"}
        return [field.name for field in self.model._meta.fields if field.name not in later]

    @admin.display(description="decide")
    def decide(self, row: Any) -> SafeString:
        """A link, while there is something to approve."""
        if row.approved_by or row.expires_at <= now():
            return SafeString("–")
        return self.link_to(row, "approve", "approve")

    def link_to(self, row: Any, name: str, text: str) -> SafeString:
        """To one of its pages that decide."""
        return link(reverse(f"admin:{self._named(name)}", args=[row.pk]), text)

    def _named(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"
