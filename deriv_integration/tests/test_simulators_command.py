"""`manage.py simulators` as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest
from django.core.management import CommandError, call_command
from websockets.sync.client import connect

from deriv_integration.tests.callers import Caller

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "manage.py", "simulators", *arguments],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DJANGO_SETTINGS_MODULE": "penpay.settings", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_all_three_servers_answer_over_one_deriv_and_stop_cleanly(which):
    with command("--mpesa-port", "0", "--deriv-ws-port", "0", "--deriv-rest-port", "0", "--json") as process:
        try:
            ports = json.loads(process.stdout.readline())
            with connect(f"ws://127.0.0.1:{ports['deriv_ws']}/websockets/v3?app_id=1", proxy=None) as ws:
                ws.send('{"ping": 1}')
                pong = json.loads(ws.recv(timeout=5))
            with urlopen(f"http://127.0.0.1:{ports['mpesa']}/_control/books", timeout=5) as books:
                moved = json.loads(books.read())
            order = {"loginid": "CR1", "nickname": "jane", "balance": "5.00", "rest_token": "jane-token"}
            httpx.post(f"http://127.0.0.1:{ports['deriv_ws']}/_control/customers", json=order)
            jane = Caller(f"127.0.0.1:{ports['deriv_rest']}", "jane-token")
            held = jane.data("/wallet/v1/wallets")[0]["balances"]
        finally:
            process.send_signal(which)
        rest = process.communicate(timeout=15)[0]

    assert pong["ping"] == "pong"
    assert moved == []
    assert held == {"USD": "5.00"}
    assert process.returncode == 0
    assert rest == ""


@pytest.mark.parametrize(("options", "are_equal"), [((), False), (("--seed", "7"), True)])
def test_what_providers_number_begins_elsewhere_at_each_start(options, are_equal):
    """A database that is kept has the numbers of before, each of which counts once."""
    first, second = an_entry_id(*options), an_entry_id(*options)

    assert (first == second) is are_equal


def an_entry_id(*options):
    ports = ("--mpesa-port", "0", "--deriv-ws-port", "0", "--deriv-rest-port", "0")
    with command(*ports, *options, "--json") as process:
        try:
            served = json.loads(process.stdout.readline())
            with connect(f"ws://127.0.0.1:{served['deriv_ws']}/websockets/v3?app_id=1", proxy=None) as ws:
                ws.send('{"authorize": "demo-agent-token"}')
                ws.recv(timeout=5)
                ws.send('{"statement": 1}')
                return json.loads(ws.recv(timeout=5))["statement"]["transactions"][0]["transaction_id"]
        finally:
            process.send_signal(signal.SIGTERM)


def test_a_taken_port_is_a_clear_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with command("--mpesa-port", "0", "--deriv-ws-port", str(port)) as process:
            said = process.communicate(timeout=30)[1]

    assert process.returncode == 2
    assert f"port {port}" in said


def test_production_runs_no_simulator(settings):
    settings.APP_ENV = "production"

    with pytest.raises(CommandError, match="never run in production") as refused:
        call_command("simulators", mpesa_port=0, deriv_ws_port=0)

    assert refused.value.returncode == 2


def test_a_port_that_is_none_is_refused():
    with command("--mpesa-port", "70000") as process:
        process.communicate(timeout=30)

    assert process.returncode == 2
