"""The OpenAPI document against the whole application: what schemathesis makes of it, a signed-in customer sends."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, settings as hypothesis
from schemathesis.checks import CHECKS

from deriv_integration.facade import deriv
from identity.api import deriv_login
from identity.facade import deriv_logins
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from payments.facade import withdrawals
from payments.models import ExchangeRate
from payments.tests.factories import a_float, a_quote
from payments.tests.withdrawing import DerivLogin, a_payout_float, an_offer
from penpay.wsgi import application
from shared_kernel.domain.requests import DerivPlatform
from tests.test_admin import a_payment

pytestmark = pytest.mark.django_db

UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
NOT_HELD = [
    "positive_data_acceptance",  # limits, quotes and one-time codes refuse bodies that are well-formed
    "ignored_auth",  # the customer's cookies are sent with every request; refusals have a test of their own, below
]


def document() -> dict[str, Any]:
    found: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return found


def as_the_customer_sees_it() -> Any:
    """Without the security schemes: cookies and CSRF token are always sent, so that bodies and queries are tried."""
    open_to_all = document()
    for operations in open_to_all["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    schema = schemathesis.openapi.from_dict(open_to_all)
    schema.app = application
    return schema


schema = as_the_customer_sees_it()


@pytest.fixture
def customer(monkeypatch: pytest.MonkeyPatch, adapter_of: Callable[..., Any]) -> Iterator[Browser]:
    """A signed-in customer who may deposit; Deriv is the simulator, today has a rate."""
    at_simulator = replace(deriv, platforms={DerivPlatform.WS_V3: adapter_of()})
    monkeypatch.setattr(deriv_login, "deriv_logins", replace(deriv_logins, deriv=at_simulator))
    now = timezone.now()
    ExchangeRate.objects.create(
        mid=Decimal("129.5"), margin_bps=40, valid_from=now, valid_until=now + timedelta(days=1), set_by="a",
        approved_by="b",
    )  # fmt: skip
    built = a_customer(password=PASSWORD)
    browser = Browser()
    assert browser.sign_in(built.email).status_code == 200
    browser.steps_up()
    for signal in (request_started, request_finished):  # the test's transaction outlives each request
        signal.disconnect(close_old_connections)
    yield browser
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@schema.parametrize()
@hypothesis(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_no_request_gets_a_5xx_or_an_undocumented_answer(case, customer):
    headers = {"Host": "localhost", "X-CSRFToken": customer.cookies["csrftoken"].value}
    cookies = {name: morsel.value for name, morsel in customer.cookies.items()}

    case.call_and_validate(
        headers=headers, cookies=cookies, excluded_checks=[CHECKS.get_one(name) for name in NOT_HELD]
    )


MENDED = ["negative_data_rejection"]  # what was wrong about a case's quote, its own quote mends
SENDS_MONEY = ["/api/v1/deposits", "/api/v1/withdrawals", "/api/v1/withdrawals/verification"]


@pytest.fixture
def quoted(
    customer: Browser,
    deriv_simulator: Any,
    adapter_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Callable[[Any], str], set[int]]]:
    """Makes a quote that the customer may accept there; and the statuses of the answers, of which one must be a yes."""
    at_simulator = replace(deriv, platforms={DerivPlatform.WS_V3: adapter_of()})
    monkeypatch.setattr("payments.api.withdrawals", replace(withdrawals, codes=at_simulator))
    a_float()
    a_payout_float()
    login = DerivLogin.objects.get()  # the customer's
    deriv_simulator.customer(login.account, name="AMINA", email="a@example.com", balance="50.00", token=login.token)
    statuses: set[int] = set()

    def quote(path: str) -> str:
        return str(a_quote(login.user_id).id if path.endswith("/deposits") else an_offer(login.user_id))

    yield quote, statuses
    assert 202 in statuses, "no request got as far as the command"


@schema.include(path=SENDS_MONEY).parametrize()
@hypothesis(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_no_request_about_a_quote_of_their_own_gets_a_5xx_or_an_undocumented_answer(case, customer, quoted):
    quote, statuses = quoted
    headers = {"Host": "localhost", "X-CSRFToken": customer.cookies["csrftoken"].value}
    cookies = {name: morsel.value for name, morsel in customer.cookies.items()}
    if isinstance(case.body, dict) and "quote_id" in case.body:
        case.body["quote_id"] = quote(case.path)

    answer = case.call_and_validate(
        headers=headers, cookies=cookies, excluded_checks=[CHECKS.get_one(name) for name in NOT_HELD + MENDED]
    )

    statuses.add(answer.status_code)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in document()["paths"].items():
        for method, operation in found.items():
            yield method.upper(), path.replace("{id}", "01a20386-4e42-7775-a593-374a55958792"), operation


@pytest.mark.parametrize(
    ("method", "path", "operation"), [pytest.param(*each, id=each[2]["operationId"]) for each in operations()]
)
def test_an_operation_that_needs_a_sign_in_refuses_without_one(method, path, operation):
    needed = {name for scheme in operation.get("security", []) for name in scheme}

    plain = Client(enforce_csrf_checks=True).generic(method, path, "{}", "application/json")
    browser = Browser()
    token = {"X-CSRFToken": browser.cookies["csrftoken"].value}
    with_csrf = browser.http.generic(method, path, "{}", "application/json", headers=token)

    if "csrf" in needed:
        assert (plain.status_code, plain.json()["code"]) == (403, "csrf_failed")
    if "cookie" in needed:
        assert (with_csrf.status_code, with_csrf.json()["code"]) == (401, "not_authenticated")
        assert with_csrf.headers["WWW-Authenticate"]
    assert ("csrf" in needed) is (method in UNSAFE)


def device_of(browser: Browser, owner: Any) -> str:
    return str(browser.get("me/devices").json()["items"][0]["id"])


def transaction_of(browser: Browser, owner: Any) -> str:
    return str(a_payment(who=owner).payment.id)


THINGS = {"/api/v1/me/devices/{id}": device_of, "/api/v1/transactions/{id}": transaction_of}


def test_somebody_elses_id_is_404_on_every_detail_route():
    details = {path: found for path, found in document()["paths"].items() if "{" in path}
    assert set(details) == set(THINGS), "a new detail route: say here how to make such a thing"

    for path, found in details.items():
        for method in found:
            owner, other = a_customer(password=PASSWORD), a_customer(password=PASSWORD)
            mine, theirs = Browser(), Browser()
            mine.sign_in(owner.email, device="owners-phone")
            theirs.sign_in(other.email)
            url = path.replace("{id}", THINGS[path](mine, owner))

            refused, answered = (
                browser.http.generic(method.upper(), url, headers={"X-CSRFToken": browser.cookies["csrftoken"].value})
                for browser in (theirs, mine)
            )

            assert (refused.status_code, refused.headers["Content-Type"]) == (404, "application/problem+json"), path
            assert answered.status_code in {200, 204}, path


def test_every_operation_documents_its_problems_and_closes_its_bodies():
    for method, path, operation in operations():
        assert {"400", "429", "503"} <= set(operation["responses"]), (method, path)
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
    schemas = document()["components"]["schemas"]
    for name in [name for name in schemas if name.endswith("Body")]:
        assert schemas[name]["additionalProperties"] is False, name


def test_the_document_that_is_checked_in_is_the_applications():
    from drf_spectacular.renderers import OpenApiYamlRenderer

    checked_in = Path(__file__).resolve().parent.parent / "docs" / "openapi.yaml"

    assert checked_in.read_bytes() == OpenApiYamlRenderer().render(document()), (
        "run: manage.py spectacular --file docs/openapi.yaml"
    )


def test_the_docs_load_nothing_from_elsewhere():
    client = Client(headers={"Host": "localhost"})

    page = client.get("/api/v1/docs/")

    assert page.status_code == 200
    assert b"https://" not in page.content
    assert b"//cdn" not in page.content
    assert b"<script>" not in page.content  # the policy below would not run it
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert client.get("/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js").status_code == 200
