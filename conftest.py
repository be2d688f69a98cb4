"""What all tests share; contexts add their own in `<context>/tests/fixtures.py`."""

from importlib.util import find_spec

import pytest

pytest_plugins = [
    module
    for module in ("mpesa_integration.tests.fixtures", "deriv_integration.tests.fixtures")
    if find_spec(module) is not None
]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """Tests with real commits (`transactional_db`) reset past the triggers, which refuse the DELETE of a flush."""
    from django.test import TransactionTestCase

    from shared_kernel.tests.reset import remember_rows_of_migrations, reset_database
    from wallet.infrastructure.persistence import forget_accounts

    def reset(case):
        reset_database()
        forget_accounts()

    with django_db_blocker.unblock():
        remember_rows_of_migrations()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", reset)
        yield
