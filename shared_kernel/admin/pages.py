"""What every admin page starts from: `ReadOnlyAdmin`, and how links, tables and amounts look."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from shared_kernel import models
from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import BlindIndexField, EncryptedField

admin.site.site_header = admin.site.site_title = "PenPay back-office"
admin.site.index_title = "Records"
admin.site.site_url = None


SEALED = (EncryptedField, BlindIndexField)

if TYPE_CHECKING:  # generic for the type checker only
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyPaginator = Paginator[Any]
else:
    AnyModelAdmin = admin.ModelAdmin
    AnyPaginator = Paginator


class ShortCount(AnyPaginator):
    """Counts no further than `most` rows, so that a page of a huge table costs what a page of a small one does."""

    most = 10_000

    @property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[: self.most].count())


class ReadOnlyAdmin(AnyModelAdmin):
    """Lists and shows rows, and changes none: no adding, changing, deleting, no actions, every POST refused.

    `find_by` names the columns that the search box compares exactly (ids, references). `about` is what audit rows call
    this kind of thing (`AuditLog.target_type`), so that they can link here. `elsewhere` maps a label to (admin page,
    its column that holds this row's id): lists of other contexts, which are known here by name. Encrypted columns are
    left out; a page shows one masked through a method of its own, and names it in `personal` if its list needs it.
    """

    actions = None
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # a COUNT for each choice
    paginator = ShortCount
    view_on_site = False
    find_by: ClassVar[tuple[str, ...]] = ()
    personal: ClassVar[tuple[str, ...]] = ()
    about: ClassVar[str] = ""
    elsewhere: ClassVar[dict[str, tuple[str, str]]] = {}

    class Media:
        css = {"all": ["shared_kernel/admin.css"]}

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """What `fields` names; without it every column but the encrypted ones."""
        return self.fields or [field.name for field in self.model._meta.fields if not isinstance(field, SEALED)]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        sealed = [field.name for field in self.model._meta.fields if isinstance(field, EncryptedField)]
        return super().get_queryset(request).defer(*(name for name in sealed if name not in self.personal))

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        _only_read(request)
        return super().changelist_view(request, extra_context)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        _only_read(request)
        return super().changeform_view(request, *args, **kwargs)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """The audit log tells what happened; Django's own log knows nothing of these rows."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return HttpResponseRedirect(page_of("shared_kernel_auditlog", target_type=self.about, target_id=object_id))

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return self.find_by

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Exact matches over `find_by`: each an index look-up, never a LIKE."""
        term = search_term.strip()
        return (queryset.filter(self._matching(term)) if term else queryset), False

    def _matching(self, term: str) -> Q:
        matching = Q(pk__in=[])
        for name in self.find_by:
            try:
                matching |= Q(**{name: self.model._meta.get_field(name).to_python(term)})
            except (ValueError, ValidationError):
                continue  # not an id of that form
        return matching

    @admin.display(description="see also")
    def see_also(self, row: Any) -> SafeString:
        """Links to the rows of other contexts that belong to this one, and to its audit rows."""
        links = [(label, page_of(page, **{column: row.pk})) for label, (page, column) in self.elsewhere.items()]
        if self.about:
            links.append(("audit log", page_of("shared_kernel_auditlog", target_type=self.about, target_id=row.pk)))
        return format_html_join(" · ", '<a href="{}">{}</a>', ((url, label) for label, url in links if url))

    @admin.display(description="timeline")
    def timeline(self, row: Any) -> SafeString:
        """The row's audit records, oldest first: who, what, when, why."""
        records = models.AuditLog.objects.filter(target_type=self.about, target_id=str(row.pk)).order_by("seq")[:200]
        return table(
            ("at", "action", "before", "after", "why", "actor", "request"),
            (
                (
                    _time(r.at),
                    link(row_url(models.AuditLog, r.pk), r.action),
                    r.before,
                    r.after,
                    r.why,
                    r.actor,
                    r.request_id,
                )
                for r in records
            ),
        )

    @admin.display(description="events")
    def events(self, row: Any) -> SafeString:
        """The row's events, oldest first, and whether they were published."""
        events = models.DomainEvent.objects.filter(aggregate_id=row.pk).order_by("seq")[:200]
        return table(
            ("at", "event", "published", "attempts", "parked"),
            (
                (
                    _time(e.occurred_at),
                    link(row_url(models.DomainEvent, e.pk), e.type),
                    _time(e.published_at),
                    e.attempts,
                    _time(e.parked_at),
                )
                for e in events
            ),
        )


def _only_read(request: HttpRequest) -> None:
    if request.method not in {"GET", "HEAD", "OPTIONS"}:
        raise PermissionDenied


def page_of(page: str, **filters: Any) -> str:
    """The list `page` (`payments_transaction`), filtered; empty where there is no such page."""
    try:
        address = reverse(f"admin:{page}_changelist")
    except NoReverseMatch:
        return ""
    return f"{address}?{urlencode(filters)}"


def row_url(model: type[Model], key: Any) -> str:
    """The page of one row; empty where the model has no page."""
    try:
        return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[key])
    except NoReverseMatch:
        return ""


def target_url(about: str, key: str) -> str:
    """The page of what audit rows call `about`: found among the registered pages by their own `about`."""
    for model, page in admin.site._registry.items():
        if about and getattr(page, "about", "") == about:
            return row_url(model, key)
    return ""


def link(url: str, text: Any) -> SafeString:
    """An anchor, or the bare text without an address."""
    return format_html('<a href="{}">{}</a>', url, text) if url else format_html("{}", text)


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> SafeString:
    """A plain table inside a field; a dash when there is nothing to show."""
    body = format_html_join(
        "", "<tr>{}</tr>", ((format_html_join("", "<td>{}</td>", ((cell,) for cell in row)),) for row in rows)
    )
    if not body:
        return SafeString("–")
    head = format_html_join("", "<th>{}</th>", ((name,) for name in heads))
    return format_html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", head, body)


def amount(value: int | None, currency: str) -> str:
    """Minor units as people read them: `1300.00 KES`; a dash for none."""
    return "–" if value is None else str(Money(value, Currency(currency)))


def masked(text: str, *, keep: int = 2) -> str:
    """The first and last `keep` characters of personal data, the rest hidden; short texts entirely."""
    return "" if not text else f"{text[:keep]}***{text[-keep:]}" if len(text) >= 3 * keep else "***"


def _time(at: Any) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3]


def linked(about: str, column: str) -> Callable[[Any, Any], SafeString]:
    """A display column: the id in `column`, linked to the page of what audit rows call `about`."""

    @admin.display(description=column.removesuffix("_id").replace("_", " "), ordering=column)
    def show(page: Any, row: Any) -> SafeString:
        key: UUID | None = getattr(row, column)
        return SafeString("–") if key is None else link(target_url(about, str(key)), key)

    return show
