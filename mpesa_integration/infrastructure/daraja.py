"""Daraja over HTTP: the shared access token, STK push, STK query and Pull. What codes mean stands in `domain/codes`.

Source: the contract's sections 1 to 4 and 9 (Daraja 3.0 text, crawled 2025-12-28).
"""

import json
import logging
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from mpesa_integration.domain import codes, wire
from mpesa_integration.domain.codes import Answer, Failure
from mpesa_integration.domain.request import shillings
from mpesa_integration.infrastructure.tokens import SharedToken, TokenRefused
from shared_kernel.domain.outcome import Outcome, Unreadable
from shared_kernel.domain.ports import Clock
from shared_kernel.domain.requests import MpesaPayment, MpesaRequest
from shared_kernel.infrastructure.persistence import in_transaction

for _name in ("httpx", "httpcore"):  # they log URLs
    logging.getLogger(_name).setLevel(logging.WARNING)

EAT = ZoneInfo("Africa/Nairobi")
CONNECT_S, READ_S = 5.0, 30.0
MOST_BYTES = 4 * 1024 * 1024  # of an answer: a page of Pull has 100 rows of some 300 bytes
MOST_PAGES = 2_000
TIMEOUT = httpx.Timeout(READ_S, connect=CONNECT_S).as_dict()
LIMITS = httpx.Limits(max_connections=2, max_keepalive_connections=2, keepalive_expiry=20)  # of one thread
PULL_REACH = timedelta(hours=48)
PULL_MARGIN = timedelta(hours=3, minutes=5)  # whether Pull means UTC or EAT is not proven: reach back for both


@dataclass(frozen=True, slots=True)
class DarajaAccount:
    """Where and as whom we call, from the settings."""

    base_url: str
    consumer_key: str = field(repr=False)
    consumer_secret: str = field(repr=False)
    passkey: str = field(repr=False)
    callback_base_url: str

    @property
    def name(self) -> str:
        """What the shared token is kept under."""
        return f"{self.consumer_key}@{self.base_url}"


class TooLate(Exception):
    """`give_up_at` has passed: not one byte of the request was written."""


@lru_cache(maxsize=64)
def _url(base_url: str, path: str) -> httpx.URL:
    return httpx.URL(base_url.rstrip("/") + path)


class KeptByThread(httpx.BaseTransport):
    """A kept connection for each thread. One pool for many threads looks at all of its connections on every call."""

    def __init__(self) -> None:
        self.tls = httpx.create_ssl_context(trust_env=False)
        self.own = threading.local()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not hasattr(self.own, "kept"):
            self.own.kept = Kept(httpx.HTTPTransport(verify=self.tls, limits=LIMITS, trust_env=False))
        kept: Kept = self.own.kept
        return kept.transport.handle_request(request)


@dataclass(frozen=True)
class Kept:
    """Closes with its thread."""

    transport: httpx.HTTPTransport

    def __del__(self) -> None:
        self.transport.close()


_clients: dict[int, httpx.Client] = {}
_making = threading.Lock()


def client() -> httpx.Client:
    """This process's client: kept-alive connections for many threads. A forked child makes its own."""
    mine = _clients.get(os.getpid())
    if mine is None:
        with _making:
            mine = _clients.get(os.getpid()) or _clients.setdefault(
                os.getpid(), httpx.Client(transport=KeptByThread(), follow_redirects=False, trust_env=False)
            )
    return mine


