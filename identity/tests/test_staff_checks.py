"""Production takes no demo account, no password that our pages name, and nothing that two people share."""

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from identity.models import User
from identity.tests.factories import PASSWORD
from shared_kernel.tests.staff import SECRET, a_factor

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def production(settings):
    settings.PRODUCTION = True


def found():
    told = [message for message in run_checks(include_deployment_checks=True) if message.id.startswith("identity.")]
    assert told == [m for m in run_checks(databases=["default"]) if m.id.startswith("identity.")]
    return [(message.id, message.msg) for message in told]


def staff(name, domain="penpay.co.ke", password=PASSWORD):
    return User.objects.create_staff(name, f"{name}@{domain}", password)


def test_people_of_ones_own_are_fine():
    for name, secret in (("mary", SECRET), ("paul", "A" * 32)):
        a_factor(staff(name), secret)

    assert found() == []


@pytest.mark.parametrize("domain", ["example.com", "mail.example.org", "penpay.test"])
def test_a_demos_account_is_named(domain):
    staff("finance", domain)

    assert found() == [("identity.E001", f"finance is a demo's account: its e-mail address is at {domain}")]


def test_a_domain_that_only_looks_like_it_is_fine():
    staff("mary", "notexample.com")

    assert found() == []


@pytest.mark.parametrize("password", ["choose-your-own", "a long enough password"])
def test_a_password_that_everybody_can_read_is_named(password):
    staff("mary", password=password)

    assert [id for id, _ in found()] == ["identity.E002"]


def test_one_secret_of_two_people_is_named():
    for name in ("mary", "paul"):
        a_factor(staff(name), SECRET)

    [(id, told)] = found()

    assert (id, told) == ("identity.E003", "mary, paul share one second factor")
    assert SECRET not in told


def test_the_demos_data_would_stop_a_migration(settings):
    settings.PRODUCTION, settings.DERIV_AGENTS = False, []
    call_command("create_demo_data", "--staff-password", PASSWORD, "--staff-secret", SECRET, "--json")
    assert [m for m in run_checks(include_deployment_checks=True) if m.id.startswith("identity.")] == []
    settings.PRODUCTION = True

    with pytest.raises(SystemCheckError, match=r"identity\.E001"):
        call_command("check", "--database", "default")
    with pytest.raises(SystemCheckError, match=r"identity\.E001"):
        call_command("migrate", "--plan", skip_checks=False)


def test_who_is_not_active_any_more_is_no_matter():
    User.objects.filter(pk=staff("finance", "example.com").pk).update(is_active=False)

    assert found() == []
