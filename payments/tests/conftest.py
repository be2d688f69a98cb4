"""What several test files of this context need."""

import pytest
from django.db import connection

from shared_kernel.infrastructure import append_only


@pytest.fixture
def at_deriv(deriv_at_simulator, monkeypatch):
    """Deriv, quick to be given up, with two customers."""
    from deriv_integration import facade
    from deriv_integration.tests.fixtures import QUICK
    from payments.tests.withdrawing import bob_comes

    bob_comes(deriv_at_simulator)
    monkeypatch.setattr(facade.ws_v3, "_timing", QUICK)
    return deriv_at_simulator


@pytest.fixture
def broken():
    """Runs SQL past every refusal, and puts the refusals back; `%s` takes a UUID."""
    mysql = connection.vendor == "mysql"
    off = ["SET FOREIGN_KEY_CHECKS = 0"] if mysql else ["PRAGMA foreign_keys = 0"]
    on = ["SET FOREIGN_KEY_CHECKS = 1"] if mysql else ["PRAGMA foreign_keys = 1"]

    def run(sql, *ids):
        append_only.remove()
        literals = [f"X'{id.hex}'" for id in ids]
        with connection.cursor() as cursor:
            for statement in (*off, sql.replace("%s", "{}").format(*literals), *on):
                cursor.execute(statement)
        append_only.install()

    return run
