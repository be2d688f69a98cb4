"""What several test files of this context need."""

import json
from typing import Any

import pytest
from django.core.management import call_command

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


@pytest.fixture
def open_for_business(at_deriv, mpesa_simulator, live_server, settings):
    """Rates, floats, and both providers' simulators, with callbacks that come in."""
    from payments.tests.factories import a_float, todays_rate
    from payments.tests.withdrawing import a_payout_float

    settings.MPESA_CALLBACK_BASE_URL = live_server.url
    todays_rate()
    a_float()
    a_payout_float()
    at_deriv.simulator.pending_s = 0.05


@pytest.fixture
def floats(mpesa_simulator, settings):
    """Money to send, M-Pesa's simulator, and no agent at Deriv."""
    from payments.tests.factories import a_float
    from payments.tests.withdrawing import a_payout_float

    settings.DERIV_AGENTS = []
    a_float()
    a_payout_float()


@pytest.fixture
def run_evidence(capsys, monkeypatch, tmp_path):
    """Runs the command in an empty directory; its exit code, and what it printed as JSON, or as text."""
    monkeypatch.chdir(tmp_path)

    def run(*words: Any, as_json: bool = True) -> tuple[Any, Any]:
        code: Any = 0
        try:
            call_command("evidence", *map(str, words), *(["--json"] if as_json else []))
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr().out
        return code, json.loads(printed) if as_json else printed

    return run
