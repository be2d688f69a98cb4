"""What a request may ask for at most, over the whole OpenAPI document: 64 KiB of JSON, and pages of 100."""

from collections.abc import Iterator
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer

pytestmark = pytest.mark.django_db

MOST_BYTES, MOST_ITEMS = 64 * 1024, 100
NEVER_MANY = {
    "list_devices": "MAX_DEVICES, which production bounds",
    "read_balances": "one for each currency",
}
SOME_ID = "01a20386-4e42-7775-a593-374a55958792"
DOCUMENT: dict[str, Any] = SchemaGenerator().get_schema(public=True)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in DOCUMENT["paths"].items():
        for method, operation in found.items():
            yield method.upper(), path, operation


def answered(operation: dict[str, Any]) -> dict[str, Any]:
    """The schema of the JSON that a success answers, references followed."""
    for status, answer in operation["responses"].items():
        if status.startswith("2") and "application/json" in answer.get("content", {}):
            schema = answer["content"]["application/json"]["schema"]
            found: dict[str, Any] = DOCUMENT["components"]["schemas"].get(schema.get("$ref", "").split("/")[-1], schema)
            return found
    return {}


TAKING_JSON = [
    pytest.param(method, path, id=operation["operationId"])
    for method, path, operation in operations()
    if "application/json" in operation.get("requestBody", {}).get("content", {})
]
LISTS = [
    (path, operation)
    for method, path, operation in operations()
    if "items" in answered(operation).get("properties", {}) or answered(operation).get("type") == "array"
]


@pytest.fixture
def browser():
    customer = a_customer(password=PASSWORD)
    browser = Browser()
    assert browser.sign_in(customer.email).status_code == 200
    browser.steps_up()
    return browser


def send(browser, method, path, size):
    """So many bytes of JSON, of a field that nobody knows."""
    body = b'{"x": "' + b"x" * (size - 9) + b'"}'
    assert len(body) == size
    headers = {"X-CSRFToken": browser.cookies["csrftoken"].value, "Idempotency-Key": "a" * 32}
    return browser.http.generic(method, path.replace("{id}", SOME_ID), body, "application/json", headers=headers)


def test_there_are_such_operations():
    assert len(TAKING_JSON) >= 8
    assert len(LISTS) >= 2


@pytest.mark.parametrize(("method", "path"), TAKING_JSON)
def test_no_body_is_larger_than_64_kib(browser, method, path):
    fits, too_large = (send(browser, method, path, size) for size in (MOST_BYTES, MOST_BYTES + 1))

    assert (too_large.status_code, too_large.json()["code"]) == (413, "body_too_large")
    assert (fits.status_code, fits.json()["code"]) == (400, "invalid_request")


def test_each_list_is_paged_and_no_page_is_longer_than_100(browser):
    for path, operation in LISTS:
        [limit] = [each for each in operation.get("parameters", []) if each["name"] == "limit"] or [None]
        if operation["operationId"] in NEVER_MANY:
            assert limit is None, path
            continue
        assert limit, f"{path} is a list without ?limit="
        assert limit["schema"]["maximum"] <= MOST_ITEMS, path
        place = path.removeprefix("/api/v1/").replace("{id}", SOME_ID)
        assert browser.get(f"{place}?limit={MOST_ITEMS}").status_code == 200, path
        for wrong in (MOST_ITEMS + 1, 0, -1, 10**9, "all"):
            answer = browser.get(f"{place}?limit={wrong}")
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_limit"), (path, wrong)


def test_no_form_of_the_back_office_is_read_beyond_64_kib(client):
    answer = client.post("/admin/login/", {"username": "mary", "password": "x" * MOST_BYTES})

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
