"""What several test files of this context need."""

import pytest

from shared_kernel.infrastructure import append_only
from shared_kernel.tests.users import by_owner


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

    def run(sql, *ids):
        append_only.remove()
        by_owner(sql.replace("%s", "{}").format(*(f"X'{id.hex}'" for id in ids)), off=True)
        append_only.install()

    return run
