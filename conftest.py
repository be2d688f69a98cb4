"""What all tests share; contexts add their own in `<context>/tests/fixtures.py`."""

import shutil
from dataclasses import replace
from importlib.util import find_spec
from secrets import token_hex

import pytest

pytest_plugins = [
    module
    for module in (
        "shared_kernel.tests.fixtures",
        "mpesa_integration.tests.fixtures",
        "deriv_integration.tests.fixtures",
    )
    if find_spec(module) is not None
]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings):
    """The test database is made by the migrating user, as production's is."""
    from shared_kernel.tests.users import become_owner

    become_owner()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker, anchor):
    """Tests run as the runtime user. Those with real commits (`transactional_db`) reset past the triggers, which refuse
    the DELETE of a flush, as the migrating user.
    """
    from django.test import TransactionTestCase

    from shared_kernel.tests.reset import remember_rows_of_migrations, reset_database
    from shared_kernel.tests.users import become_owner, become_runtime
    from wallet.infrastructure.persistence import forget_accounts

    def reset(case):
        reset_database()
        forget_accounts()
        shutil.rmtree(anchor, ignore_errors=True)

    with django_db_blocker.unblock():
        become_runtime()
        remember_rows_of_migrations()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", reset)
        yield
    with django_db_blocker.unblock():
        become_owner()


@pytest.fixture(scope="session", autouse=True)
def anchor(tmp_path_factory):
    """The anchor of this session's database, emptied with it."""
    from django.conf import settings

    place = tmp_path_factory.mktemp("seals") / "anchor"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "SEAL_ANCHOR", str(place))
        yield place


@pytest.fixture(autouse=True)
def counters_of_its_own(monkeypatch):
    """No test is refused for what another one tried: all of them come from one address, to one Redis."""
    from shared_kernel.facade import limiter

    if limiter.redis is not None:
        monkeypatch.setattr(limiter, "redis", replace(limiter.redis, prefix=f"penpay:test:{token_hex(8)}:"))
