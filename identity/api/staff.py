"""The pages by which staff sign in to the back-office, and what keeps a session of theirs from lasting.

Nobody is signed in (`request.user`) before the second factor: after the password a session only holds who may go on
to it. What is proven stands in the session beside Django's own keys, and each request is held against it.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import admin, auth as django_auth
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import PasswordChangeView
from django.core import signing
from django.core.validators import MaxLengthValidator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from identity.domain.staff_sign_in import (
    BETWEEN_STEPS,
    IDLE,
    LONGEST,
    FactorConfirmed,
    Seat,
    StaffMember,
    otpauth_uri,
)
from identity.facade import staff_sign_in
from shared_kernel.api.context import client_address, identify
from shared_kernel.domain.errors import DomainError, TooManyRequests
from shared_kernel.domain.identifiers import UserId
from shared_kernel.facade import now

PENDING, PROVEN = "penpay_pending", "penpay_proven"  # keys of the session
SEEN_EVERY = timedelta(minutes=1)  # a session is not written more often for being used
BROWSER_COOKIE = f"{'__Secure-' if settings.PRODUCTION else ''}penpay_staff_browser"
BROWSER_AGE = timedelta(days=90)
PLACE = "/admin/"
LONGEST_PASSWORD = 128
BACKEND = "django.contrib.auth.backends.ModelBackend"


class PasswordForm(forms.Form):
    """The first step."""

    username = forms.CharField(label="Name or e-mail", max_length=254, widget=forms.TextInput({"autofocus": True}))
    password = forms.CharField(max_length=LONGEST_PASSWORD, strip=False, widget=forms.PasswordInput)


class CodeForm(forms.Form):
    """The second one."""

    code = forms.CharField(
        max_length=32, widget=forms.TextInput({"autofocus": True, "autocomplete": "one-time-code", "size": 24})
    )


class NewPasswordForm(AdminPasswordChangeForm):
    """Django's, with an audit row; wrong old passwords are counted as those of a sign-in are."""

    def __init__(self, *args: Any, seat: Seat, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seat = seat
        self.refused: DomainError | None = None
        for name in ("old_password", "new_password1"):
            self.fields[name].validators.append(MaxLengthValidator(LONGEST_PASSWORD))

    def clean_old_password(self) -> str:
        given = str(self.cleaned_data["old_password"])
        member = StaffMember(id=UserId(self.user.pk), name=self.user.get_username(), password_hash=self.user.password)
        try:
            staff_sign_in.old_password(member, given, self.seat)
        except DomainError as refused:
            self.refused = refused
            raise forms.ValidationError(refused.detail, code=refused.code) from None
        return given

    def save(self, commit: bool = True) -> Any:
        staff_sign_in.change_password(UserId(self.user.pk), super().save)
        return self.user


def page(view: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Read or sent, with the CSRF token, never kept by a browser; what is sent stands in no error report."""
    kept_out = sensitive_post_parameters()(view)
    guarded: Callable[[HttpRequest], HttpResponseBase] = never_cache(
        csrf_protect(require_http_methods(["GET", "HEAD", "POST"])(kept_out))
    )
    return guarded


@page
def sign_in(request: HttpRequest) -> HttpResponse:
    """Name and password; then on to the second factor, or to enrolment where there is none."""
    if request.user.is_authenticated and request.method != "POST":
        return HttpResponseRedirect(reverse("admin:index"))
    form = PasswordForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name, password = form.cleaned_data["username"], form.cleaned_data["password"]
        try:
            member = staff_sign_in.password(
                name, password, lambda user: _browser(request, user), client_address(request)
            )
        except DomainError as refused:
            return _shown(request, "Sign in", form, refused)
        goes_to = _next(request)
        request.session.flush()  # whoever sat here before is gone, and so is any session id that was planted
        request.session[PENDING] = {
            "user": str(member.id),
            "name": member.name,
            "at": now().timestamp(),
            "next": goes_to,
            "password": _fingerprint(member.password_hash),
        }
        return HttpResponseRedirect(reverse("staff_factor"))
    return _shown(request, "Sign in", form)


@page
def factor(request: HttpRequest) -> HttpResponse:
    """The code of the authenticator, or a recovery code."""
    pending = _pending(request)
    if pending is None:
        return HttpResponseRedirect(reverse("admin:login"))
    if not staff_sign_in.has_factor(pending.id):
        return HttpResponseRedirect(reverse("staff_enrolment"))
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        seat = Seat(address=client_address(request), browser=_browser(request, pending.id))
        try:
            proven_by = staff_sign_in.factor(pending, form.cleaned_data["code"], seat)
        except DomainError as refused:
            return _shown(request, "Second factor", form, refused)
        return _let_in(request, pending, proven_by)
    return _shown(request, "Second factor", form)


@page
def enrolment(request: HttpRequest) -> HttpResponse:
    """A new authenticator: its secret, until the first code of it is given; then the recovery codes, once."""
    pending = _pending(request)
    if pending is None:
        return HttpResponseRedirect(reverse("admin:login"))
    form = CodeForm(request.POST or None)
    known = request.session[PENDING].get("factor")
    refusal: DomainError | None = None
    if request.method == "POST" and known and form.is_valid():
        try:
            codes = staff_sign_in.confirm(pending.id, UUID(known), form.cleaned_data["code"])
        except FactorConfirmed:
            return HttpResponseRedirect(reverse("staff_factor"))
        except DomainError as refused:
            refusal = refused
        else:
            goes_to = _let_in(request, pending, UUID(known))
            answer = _codes_shown(request, codes, goes_to.url)
            answer.cookies = goes_to.cookies
            return answer
    try:
        offered = staff_sign_in.enrol(pending.id, UUID(known) if known else None)
    except FactorConfirmed:
        return HttpResponseRedirect(reverse("staff_factor"))
    request.session[PENDING] = request.session[PENDING] | {"factor": str(offered.id)}
    uri = otpauth_uri(offered.secret, pending.name)
    return _shown(request, "Enrol a second factor", form, refusal, secret=offered.secret, uri=uri)


@page
def recovery_codes(request: HttpRequest) -> HttpResponse:
    """Ten new recovery codes, for a code of the authenticator."""
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        member = StaffMember(id=UserId(UUID(str(request.user.pk))), name=request.user.get_username(), password_hash="")
        seat = Seat(address=client_address(request), browser=_browser(request, member.id))
        try:
            codes = staff_sign_in.new_recovery_codes(member, form.cleaned_data["code"], seat)
        except DomainError as refused:
            return _shown(request, "New recovery codes", form, refused)
        return _codes_shown(request, codes, reverse("admin:index"))
    return _shown(request, "New recovery codes", form)


class NewPasswordView(PasswordChangeView):
    """Django's, with the form that counts."""

    def get_form_kwargs(self) -> dict[str, Any]:
        user = UserId(UUID(str(self.request.user.pk)))
        seat = Seat(address=client_address(self.request), browser=_browser(self.request, user))
        return {**super().get_form_kwargs(), "seat": seat}

    def form_invalid(self, form: Any) -> HttpResponse:
        return _too_many(super().form_invalid(form), form.refused)


@page
def password(request: HttpRequest) -> HttpResponseBase:
    """A new password, for the old one."""
    change = NewPasswordView.as_view(
        form_class=NewPasswordForm,
        success_url=reverse("admin:password_change_done"),
        extra_context=admin.site.each_context(request),
    )
    return change(request)


def _pending(request: HttpRequest) -> StaffMember | None:
    """Who gave their password in this session a while ago at most, and has changed it since not."""
    kept = request.session.get(PENDING)
    if not kept or not timedelta() <= now() - datetime.fromtimestamp(kept["at"], UTC) <= BETWEEN_STEPS:
        return None
    row = get_user_model().objects.filter(pk=UUID(kept["user"]), is_staff=True, is_active=True).first()
    if row is None or _fingerprint(row.password) != kept["password"]:
        return None
    return StaffMember(id=UserId(row.id), name=row.username, password_hash=row.password)


def _let_in(request: HttpRequest, member: StaffMember, proven_by: UUID) -> HttpResponseRedirect:
    """Signed in, by both factors; this browser is known from now on."""
    goes_to = request.session[PENDING]["next"] or reverse("admin:index")
    row = get_user_model().objects.get(pk=member.id)
    request.session.flush()
    django_auth.login(request, row, backend=BACKEND)
    prove(request.session, proven_by)
    answer = HttpResponseRedirect(goes_to)
    name = _browser(request, member.id) or secrets.token_urlsafe(16)
    answer.set_cookie(
        BROWSER_COOKIE,
        signing.dumps([str(member.id), name], salt=BROWSER_COOKIE),
        max_age=BROWSER_AGE,
        path=PLACE,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )
    return answer


def prove(session: Any, factor_id: UUID) -> None:
    """Marks a session as signed in with this factor, from now on."""
    at = now().timestamp()
    session[PROVEN] = {"factor": str(factor_id), "began": at, "seen": at}


def _browser(request: HttpRequest, user: UserId) -> str:
    """What this browser goes by if that member of staff has signed in with it; empty for another one."""
    try:
        whose, name = signing.loads(request.COOKIES.get(BROWSER_COOKIE, ""), salt=BROWSER_COOKIE, max_age=BROWSER_AGE)
    except (signing.BadSignature, ValueError, TypeError):
        return ""
    return str(name) if whose == str(user) else ""


def _fingerprint(password_hash: str) -> str:
    """What tells that a password is still the same, and is of no use to who reads the session."""
    return signing.Signer(salt=PENDING).signature(password_hash)


def _next(request: HttpRequest) -> str:
    wanted = request.GET.get("next", "")
    ours = wanted.startswith(PLACE) and url_has_allowed_host_and_scheme(wanted, allowed_hosts=None)
    return wanted if ours else ""


def _shown(
    request: HttpRequest, title: str, form: forms.Form, refused: DomainError | None = None, **more: Any
) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": title, "form": form, "refused": refused, **more}
    return _too_many(TemplateResponse(request, "identity/staff_sign_in.html", context), refused)


def _too_many(answer: HttpResponse, refused: DomainError | None) -> HttpResponse:
    """With the status that says so, and how long to wait, if that is the refusal."""
    if isinstance(refused, TooManyRequests):
        answer.status_code = refused.status
        answer["Retry-After"] = str(max(1, round(refused.extra["retry_after"])))
    return answer


def _codes_shown(request: HttpRequest, codes: list[str], goes_to: str) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": "Recovery codes", "codes": codes, "goes_to": goes_to}
    return TemplateResponse(request, "identity/recovery_codes.html", context)


class StaffSessionMiddleware:
    """Whoever is signed in below `/admin/` has proven both factors, lately enough; anybody else is signed out."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(PLACE) and request.user.is_authenticated:
            why = _why_over(request)
            if request.user.is_staff:
                identify(request, f"staff:{request.user.pk}")
            if why:
                staff_sign_in.ended(UserId(UUID(str(request.user.pk))), why)
                request.session.flush()
                request.user = AnonymousUser()
        return self.get_response(request)


def _why_over(request: HttpRequest) -> str:
    """Why this session is no good; empty while it is. Notes that it was used."""
    proven, at = request.session.get(PROVEN), now().timestamp()
    if not proven or not request.user.is_staff:
        return "unproven"
    if not 0 <= at - proven["began"] < LONGEST.total_seconds():
        return "too long"
    if not 0 <= at - proven["seen"] < IDLE.total_seconds():
        return "idle"
    if not staff_sign_in.stands(UserId(UUID(str(request.user.pk))), UUID(proven["factor"])):
        return "factor gone"
    if at - proven["seen"] >= SEEN_EVERY.total_seconds():
        request.session[PROVEN] = proven | {"seen": at}
    return ""


def note_sign_out(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    """Django's signal: somebody signed out by their own hand (one whose time is over was noted with the reason)."""
    if user is not None and request.path == reverse("admin:logout"):
        staff_sign_in.ended(UserId(user.pk), "signed out")


urlpatterns = [
    path("login/", sign_in),
    path("login/code/", factor, name="staff_factor"),
    path("login/enrol/", enrolment, name="staff_enrolment"),
    path("password_change/", admin.site.admin_view(password)),
    path("recovery-codes/", admin.site.admin_view(recovery_codes), name="staff_recovery_codes"),
]
