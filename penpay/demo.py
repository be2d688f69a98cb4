"""`bin/demo`: a newcomer's first minute.

A deposit and a withdrawal through the REST API, on each of Deriv's platforms, over real HTTP and WebSocket, shown as
they happen.
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
from base64 import b32encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import django
import httpx
from rich.console import Console
from rich.table import Table

from penpay.stack import HOST, ROOT, NotStarted, Stack

HOME = ROOT / ".local" / "demo"
EMAIL_HOST, SHILLINGS, DOLLARS = "example.com", "1300.00", "5.00"
STEP_UP_GOOD_S = 240  # PenPay takes five minutes
FINAL = {"COMPLETED", "FAILED", "REJECTED", "EXPIRED", "REFUNDED", "REVERSED", "NEEDS_ATTENTION"}
SAYS = {
    "deposit": {
        "CREATED": "quote accepted, rate locked, Deriv float reserved",
        "AWAITING_MPESA": "STK push: the phone asks for the PIN",
        "MPESA_CONFIRMED": "a callback claimed it, M-Pesa's own answer proved it; posted",
        "DERIV_TRANSFER_SENT": "intent committed, transfer sent by the agent",
        "COMPLETED": "Deriv proved it; posted",
    },
    "withdrawal": {
        "CREATED": "quote and one-time code accepted, M-Pesa float reserved",
        "DERIV_DEBIT_SENT": "intent committed, debit sent with the customer's token and code",
        "DERIV_DEBITED": "the agent's own book proved it; posted",
        "RATE_LOCKED": "dollars exchanged at the quote's rate; posted",
        "MPESA_DISBURSING": "intent committed, B2C payment to the customer's own phone",
        "COMPLETED": "M-Pesa paid; posted, and asked about once more within the day",
    },
}


@dataclass(frozen=True)
class Person:
    """Somebody whom both simulated providers know. `account` is a login id on v3, a nickname on REST."""

    first_name: str
    platform: str
    account: str
    phone: str
    token: str

    @property
    def name(self) -> str:
        return f"{self.first_name} Wanjiku Doe"

    @property
    def email(self) -> str:
        return f"{self.first_name.lower()}@{EMAIL_HOST}"

    @property
    def at_deriv(self) -> dict[str, Any]:
        """How the simulated Deriv gets to know them."""
        own = {"name": self.name, "balance": "0.00", "show_real_name": True, "email": self.email}
        if self.platform == "rest":
            return own | {"nickname": self.account, "rest_token": self.token}
        return own | {"loginid": self.account, "token": self.token}


PEOPLE = (
    Person("Jane", "ws_v3", "CR100001", "254708374149", "demo-customer-token"),
    Person("Amina", "rest", "amina", "254708374150", "demo-rest-customer-token"),
)


class DemoFailed(Exception):
    """The demo did not come to its end; the message says where."""


def main() -> int:
    """Exit 0 if all payments completed and the ledger verifies; 1 if not; 2 if it can't run."""
    parser = argparse.ArgumentParser(prog="bin/demo", description="Runs PenPay with simulated providers.")
    parser.add_argument("--once", action="store_true", help="end after the payments instead of serving until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000, help="of the API and the admin (default 8000)")
    asked = parser.parse_args()
    if not is_free(asked.port):
        sys.stderr.write(f"Port {asked.port} is taken: choose another one with --port N.\n")
        return 2
    console = Console(highlight=False, soft_wrap=True)
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    staff = Staff(secrets.token_urlsafe(12), b32encode(secrets.token_bytes(20)).decode())
    with Stack(environment(), HOME / "logs", port=asked.port) as stack:
        try:
            begin(stack, console, staff)
            show_books(stack, console, [id for person in PEOPLE for id in payments(stack, console, person)])
        except (DemoFailed, NotStarted, httpx.HTTPError, subprocess.CalledProcessError) as error:
            console.print(f"[red]The demo failed:[/] {error}")
            console.print(f"The processes' logs are in {stack.logs.relative_to(ROOT)}")
            return 1
        if not asked.once:
            serve(stack, console, staff)
    return 0


def environment() -> dict[str, str]:
    """An embedded database and a broker of plain files: no server, no C headers."""
    return {
        "APP_ENV": "demo",
        "DATABASE_URL": f"sqlite:///{HOME / 'penpay.sqlite3'}",
        "MIGRATION_DATABASE_URL": "",
        "REDIS_URL": "",
        "CELERY_BROKER_URL": f"filesystem://{HOME / 'broker'}",
        "SMS_URL": f"file://{HOME / 'sms.jsonl'}",
    }


def begin(stack: Stack, console: Console, staff: "Staff") -> None:
    """Database, processes, the customer's phone and Deriv account at the providers."""
    console.print("[bold]PenPay[/] moves money between M-Pesa and Deriv. Starting it with simulated providers …")
    stack.manage("migrate", "--verbosity", "0")
    stack.manage("create_demo_data", "--staff-password", staff.password, "--staff-secret", staff.secret, "--json")
    stack.start()
    for person in PEOPLE:
        stack.control("mpesa", "customers", {"phone": person.phone, "behaviour": "pay"})
        stack.control("deriv_ws", "customers", person.at_deriv)
    console.print(
        f"API {stack.url}/api/v1/, a worker, relay and sweeper; M-Pesa over HTTP, Deriv over WebSocket and REST"
    )


def payments(stack: Stack, console: Console, person: Person) -> list[str]:
    """A customer signs up, binds a Deriv login, deposits and withdraws: the Transactions' ids. Raises `DemoFailed`."""
    console.print(f"\n[bold]{person.first_name}[/], whose Deriv account is on {person.platform}")
    with closing(Customer(stack, console, person)) as customer:
        customer.signs_up()
        return [customer.deposits(), customer.withdraws()]


class Customer:
    """Somebody with a phone and a browser: a cookie jar and the CSRF header."""

    def __init__(self, stack: Stack, console: Console, person: Person) -> None:
        self.stack, self.console, self.person = stack, console, person
        self.http = httpx.Client(base_url=f"{stack.url}/api/v1/", timeout=30)
        self.stepped_up_at: float | None = None

    def close(self) -> None:
        self.http.close()

    def signs_up(self) -> None:
        """Registers, signs in, proves the phone, is verified by staff, binds the Deriv login."""
        secret, say = secrets.token_urlsafe(16), self.console.print
        self.http.get("auth/csrf")
        who = self.person
        person = {"phone": f"+{who.phone}", "email": who.email, "password": secret, "full_name": who.name}
        self.post("auth/register", person, 201)
        device = {"id": f"demo-browser-{who.first_name}", "name": "Demo", "platform": "web"}
        signed_in = self.post("auth/login", {"identifier": who.email, "password": secret, "device": device}, 200)
        cookies = sorted(cookie.name for cookie in self.http.cookies.jar if cookie.name.startswith("penpay"))
        say(f"Registered and signed in; the tokens are in HttpOnly cookies only: {', '.join(cookies)}")
        code = waits_for(self._code, "no code came by SMS")
        self.post("me/phone-verification/confirm", {"code": code}, 204)
        self.stack.manage("set_kyc", signed_in["user"]["id"], "--status", "verified", "--tier", "standard", "--json")
        say("Phone proven by a code; identity verified by staff (tier standard)")
        self.steps_up()
        bound = self.post("me/deriv-login", {"platform": who.platform, "token": who.token}, 201)
        say(f"Deriv was asked about the login: {bound['account']} of {bound['name']}, {bound['currency']}")

    def deposits(self) -> str:
        """KES to USD; the Transaction's id."""
        quote = self._quote("deposit", SHILLINGS, "KES")
        return self._accept("deposit", "deposits", {"quote_id": quote["id"]})

    def withdraws(self) -> str:
        """USD to KES, with the one-time code that Deriv sends the customer; the Transaction's id."""
        quote = self._quote("withdrawal", DOLLARS, "USD")
        sent = self.post("withdrawals/verification", {"quote_id": quote["id"]}, 202)
        self.console.print(f"Deriv sent {self.person.first_name} a one-time code, good until {sent['expires_at']}")
        self.steps_up()
        found = self.stack.control("deriv_ws", f"codes?customer={self.person.account}", method="GET")
        return self._accept(
            "withdrawal", "withdrawals", {"quote_id": quote["id"], "verification_code": found[-1]["code"]}
        )

    def steps_up(self) -> None:
        """Shows with a code by SMS that it is really them, if that is longer ago than PenPay wants it."""
        if self.stepped_up_at is not None and time.monotonic() < self.stepped_up_at + STEP_UP_GOOD_S:
            return
        self.post("auth/step-up", {}, 202)
        self.post("auth/step-up", {"code": waits_for(self._code, "no code came by SMS")}, 204)
        self.stepped_up_at = time.monotonic()
        self.console.print("Stepped up by a code from an SMS: for five minutes a login may be bound, money paid out")

    def _quote(self, kind: str, amount: str, currency: str) -> dict[str, Any]:
        asked = {"type": kind, "amount": {"amount": amount, "currency": currency}}
        quote: dict[str, Any] = self.post("quotes", asked, 201)
        sends, gets = quote["you_send"], quote["you_get"]
        self.console.print(
            f"Quote: {sends['amount']} {sends['currency']} for {gets['amount']} {gets['currency']}"
            f" at {quote['rate']} KES (margin {quote['margin']}), good until {quote['expires_at']}"
        )
        return quote

    def _accept(self, kind: str, path: str, body: dict[str, Any]) -> str:
        answer = self.post(path, body, 202, {"Idempotency-Key": secrets.token_hex(16)})
        self.console.print(f"\n[bold]{kind.capitalize()} {answer['transaction']['id']}[/]")
        ended = self.follows(kind, answer["transaction"]["id"])
        if ended["status"] != "COMPLETED":
            log = self.stack.tail("worker0")
            raise DemoFailed(f"the {kind} ended as {ended['status']}: {ended['failure']}\n{log}")
        return str(ended["id"])

    def _code(self) -> str | None:
        texts = HOME / "sms.jsonl"
        lines = [json.loads(line) for line in texts.read_text().splitlines()] if texts.exists() else []
        words = " ".join(line["text"] for line in lines if line["phone"] == self.person.phone).replace(".", "").split()
        return next((word for word in reversed(words) if word.isdigit() and len(word) > 4), None)

    def post(self, path: str, body: dict[str, Any], expected: int, headers: dict[str, str] | None = None) -> Any:
        """Raises `DemoFailed` for another answer than the expected one."""
        csrf = {"X-CSRFToken": self.http.cookies.get("csrftoken") or ""}
        answer = self.http.post(path, json=body, headers=csrf | (headers or {}))
        if answer.status_code != expected:
            raise DemoFailed(f"POST {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def follows(self, kind: str, id: str) -> dict[str, Any]:
        """Prints each step when it shows; the Transaction at its end."""
        shown, began = 0, time.monotonic()

        def ended() -> dict[str, Any] | None:
            nonlocal shown
            transaction: dict[str, Any] = self.http.get(f"transactions/{id}").json()
            for step in transaction["timeline"][shown:]:
                status = step["status"]
                self.console.print(f"  {step['at'][11:23]}  [green]{status:20}[/] {SAYS[kind].get(status, '')}")
                shown += 1
            return transaction if transaction["status"] in FINAL else None

        transaction: dict[str, Any] = waits_for(
            ended, f"the {kind} did not end: {self.http.get(f'transactions/{id}').text}", 90
        )
        self.console.print(f"  ended after {time.monotonic() - began:.1f} s\n")
        return transaction


@dataclass(frozen=True)
class Staff:
    """How the demo's staff sign in: one password and one TOTP secret for all, made anew by each run."""

    password: str
    secret: str

    def code(self) -> str:
        """What an authenticator app would show now."""
        from identity.facade import code_of, step_at  # needs the settings

        return code_of(self.secret, step_at(datetime.now(UTC)))


def waits_for(look: Callable[[], Any], otherwise: str, most_s: float = 30) -> Any:
    """What `look` finds. Raises `DemoFailed`."""
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise DemoFailed(otherwise)


def show_books(stack: Stack, console: Console, ids: list[str]) -> None:
    """The ledger, and what the providers believe. Raises `DemoFailed` unless `verify_ledger` passes."""
    os.environ.update(stack.settings)
    django.setup()
    from wallet.facade import entries_of, trial_balance  # needs the settings

    for id, what in zip(ids[:2], ("deposit", "withdrawal"), strict=True):
        entries = Table("debit", "credit", "amount", "", title=f"Ledger entries of the {what}", title_justify="left")
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


def serve(stack: Stack, console: Console, staff: "Staff") -> None:
    """Until Ctrl-C. On a terminal the code of the moment stands below."""
    console.print(f"Admin     {stack.url}/admin/   sign in as admin@example.com, password {staff.password}")
    console.print("          or, with the same one, as finance@, finance2@, mlro@, mlro2@, ops@, support@, auditor@ …")
    console.print(f"          then a code, new every 30 seconds, of the TOTP secret {staff.secret}")
    console.print("          (all of them share it in this demo; each code signs each of them in once)")
    console.print(f"API docs  {stack.url}/api/v1/docs/")
    for provider, name in (("mpesa", "M-Pesa"), ("deriv_ws", "Deriv")):
        console.print(f"Faults    http://{HOST}:{stack.simulators[provider]}/_control/faults   ({name})")
    console.print(f"Code for the admin now: {staff.code()}")
    try:
        with console.status("") as line:  # shown on terminals only
            while all(process.poll() is None for process in stack.processes.values()):
                line.update(f"Serving until Ctrl-C …   code for the admin: [bold]{staff.code()}[/]")
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
