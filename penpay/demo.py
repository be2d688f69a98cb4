"""`bin/demo`: a newcomer's first minute.

One deposit through the REST API, over real HTTP and WebSocket, shown as it happens.
"""

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID

import django
import httpx
from rich.console import Console
from rich.table import Table

from penpay.stack import HOST, ROOT, NotStarted, Stack

HOME = ROOT / ".local" / "demo"
PHONE, LOGIN, TOKEN, NAME = "254708374149", "CR100001", "demo-customer-token", "Jane Wanjiku Doe"  # the simulators'
EMAIL, SHILLINGS = "jane@example.com", "1300.00"
FINAL = {"COMPLETED", "FAILED", "REJECTED", "EXPIRED", "REFUND_PENDING", "NEEDS_ATTENTION"}
SAYS = {
    "CREATED": "quote accepted, rate locked, Deriv float reserved",
    "AWAITING_MPESA": "STK push: the phone asks for the PIN",
    "MPESA_CONFIRMED": "a callback claimed it, M-Pesa's own answer proved it; posted",
    "DERIV_TRANSFER_SENT": "intent committed, transfer sent over the agent's WebSocket",
    "COMPLETED": "Deriv proved it; posted",
}


class DemoFailed(Exception):
    """The demo did not come to its end; the message says where."""


