"""Staff in browsers of their own, signing in over HTTP as people do."""

from datetime import UTC, datetime

from django.test import Client

from identity.domain.staff_sign_in import (
    code_of,
    step_at,
)
from identity.tests.factories import PASSWORD
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import SECRET

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
LOGIN, CODE, ENROL, CODES = "/admin/login/", "/admin/login/code/", "/admin/login/enrol/", "/admin/recovery-codes/"


class Office(Client):
    """A browser with a CSRF check, from one address."""

    def __init__(self, address="10.0.0.1"):
        super().__init__(enforce_csrf_checks=True, headers={"Host": "localhost"}, REMOTE_ADDR=address)

    def send(self, path, **fields):
        self.get(path)
        return self.post(path, fields | {"csrfmiddlewaretoken": self.cookies["csrftoken"].value})

    def password(self, name="mary", password=PASSWORD, path=LOGIN):
        return self.send(path, username=name, password=password)

    def code(self, code, path=CODE):
        return self.send(path, code=code)

    def is_in(self):
        return self.get("/admin/").status_code == 200


def now_code(secret=SECRET):
    return code_of(secret, step_at(datetime.now(UTC)))


def another(code):
    return f"{(int(code) + 1) % 10**6:06d}"


def signed_in(**browser):
    office = Office(**browser)
    office.password()
    office.code(now_code())
    assert office.is_in()
    return office


def actions(*names):
    return list(AuditLog.objects.filter(action__in=names).order_by("seq").values_list("action", "target_id", "why"))


def wrong_passwords(office, count, name="mary"):
    return [office.password(name, "a wrong password").status_code for _ in range(count)]
