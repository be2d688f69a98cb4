"""STAFF_HOSTS: the back-office on a host of its own, the API on another, and neither on the other's."""

import pytest
from django.test import Client

from identity.models import User
from penpay.headers import DOCS

pytestmark = pytest.mark.django_db


def statuses(host, paths):
    client = Client(headers={"Host": host})
    return [client.get(path).status_code for path in paths]


PAGES = ["/admin/login/", "/admin/", "/api/v1/auth/csrf", "/api/v1/docs/", "/cb/s/token", "/", "/health/live"]


def test_without_it_one_host_has_all():
    assert statuses("localhost", PAGES) == [200, 302, 204, 200, 404, 404, 200]


def test_with_it_each_host_has_its_own(settings):
    settings.STAFF_HOSTS = ["localhost"]

    assert statuses("localhost", PAGES) == [200, 302, 404, 404, 404, 404, 200]
    assert statuses("localhost:8000", PAGES) == [200, 302, 404, 404, 404, 404, 200]
    assert statuses("127.0.0.1", PAGES) == [404, 404, 204, 200, 404, 404, 200]
    assert statuses("evil.example", ["/admin/login/", "/api/v1/auth/csrf"]) == [400, 400]


@pytest.mark.parametrize("prefix", ["/x", "/admin", "/health/x"])
def test_what_a_server_says_it_is_mounted_at_opens_no_other_host(settings, prefix):
    """A request can bring it along (`SCRIPT_NAME`): the views are found by the rest of the path alone."""
    settings.STAFF_HOSTS = ["localhost"]
    api, staff = Client(headers={"Host": "127.0.0.1"}), Client(headers={"Host": "localhost"})

    assert api.get("/admin/login/", SCRIPT_NAME=prefix).status_code == 404
    assert api.get("/api/v1/auth/csrf", SCRIPT_NAME=prefix).status_code == 204
    assert staff.get("/api/v1/auth/csrf", SCRIPT_NAME=prefix).status_code == 404


def test_nor_does_it_let_a_session_last_or_the_docs_go_without_their_policy():
    half = Client(headers={"Host": "localhost"})
    half.force_login(User.objects.create(username="mary", is_staff=True, is_superuser=True))

    assert half.get("/admin/", SCRIPT_NAME="/x").status_code == 302  # no second factor: signed out, not let in
    docs = half.get("/api/v1/docs/", SCRIPT_NAME="/x")
    assert docs.headers["Content-Security-Policy"] == DOCS
