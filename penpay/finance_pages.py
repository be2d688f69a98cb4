"""The back-office's pages for finance and auditors: reports to read, to filter and to take along as XLSX."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from penpay.finance import (
    TOTAL,
    Report,
    accounts_report,
    export,
    floats_report,
    fx_report,
    history_report,
    note_export,
    trial_balance_report,
)
from shared_kernel.api.context import identify
from shared_kernel.domain.money import Currency
from shared_kernel.facade import Cell, now
from wallet.facade import AccountKind, account, snapshot

A_PAGE, MOST_EXPORTED = 50, 50_000  # as many take some five seconds
TITLES = {
    "trial_balance": "Trial balance",
    "accounts": "Accounts and their history",
    "fx_position": "FX position",
    "float_positions": "Float positions",
}


class TooManyRows(ValueError):
    """More than a page exports."""


class Filters(forms.Form):
    """What a page may be asked for; nothing is required."""

    choices: ClassVar[list[tuple[str, str]]] = [("", "all"), *((str(c), str(c)) for c in Currency)]

    def report(self) -> Report:
        """The report, as far as a page shows it."""
        raise NotImplementedError

    def whole(self) -> Report:
        """All of it, for export."""
        return self.report()


class TrialBalance(Filters):
    """By currency, now or at the end of a day (UTC)."""

    currency = forms.ChoiceField(choices=Filters.choices, required=False)
    day = forms.DateField(label="at the end of", required=False, widget=forms.DateInput({"type": "date"}))

    def clean_day(self) -> date | None:
        """A day that is over."""
        day: date | None = self.cleaned_data["day"]
        if day and day >= now().date():
            raise forms.ValidationError("This day is not over: leave it out for the balances now.")
        return day

    def report(self) -> Report:
        day = self.cleaned_data["day"]
        last = _start_of(day) + timedelta(days=1, microseconds=-1) if day else None
        return trial_balance_report(currency=self.cleaned_data["currency"], as_of=last)


class Accounts(Filters):
    """By kind, owner, currency."""

    kind = forms.ChoiceField(choices=[("", "all"), *((str(k), str(k)) for k in AccountKind)], required=False)
    owner = forms.CharField(max_length=64, required=False, strip=True)
    currency = forms.ChoiceField(choices=Filters.choices, required=False)

    def report(self) -> Report:
        return accounts_report(**self.cleaned_data)


class History(Filters):
    """One account's, by days (UTC) of booking."""

    account = forms.UUIDField(widget=forms.HiddenInput)
    since = forms.DateField(label="booked from", required=False, widget=forms.DateInput({"type": "date"}))
    until = forms.DateField(label="to (included)", required=False, widget=forms.DateInput({"type": "date"}))
    before = forms.IntegerField(min_value=1, max_value=2**63 - 1, required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        """Days in their order."""
        given = cast("dict[str, Any]", super().clean())
        if given.get("since") and given.get("until") and given["since"] > given["until"]:
            raise forms.ValidationError("The first day is after the last one: exchange the two.")
        return given

    def report(self) -> Report:
        return self._history(before=self.cleaned_data["before"], limit=A_PAGE)

    def whole(self) -> Report:
        return self._history()

    def _history(self, **page: Any) -> Report:
        found = account(self.cleaned_data["account"])
        if found is None:
            raise Http404("no such account")
        since, until = self.cleaned_data["since"], self.cleaned_data["until"]
        end = _start_of(until) + timedelta(days=1) if until and until < date.max else None
        return history_report(found, since=since and _start_of(since), until=end, **page)


class FxPosition(Filters):
    """Nothing to choose."""

    def report(self) -> Report:
        return fx_report()


class Floats(Filters):
    """Nothing to choose."""

    def report(self) -> Report:
        return floats_report()


@require_safe
def page(request: HttpRequest, form: type[Filters]) -> HttpResponseBase:
    """One report: its filters, its table, and its XLSX with `?export=xlsx`."""
    if not may_see(request):
        raise PermissionDenied
    filters = form(request.GET)
    if not filters.is_valid():
        return _shown(request, filters, None, status=400)
    if request.GET.get("export") != "xlsx":
        with snapshot():
            report = filters.report()
            return _shown(request, filters, replace(report, rows=list(report.rows)))
    try:
        return _exported(request, filters)
    except TooManyRows as refused:
        filters.add_error(None, str(refused))
        return _shown(request, filters, None, status=422)


def index(request: HttpRequest) -> HttpResponseBase:
    """The back-office's first page, with the reports for those who may see them."""
    return admin.site.index(request, {"finance_reports": reports() if may_see(request) else []})


def may_see(request: HttpRequest) -> bool:
    """Whether somebody of staff has the right to."""
    return request.user.has_perm("wallet.see_finance_reports")


def _exported(request: HttpRequest, filters: Filters) -> FileResponse:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
    with snapshot():
        report = filters.whole()
        rows = export(replace(report, rows=_bounded(report)), file)
    identify(request, f"staff:{request.user.pk}")
    note_export(report, rows)
    file.seek(0)
    name = f"penpay-{report.name.replace('_', '-')}-{datetime.now(UTC):%Y%m%d-%H%M}.xlsx"
    return FileResponse(file, as_attachment=True, filename=name)


def _bounded(report: Report) -> Any:
    rows = iter(report.rows)
    yield from islice(rows, MOST_EXPORTED)
    if next(rows, None) is not None:
        raise TooManyRows(
            f"This page exports up to {MOST_EXPORTED:,} rows: take a shorter period, or have it written by"
            " manage.py finance_report account --xlsx."
        )


def _shown(request: HttpRequest, filters: Filters, report: Report | None, status: int = 200) -> TemplateResponse:
    given: dict[str, Any] = {name: value for name, value in request.GET.items() if value and name != "export"}
    older = {"before": report.next} if report and report.next else {}
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "is_nav_sidebar_enabled": False,
        "title": report.title if report else "This can't be shown",
        "reports": reports(),
        "form": filters,
        "report": report,
        "facts": [(name, shown(value)) for name, value in report.facts] if report else [],
        "heads": list(zip(report.heads, _numbers(report), strict=True)) if report else [],
        "rows": _rows(report) if report else [],
        "export": f"?{urlencode(without(given, 'before') | {'export': 'xlsx'})}",
        "older": f"?{urlencode(given | older)}" if older else "",
        "newest": f"?{urlencode(without(given, 'before'))}" if "before" in given else "",
    }
    return TemplateResponse(request, "penpay/finance.html", context, status=status)


