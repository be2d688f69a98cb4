"""What pages on which staff decide have in common: how a refusal is told, and what takes two people."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
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


class AskForm(forms.Form):
    """What whoever approves it has to know."""

    why = forms.CharField(max_length=255, help_text="for who approves it and for the audit log; no personal data")


class AskedAdmin(ConsentAdmin):
    """What has a page on which it is asked for, with a reason, by the id of what it is about."""

    right_to_ask: ClassVar[str]
    subject: ClassVar[str]  # what is asked for
    said: ClassVar[str]  # to who asks, about it

    def ask(self, about: UUID, *, by: str, why: str) -> UUID:
        """The id of what was asked for. Raises `DomainError` for what it refuses."""
        raise NotImplementedError

    def get_urls(self) -> Any:
        asking = self.admin_site.admin_view(self.asking)
        return [path("ask/<uuid:id>/", asking, name=self._named("ask")), *super().get_urls()]

    def asking(self, request: HttpRequest, id: UUID) -> HttpResponse:
        def ask(by: str, form: forms.Form) -> HttpResponse:
            return HttpResponseRedirect(row_url(self.model, self.ask(id, by=by, why=form.cleaned_data["why"])))

        return self.form_page(request, self.right_to_ask, AskForm, f"Ask for {self.subject}", id, ask)

    def form_page(
        self, request: HttpRequest, right: str, kind: type[forms.Form], title: str, about: UUID, act: Callable[..., Any]
    ) -> HttpResponse:
        """A form and, once it is filled in, what `act(who is signed in, form)` answers."""
        if not request.user.has_perm(right):
            raise PermissionDenied
        form = kind(request.POST if request.method == "POST" else None)
        refused: list[str] = []
        if form.is_valid():
            who = f"staff:{request.user.pk}"
            with Telling(refused.append), acting_as(replace(current_context(), actor=who)):
                done: HttpResponse = act(who, form)
                return done
        told = {"title": title, "form": form, "refused": refused, "about": about, "said": self.said}
        return TemplateResponse(request, "shared_kernel/asked.html", {**self.admin_site.each_context(request), **told})


class GivenOnceAdmin(AskedAdmin):
    """What somebody is shown in clear: they ask with a reason, another one approves, and they take it, once."""

    about_column: ClassVar[str]  # of the row: the id of what it is about

    def given(self, request: HttpRequest, about: UUID, *, by: str) -> HttpResponse:
        """Raises `DomainError` for what it refuses."""
        raise NotImplementedError

    def get_urls(self) -> Any:
        taking = self.admin_site.admin_view(self.taking)
        return [path("take/<uuid:id>/", taking, name=self._named("take")), *super().get_urls()]

    def taking(self, request: HttpRequest, id: UUID) -> HttpResponse:
        def take(by: str, _: forms.Form) -> HttpResponse:
            answer = self.given(request, id, by=by)
            answer.headers["Cache-Control"] = "no-store"
            return answer

        return self.form_page(request, self.right_to_ask, forms.Form, f"Take {self.subject}, once", id, take)

    @admin.display(description="to take")
    def take(self, row: Any) -> SafeString:
        """A link for who asked, once it is approved and until it was taken."""
        if not row.approved_by or row.used_at:
            return SafeString("–")
        url = reverse(f"admin:{self._named('take')}", args=[getattr(row, self.about_column)])
        return format_html('<a href="{}">take it</a>: once, by who asked', url)
