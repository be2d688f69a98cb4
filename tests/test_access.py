"""Every route of the URL conf, by every method, as everybody: what comes back is what docs/access.md says.

A route that is missing there fails, and so does a row without a route. Each request is taken back.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from identity.domain.staff import ALL, GROUPS
from identity.models import User
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_kyc import signed_in as signed_in_with, submit
from shared_kernel.tests.staff import a_factor, signed_in
from tests.test_admin import a_payment

pytestmark = pytest.mark.django_db

PAGE = Path(__file__).resolve().parents[1] / "docs" / "access.md"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
STRANGERS = ("anonymous", "customer", "other customer", "password only")
ACTORS = (*STRANGERS, *GROUPS)
MODELS = {f"{model._meta.app_label}.{model._meta.model_name}": model for model in admin.site._registry}
APPS = sorted({name.partition(".")[0] for name in MODELS})
OF_EACH_MODEL = ("", "add/", "{object_id}/", "{object_id}/change/", "{object_id}/delete/", "{object_id}/history/")


@dataclass(frozen=True)
class Route:
    """One of the URL conf; of an admin page that every model has, `model` says whose it is, of a list of apps `app`."""

    pattern: str
    model: str = ""
    app: str = ""

    @property
    def row(self) -> str:
        """As the table calls it."""
        if self.app:
            return "/admin/{app}/"
        return self.pattern if not self.model else re.sub(r"^/admin/\w+/\w+/", "/admin/{app}/{model}/", self.pattern)


def routes(resolver: URLResolver | None = None, before: str = "/") -> Iterator[Route]:
    """All, each once a time that it stands there."""
    for each in (resolver or get_resolver()).url_patterns:
        path = before + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(each.pattern))
        if isinstance(each, URLResolver):
            yield from routes(each, path)
        elif isinstance(each, URLPattern):
            yield from _as_routes(path)


def _as_routes(path: str) -> Iterator[Route]:
    if (apps_listed := re.fullmatch(r"/admin/\^\(\?P\{app_label\}(.+)\)/\$", path)) is not None:
        yield from (Route(f"/admin/{app}/", app=app) for app in apps_listed[1].split("|"))
        return
    path = re.sub(r"\(\?P(\{\w+\})\.\*\)\$$", r"\1", path)
    of_model = re.fullmatch(r"/admin/(\w+)/(\w+)/(.*)", path)
    if of_model and f"{of_model[1]}.{of_model[2]}" in MODELS and of_model[3] in OF_EACH_MODEL:
        yield Route(path, model=f"{of_model[1]}.{of_model[2]}")
    else:
        yield Route(path)


@cache
def table() -> Mapping[tuple[str, str], Mapping[str, str]]:
    """The page's rows: what everybody gets, by route and method."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `/")]
    found: dict[tuple[str, str], Mapping[str, str]] = {}
    for line in lines:
        route, methods, *cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        assert len(cells) == len(ACTORS), line
        for method in methods.split():
            assert (route, method) not in found, f"{method} {route} stands there twice"
            found[route, method] = dict(zip(ACTORS, cells, strict=True))
    return found


def sees(group: str, model: str) -> bool:
    """By the table of groups."""
    seen = GROUPS[group].sees
    return model in seen or (ALL in seen and not model.startswith("auth."))


def wanted(route: Route, method: str, actor: str) -> int:
    """The status that the page promises; `sees` and `some` follow the table of groups."""
    cell = table()[route.row, method][actor]
    if cell == "sees":
        return 200 if sees(actor, route.model) else 403
    if cell == "sees302":
        return 302 if sees(actor, route.model) else 403
    if cell == "some":
        return 200 if any(sees(actor, model) for model in MODELS if model.startswith(f"{route.app}.")) else 404
    return int(cell)


def test_the_page_has_a_row_for_each_route_and_method_and_none_without_one():
    there = {(route.row, method) for route in routes() for method in METHODS}

    assert there - set(table()) == set(), "say in docs/access.md what everybody gets there"
    assert set(table()) - there == set(), "these are no more"
    assert len(there) > 300