@dataclass(frozen=True)
class DarajaClient:
    """Calls M-Pesa. Every call raises `RuntimeError` while a database transaction is open."""

    account: Callable[[], DarajaAccount]
    token: SharedToken
    clock: Clock

    def push(self, request: MpesaRequest, callback_path: str, *, give_up_at: float) -> Outcome:
        """STK push of `request.amount` (whole shillings) to `request.phone`. `Accepted`: the prompt was queued."""
        account = self.account()
        phone = request.phone.number
        body = self._signed(account, request.shortcode) | {
            "TransactionType": "CustomerPayBillOnline",
            "Amount": str(shillings(request.amount)),
            "PartyA": phone,
            "PartyB": request.shortcode,
            "PhoneNumber": phone,
            "CallBackURL": account.callback_base_url.rstrip("/") + callback_path,
            "AccountReference": request.reference,
            "TransactionDesc": "Deposit",
        }
        return codes.push_outcome(self._call(account, "/mpesa/stkpush/v1/processrequest", body, give_up_at))

    def query(self, request: MpesaRequest) -> Outcome:
        """STK query by CheckoutRequestID; both forms of pending are `Accepted`."""
        account = self.account()
        checkout = request.checkout_request_id
        body = self._signed(account, request.shortcode) | {"CheckoutRequestID": checkout}
        answer = self._call(account, "/mpesa/stkpushquery/v1/query", body)
        return codes.query_outcome(answer, checkout, request.merchant_request_id)

    def payments(self, request: MpesaRequest, *, at: datetime) -> Sequence[MpesaPayment] | Unreadable:
        """Pull, page by page until an empty one; what could not be read to its end is `Unreadable`."""
        account = self.account()
        start = max(request.created_at - PULL_MARGIN, at - PULL_REACH)
        window = {
            "ShortCode": request.shortcode,
            "StartDate": start.astimezone(EAT).strftime("%Y-%m-%d %H:%M:%S"),
            "EndDate": (at + timedelta(minutes=5)).astimezone(EAT).strftime("%Y-%m-%d %H:%M:%S"),
        }
        found: dict[str, MpesaPayment] = {}
        offset = 0
        for _ in range(MOST_PAGES):
            answer = self._call(account, "/pulltransactions/v1/query", window | {"OffSetValue": str(offset)})
            rows = codes.pull_rows(answer)
            if isinstance(rows, Unreadable):
                return rows
            if not rows:
                return list(found.values())
            offset += len(rows)
            for row in rows:
                if wire.text_of(row.get("billreference")).strip().upper() == request.reference:
                    payment = _payment(row, at)
                    if payment is None:
                        return Unreadable("row")
                    found[payment.receipt] = payment
        return Unreadable("too_many_pages")

    def _signed(self, account: DarajaAccount, shortcode: str) -> dict[str, str]:
        """BusinessShortCode, Timestamp (EAT) and the Password made from both: from one reading of the clock."""
        timestamp = self.clock().astimezone(EAT).strftime("%Y%m%d%H%M%S")
        password = b64encode(f"{shortcode}{account.passkey}{timestamp}".encode()).decode()
        return {"BusinessShortCode": shortcode, "Password": password, "Timestamp": timestamp}

    def _call(
        self, account: DarajaAccount, path: str, body: Mapping[str, str], give_up_at: float | None = None
    ) -> Answer:
        """POSTs with the shared token; when that is refused as such, once more with another one."""
        if in_transaction():
            raise RuntimeError("M-Pesa is never called while a database transaction is open")
        content = json.dumps(body).encode()
        try:
            token = self.token.get(account.name, lambda: self._fetch_token(account))
            answer = _send(account, "POST", path, f"Bearer {token}", content, give_up_at)
            refusal = codes.refusal_of(answer) if answer.failure is None else None
            if refusal is None or not refusal[1].is_token:
                return answer
            token = self.token.replace(account.name, token, lambda: self._fetch_token(account))
        except TokenRefused as refused:
            return Answer(0, failure=Failure.NO_TOKEN, detail=refused.code)
        return _send(account, "POST", path, f"Bearer {token}", content, give_up_at)

    def _fetch_token(self, account: DarajaAccount) -> str:
        """Ends the token that was in use before. Raises `TokenRefused`."""
        key = b64encode(f"{account.consumer_key}:{account.consumer_secret}".encode()).decode()
        path = "/oauth/v1/generate?grant_type=client_credentials"
        answer = _send(account, "GET", path, f"Basic {key}")
        token = wire.id_of((answer.json or {}).get("access_token")) if answer.status == 200 else ""
        if not token:
            code = refusal[0] if answer.failure is None and (refusal := codes.refusal_of(answer)) else ""
            raise TokenRefused(f"token:{answer.failure or code or 'unreadable'}")
        return token


def _send(
    account: DarajaAccount,
    method: str,
    path: str,
    authorization: str,
    content: bytes | None = None,
    give_up_at: float | None = None,
) -> Answer:
    """One request and its whole answer, read up to `MOST_BYTES`; never raises for what the network does."""
    url = _url(account.base_url, path)
    headers = {
        "Host": url.netloc.decode(),
        "Authorization": authorization,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "PenPay",
    }
    if content is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    extensions: dict[str, Any] = {"timeout": TIMEOUT}
    if give_up_at is not None:
        extensions["trace"] = _gives_up(give_up_at)
    request = httpx.Request(
        method, url, headers=headers, stream=httpx.ByteStream(content or b""), extensions=extensions
    )
    try:
        response = client().send(request, stream=True)
        try:
            text = _read(response)
        finally:
            response.close()
    except TooLate:
        return Answer(0, failure=Failure.TOO_LATE)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        return Answer(0, failure=Failure.NOT_CONNECTED, detail=type(error).__name__)
    except httpx.TimeoutException:
        return Answer(0, failure=Failure.NO_ANSWER, detail="timeout")
    except (httpx.HTTPError, httpx.StreamError, ValueError) as error:
        return Answer(0, failure=Failure.NO_ANSWER, detail=f"no_answer:{type(error).__name__}")
    return Answer.of(response.status_code, text)


def _gives_up(give_up_at: float) -> Callable[[str, Mapping[str, Any]], None]:
    def directly_before_writing(event: str, _: Mapping[str, Any]) -> None:
        if event == "http11.send_request_headers.started" and time.monotonic() >= give_up_at:
            raise TooLate

    return directly_before_writing


def _read(response: httpx.Response) -> str:
    raw = b""
    for chunk in response.iter_raw():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise ValueError("too long")
    return raw.decode("utf-8", "replace")


def _payment(row: Mapping[str, Any], at: datetime) -> MpesaPayment | None:
    receipt, amount = wire.id_of(row.get("transactionId")), wire.kes_of(row.get("amount"))
    try:
        paid_at = datetime.fromisoformat(wire.text_of(row.get("trxDate")))
    except ValueError:
        return None
    paid_at = paid_at.replace(tzinfo=EAT) if paid_at.tzinfo is None else paid_at
    if paid_at > at + timedelta(minutes=10):  # the Z is unproven: a time to come can only be EAT
        paid_at = paid_at.replace(tzinfo=EAT)
    if not receipt or amount is None:
        return None
    reference = wire.text_of(row.get("billreference")).strip()
    return MpesaPayment(receipt, reference, amount, paid_at.astimezone(UTC))