def main() -> int:
    """Exit 0 if the deposit completed and the ledger verifies; 1 if not; 2 if it can't run."""
    parser = argparse.ArgumentParser(prog="bin/demo", description="Runs PenPay with simulated providers.")
    parser.add_argument("--once", action="store_true", help="end after the deposit instead of serving until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000, help="of the API and the admin (default 8000)")
    asked = parser.parse_args()
    if not is_free(asked.port):
        sys.stderr.write(f"Port {asked.port} is taken: choose another one with --port N.\n")
        return 2
    console = Console(highlight=False, soft_wrap=True)
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    password = secrets.token_urlsafe(12)
    with Stack(environment(), HOME / "logs", port=asked.port) as stack:
        try:
            begin(stack, console, password)
            show_books(stack, console, deposit(stack, console))
        except (DemoFailed, NotStarted, httpx.HTTPError, subprocess.CalledProcessError) as error:
            console.print(f"[red]The demo failed:[/] {error}")
            console.print(f"The processes' logs are in {stack.logs.relative_to(ROOT)}")
            return 1
        console.print("Withdrawals are not built yet: this demo runs the deposit alone.")
        if not asked.once:
            serve(stack, console, password)
    return 0


def environment() -> dict[str, str]:
    """An embedded database and a broker of plain files: no server, no C headers."""
    return {
        "APP_ENV": "demo",
        "DATABASE_URL": f"sqlite:///{HOME / 'penpay.sqlite3'}",
        "REDIS_URL": "",
        "CELERY_BROKER_URL": f"filesystem://{HOME / 'broker'}",
        "SMS_URL": f"file://{HOME / 'sms.jsonl'}",
    }


def begin(stack: Stack, console: Console, password: str) -> None:
    """Database, processes, the customer's phone and Deriv account at the providers."""
    console.print("[bold]PenPay[/] moves money between M-Pesa and Deriv. Starting it with simulated providers …")
    stack.manage("migrate", "--verbosity", "0")
    stack.manage("create_demo_data", "--staff-password", password, "--json")
    stack.start()
    stack.control("mpesa", "customers", {"phone": PHONE, "behaviour": "pay"})
    stack.control("deriv_ws", "customers", {"loginid": LOGIN, "name": NAME, "token": TOKEN, "balance": "0.00"})
    console.print(f"API {stack.url}/api/v1/, a worker, relay and sweeper; M-Pesa over HTTP, Deriv over WebSocket v3\n")


def deposit(stack: Stack, console: Console) -> str:
    """A customer signs up, binds a Deriv login, and deposits: the Transaction's id. Raises `DemoFailed`."""
    with closing(Customer(stack, console)) as customer:
        customer.signs_up()
        quote = customer.post("quotes", {"type": "deposit", "amount": {"amount": SHILLINGS, "currency": "KES"}}, 201)
        console.print(
            f"Quote: {quote['you_send']['amount']} KES buys {quote['you_get']['amount']} USD"
            f" at {quote['rate']} KES (margin {quote['margin']}), good until {quote['expires_at']}"
        )
        key = {"Idempotency-Key": secrets.token_hex(16)}
        answer = customer.post("deposits", {"quote_id": quote["id"]}, 202, key)
        console.print(f"\n[bold]Deposit {answer['transaction']['id']}[/]")
        ended = customer.follows(answer["transaction"]["id"])
    if ended["status"] != "COMPLETED":
        raise DemoFailed(f"the deposit ended as {ended['status']}: {ended['failure']}\n{stack.tail('worker0')}")
    return str(ended["id"])


class Customer:
    """Somebody with a phone and a browser: a cookie jar and the CSRF header."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self.stack, self.console = stack, console
        self.http = httpx.Client(base_url=f"{stack.url}/api/v1/", timeout=30)

    def close(self) -> None:
        self.http.close()

    def signs_up(self) -> None:
        """Registers, signs in, proves the phone, is verified by staff, binds the Deriv login."""
        secret, say = secrets.token_urlsafe(16), self.console.print
        self.http.get("auth/csrf")
        person = {"phone": f"+{PHONE}", "email": EMAIL, "password": secret, "full_name": NAME}
        self.post("auth/register", person, 201)
        device = {"id": "demo-browser-1", "name": "Demo", "platform": "web"}
        signed_in = self.post("auth/login", {"identifier": EMAIL, "password": secret, "device": device}, 200)
        cookies = sorted(cookie.name for cookie in self.http.cookies.jar if cookie.name.startswith("penpay"))
        say(f"Registered and signed in; the tokens are in HttpOnly cookies only: {', '.join(cookies)}")
        code = waits_for(self._code, "no code came by SMS")
        self.post("me/phone-verification/confirm", {"code": code}, 204)
        self.stack.manage("set_kyc", signed_in["user"]["id"], "--status", "verified", "--tier", "standard", "--json")
        say("Phone proven by a code; identity verified by staff (tier standard)")
        bound = self.post("me/deriv-login", {"platform": "ws_v3", "token": TOKEN}, 201)
        say(f"Deriv was asked about the login: {bound['account']} of {bound['name']}, {bound['currency']}")

    def _code(self) -> str | None:
        texts = HOME / "sms.jsonl"
        lines = [json.loads(line) for line in texts.read_text().splitlines()] if texts.exists() else []
        words = " ".join(line["text"] for line in lines if line["phone"] == PHONE).replace(".", "").split()
        return next((word for word in reversed(words) if word.isdigit() and len(word) > 4), None)

    def post(self, path: str, body: dict[str, Any], expected: int, headers: dict[str, str] | None = None) -> Any:
        """Raises `DemoFailed` for another answer than the expected one."""
        csrf = {"X-CSRFToken": self.http.cookies.get("csrftoken") or ""}
        answer = self.http.post(path, json=body, headers=csrf | (headers or {}))
        if answer.status_code != expected:
            raise DemoFailed(f"POST {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def follows(self, id: str) -> dict[str, Any]:
        """Prints each step when it shows; the Transaction at its end."""
        shown, began = 0, time.monotonic()

        def ended() -> dict[str, Any] | None:
            nonlocal shown
            transaction: dict[str, Any] = self.http.get(f"transactions/{id}").json()
            for step in transaction["timeline"][shown:]:
                status = step["status"]
                self.console.print(f"  {step['at'][11:23]}  [green]{status:20}[/] {SAYS.get(status, '')}")
                shown += 1
            return transaction if transaction["status"] in FINAL else None

        transaction: dict[str, Any] = waits_for(ended, "the deposit did not end", 90)
        self.console.print(f"  ended after {time.monotonic() - began:.1f} s\n")
        return transaction


def waits_for(look: Callable[[], Any], otherwise: str, most_s: float = 30) -> Any:
    """What `look` finds. Raises `DemoFailed`."""
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise DemoFailed(otherwise)


def show_books(stack: Stack, console: Console, id: str) -> None:
    """The ledger, and what the providers believe. Raises `DemoFailed` unless `verify_ledger` passes."""
    os.environ.update(stack.settings)
    django.setup()
    from wallet.facade import entries_of, trial_balance  # needs the settings

    entries = Table("debit", "credit", "amount", "", title="Ledger entries of the deposit", title_justify="left")
    for entry in entries_of(UUID(id)):
        entries.add_row(entry.debit_kind, entry.credit_kind, units(entry.amount), entry.currency)
    console.print(entries)
    balances = Table("account", "debit", "credit", "", title="Trial balance", title_justify="left")
    for row in trial_balance():
        balances.add_row(row.kind, *(units(side) if side else "" for side in (row.debit, row.credit)), row.currency)
    console.print(balances)
    for provider, name in (("mpesa", "M-Pesa"), ("deriv_ws", "Deriv")):
        for movement in stack.control(provider, "books", method="GET"):
            console.print(f"{name}'s own book: {movement['amount']} {movement['currency']}, id {movement['id']}")
    try:
        stack.manage("verify_ledger", "--json")
    except subprocess.CalledProcessError as found:
        raise DemoFailed(f"verify_ledger: {found.stdout}{found.stderr}") from None
    console.print("[green]verify_ledger: the ledger balances and agrees with every Transaction[/]\n")


def units(minor: int) -> str:
    """Minor units as people read them."""
    return f"{minor // 100:,}.{minor % 100:02d}"


def serve(stack: Stack, console: Console, password: str) -> None:
    """Until Ctrl-C."""
    console.print(f"Admin     {stack.url}/admin/   sign in as admin@example.com, password {password}")
    console.print(f"API docs  {stack.url}/api/v1/docs/")
    for provider, name in (("mpesa", "M-Pesa"), ("deriv_ws", "Deriv")):
        console.print(f"Faults    http://{HOST}:{stack.simulators[provider]}/_control/faults   ({name})")
    console.print("Serving until Ctrl-C …")
    try:
        while all(process.poll() is None for process in stack.processes.values()):
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("\nStopping …")


def is_free(port: int) -> bool:
    """Whether the port can be had."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