class World:
    """Everybody, and one of each thing: the customer's where customers have it."""

    def __init__(self) -> None:
        self.owner, self.other = (a_customer(password=PASSWORD) for _ in range(2))
        self.clients: dict[str, Client] = {"anonymous": Client(headers={"Host": "localhost"})}
        for name, person in (("customer", self.owner), ("other customer", self.other)):
            browser = Browser()
            assert browser.sign_in(person.email, device=name.replace(" ", "-")).status_code == 200
            self.clients[name] = Client(headers={"Host": "localhost"})
            self.clients[name].cookies = browser.cookies
        self.payment = a_payment(who=self.owner).payment
        submit(signed_in_with(a_customer(password=PASSWORD, kyc_status="none")))
        apps.get_model("shared_kernel.DomainEvent").objects.update(published_at=timezone.now())  # /health/ready is fine

    def as_staff(self, actor: str) -> None:
        """Somebody of that group; or somebody of all groups who has given their password, and no code yet."""
        groups = [*GROUPS] if actor == "password only" else [actor]
        user = User.objects.create_staff("mary", "mary@penpay.example", PASSWORD, *groups)
        a_factor(user)
        if actor == "password only":
            client = Client(headers={"Host": "localhost"})
            answer = client.post("/admin/login/", {"username": "mary", "password": PASSWORD})
            assert answer.headers["Location"] == "/admin/login/code/"
        else:
            client = signed_in(user)
            assert client.get("/admin/").status_code == 200
        self.clients[actor] = client

    def address(self, route: Route) -> str:
        """The route with the ids of what is there, so that it is a right that is missing where somebody is refused."""
        known = {"kind": "s", "token": "not-a-token", "url": "nothing", "id": self.payment.pk}
        if route.pattern == "/api/v1/me/devices/{id}":
            known["id"] = "customer"
        if of_model := re.match(r"/admin/(\w+)/(\w+)/", route.pattern):
            model = MODELS.get(f"{of_model[1]}.{of_model[2]}")
            row = model._default_manager.order_by("pk").first() if model else None
            known |= {"key": row and row.pk, "object_id": row and row.pk}
        if route.pattern.startswith("/admin/identity/kycsnapshot/"):
            known["id"] = row.pk
        if route.pattern.startswith("/admin/r/"):
            kind = ContentType.objects.get_for_model(self.payment)
            known |= {"content_type_id": kind.pk, "object_id": self.payment.pk}
        return route.pattern.format(**known)

    def asks(self, actor: str, method: str, route: Route) -> int:
        """The status, everything that the request did taken back."""
        client = self.clients[actor]
        kept, place = {name: morsel.value for name, morsel in client.cookies.items()}, transaction.savepoint()
        form = not route.pattern.startswith("/api/")
        body = ("", "application/x-www-form-urlencoded") if form else ("{}", "application/json")
        client.raise_request_exception = False
        try:
            return client.generic(method, self.address(route), *body).status_code
        finally:
            transaction.savepoint_rollback(place)
            client.cookies.clear()
            client.cookies.load(kept)


@pytest.fixture
def _quiet():
    """A refusal in ten thousand is no news: its traceback would take longer than the request."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("actor", ACTORS)
def test_everybody_gets_what_the_page_says(actor, settings):
    settings.MPESA_CALLBACK_ALLOWED_IPS = ["196.201.214.200"]
    world = World()
    if actor not in world.clients:
        world.as_staff(actor)

    got = {(route, method): world.asks(actor, method, route) for route in routes() for method in METHODS}

    wrong = {
        f"{method} {route.pattern}": f"{status}, not {expected}"
        for (route, method), status in got.items()
        if status != (expected := wanted(route, method, actor))
    }
    assert wrong == {}


# --- what the table itself has to keep to -----------------------------------------------------------------------------


def cells(actors: Iterable[str], place: str) -> Iterator[tuple[str, str, str]]:
    for (route, method), row in table().items():
        if route.startswith(place):
            yield from ((route, method, row[actor]) for actor in actors)


def test_nobody_who_is_no_proven_member_of_staff_gets_anything_of_the_back_office():
    sign_in = {"/admin/login/", "/admin/login/code/", "/admin/login/enrol/"}

    let_in = {cell for cell in cells(STRANGERS, "/admin/") if cell[2] not in {"302", "405"} and cell[0] not in sign_in}

    assert let_in == set()


def test_staff_get_nothing_of_a_customers_through_the_api():
    open_to_all = {cell[:2] for cell in cells(["anonymous"], "/api/") if cell[2][0] == "2"}

    assert {cell for cell in cells(GROUPS, "/api/") if cell[2][0] == "2" and cell[:2] not in open_to_all} == set()


def test_no_member_of_staff_adds_changes_or_deletes_a_record_by_hand():
    by_hand = "/admin/{app}/{model}/"

    written = {c for c in cells(GROUPS, by_hand) if c[1] not in {"GET", "HEAD", "OPTIONS"} and c[2][0] == "2"}

    assert written == set()


def test_what_is_one_customers_is_404_for_another():
    for route in ("/api/v1/transactions/{id}", "/api/v1/me/devices/{id}"):
        mine, theirs = ({m: table()[route, m][who] for m in METHODS} for who in ("customer", "other customer"))
        assert {method for method in METHODS if mine[method][0] == "2" and theirs[method] != "404"} == {"OPTIONS"}, (
            route
        )
        assert set(mine.values()) & {"200", "204"}