def without(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All but one."""
    return {key: value for key, value in given.items() if key != name}


def reports() -> list[tuple[str, str]]:
    """Address and title of each page."""
    return [(reverse(f"finance:{name}"), title) for name, title in TITLES.items()]


def _rows(report: Report) -> list[dict[str, Any]]:
    links = [f"{reverse('finance:account')}?account={id}" for id in report.accounts]
    rows, numbers = list(report.rows), _numbers(report)
    return [
        {"cells": list(zip(map(shown, row), numbers, strict=True)), "link": link, "total": row[0] == TOTAL}
        for row, link in zip(rows, links or [""] * len(rows), strict=True)
    ]


def _numbers(report: Report) -> list[bool]:
    """Which columns are numbers."""
    columns = zip(*report.rows, strict=True) if report.rows else [()] * len(report.heads)
    return [any(isinstance(cell, Decimal | int) for cell in column) for column in columns]


def shown(cell: Cell) -> str:
    """As people read it; a dash for nothing."""
    match cell:
        case None | "":
            return "–"
        case Decimal():
            return f"{cell:,.2f}"
        case datetime():
            return f"{cell:%Y-%m-%d %H:%M:%S}"
        case _:
            return str(cell)


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


FORMS: dict[str, type[Filters]] = {
    "trial_balance": TrialBalance,
    "accounts": Accounts,
    "account": History,
    "fx_position": FxPosition,
    "float_positions": Floats,
}
app_name = "finance"
urlpatterns: list[URLPattern] = [
    path(f"{name.replace('_', '-')}/", admin.site.admin_view(page), {"form": form}, name=name)
    for name, form in FORMS.items()
]

admin.site.index_template = "penpay/index.html"
