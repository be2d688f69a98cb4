"""STAFF_HOSTS: the back-office on a host of its own, the API on another, and neither on the other's."""

import pytest
from django.test import Client

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
