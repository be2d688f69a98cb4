"""Daraja's calls: the shared access token, STK push, STK query, B2C, reversal, status query, balance and Pull.

What codes mean stands in `domain/codes`. Fields are spelled as the wire requires (`InitiatorName` and `Occassion` for
B2C, `Initiator` and `Occasion` elsewhere, `RecieverIdentifierType`). Source: the contract's sections 1 to 9 (Daraja 3.0
text, crawled 2025-12-28).
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from mpesa_integration.domain import answers, wire
from mpesa_integration.domain.answers import Answer, Failure
from mpesa_integration.domain.request import shillings
from mpesa_integration.domain.results import RECEIPT
from mpesa_integration.infrastructure.credentials import CertificateUnusable, security_credential
from mpesa_integration.infrastructure.http import send
from mpesa_integration.infrastructure.tokens import SharedToken, TokenRefused
from shared_kernel.domain.outcome import NotSent, Outcome, Unreadable
from shared_kernel.domain.ports import Clock
from shared_kernel.domain.requests import Leg, MpesaPayment, MpesaRequest
from shared_kernel.infrastructure.persistence import in_transaction

EAT = ZoneInfo("Africa/Nairobi")
MOST_PAGES = 2_000
PULL_REACH = timedelta(hours=48)
PULL_MARGIN = timedelta(hours=3, minutes=5)  # whether Pull means UTC or EAT is not proven: reach back for both
SHORTCODE, REVERSAL_RECEIVER = "4", "11"  # IdentifierType, the contract's section 2


@dataclass(frozen=True, slots=True)
class DarajaAccount:
    """Where and as whom we call, from the settings."""

    base_url: str
    consumer_key: str = field(repr=False)
    consumer_secret: str = field(repr=False)
    passkey: str = field(repr=False)
    callback_base_url: str
    initiator_name: str = ""
    initiator_password: str = field(default="", repr=False)
    certificate_file: str = ""
    certificate_sha256: str = ""

    @property
    def name(self) -> str:
        """What the shared token is kept under."""
        return f"{self.consumer_key}@{self.base_url}"

    def credential(self) -> str:
        """The initiator's SecurityCredential. Raises `CertificateUnusable`."""
        return security_credential(self.initiator_password, self.certificate_file, self.certificate_sha256)


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
        return answers.push_outcome(self._call(account, "/mpesa/stkpush/v1/processrequest", body, give_up_at))

    def query(self, request: MpesaRequest) -> Outcome:
        """STK query by CheckoutRequestID; both forms of pending are `Accepted`."""
        account = self.account()
        checkout = request.checkout_request_id
        body = self._signed(account, request.shortcode) | {"CheckoutRequestID": checkout}
        answer = self._call(account, "/mpesa/stkpushquery/v1/query", body)
        return answers.query_outcome(answer, checkout, request.merchant_request_id)

    def pay(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """B2C v3 of `request.amount` (whole shillings) to `request.phone`, under `request.reference`."""
        purpose = "Refund" if request.leg is Leg.B2C_REFUND else "Withdrawal"
        body = {
            "OriginatorConversationID": request.reference,
            "CommandID": "BusinessPayment",
            "Amount": str(shillings(request.amount, request.leg)),
            "PartyA": request.shortcode,
            "PartyB": request.phone.number,
            "Remarks": purpose,
            "Occassion": purpose,
        }
        path = "/mpesa/b2c/v3/paymentrequest"
        return self._queue(path, body, result, timeout, give_up_at, name="InitiatorName", ours=request.reference)

    def reverse(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """Takes the payment with the receipt `request.about` back to its payer, `request.amount` of it."""
        body = {
            "CommandID": "TransactionReversal",
            "TransactionID": request.about,
            "Amount": str(shillings(request.amount, request.leg)),
            "ReceiverParty": request.shortcode,
            "RecieverIdentifierType": REVERSAL_RECEIVER,
            "Remarks": "Payment reversal",
        }
        return self._queue("/mpesa/reversal/v1/request", body, result, timeout, give_up_at)

    def ask_status(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """Transaction Status of `request.about`: a receipt, or the OriginatorConversationID of a payment of ours."""
        is_receipt = RECEIPT.fullmatch(request.about) is not None
        payment = {"TransactionID": request.about} if is_receipt else {"TransactionID": ""}
        body = payment | ({} if is_receipt else {"OriginalConversationID": request.about})
        body |= {
            "CommandID": "TransactionStatusQuery",
            "PartyA": request.shortcode,
            "IdentifierType": SHORTCODE,
            "Remarks": "Status",
            "Occasion": "Status",
        }
        return self._queue("/mpesa/transactionstatus/v1/query", body, result, timeout, give_up_at)

    def ask_balance(self, shortcode: str, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """Account Balance of a shortcode."""
        body = {
            "CommandID": "AccountBalance",
            "PartyA": shortcode,
            "IdentifierType": SHORTCODE,
            "Remarks": "Balance",
        }
        return self._queue("/mpesa/accountbalance/v1/query", body, result, timeout, give_up_at)

    def register(self, shortcode: str, confirmation: str, validation: str) -> Outcome:
        """C2B v2 (masked numbers): `Completed` takes a payment whose validation we could not answer."""
        account = self.account()
        base = account.callback_base_url.rstrip("/")
        urls = {"ConfirmationURL": base + confirmation, "ValidationURL": base + validation}
        body = {"ShortCode": shortcode, "ResponseType": "Completed", **urls}
        return answers.registered_outcome(self._call(account, "/mpesa/c2b/v2/registerurl", body))

    def payments(self, request: MpesaRequest, *, at: datetime) -> Sequence[MpesaPayment] | Unreadable:
        """Pull: the rows under this attempt's reference; what could not be read to its end is `Unreadable`."""
        rows = self._pull(request.shortcode, request.created_at, at, at=at)
        if isinstance(rows, Unreadable):
            return rows
        return _payments([row for row in rows if _reference(row).upper() == request.reference], at)

    def received(
        self, shortcode: str, since: datetime, until: datetime, *, at: datetime
    ) -> Sequence[MpesaPayment] | Unreadable:
        """Pull: every row between the two and some hours before, for the time zone of its clock is not proven."""
        rows = self._pull(shortcode, since, until, at=at)
        return rows if isinstance(rows, Unreadable) else _payments(rows, at)

    def _pull(
        self, shortcode: str, since: datetime, until: datetime, *, at: datetime
    ) -> list[dict[str, Any]] | Unreadable:
        """Page by page until an empty one."""
        account = self.account()
        start, end = max(since - PULL_MARGIN, at - PULL_REACH), min(until, at) + timedelta(minutes=5)
        window = {
            "ShortCode": shortcode,
            "StartDate": start.astimezone(EAT).strftime("%Y-%m-%d %H:%M:%S"),
            "EndDate": end.astimezone(EAT).strftime("%Y-%m-%d %H:%M:%S"),
        }
        found: list[dict[str, Any]] = []
        for _ in range(MOST_PAGES):
            answer = self._call(account, "/pulltransactions/v1/query", window | {"OffSetValue": str(len(found))})
            rows = answers.pull_rows(answer)
            if isinstance(rows, Unreadable):
                return rows
            if not rows:
                return found
            found += rows
        return Unreadable("too_many_pages")

    def _queue(
        self,
        path: str,
        body: Mapping[str, str],
        result: str,
        timeout: str,
        give_up_at: float,
        *,
        name: str = "Initiator",
        ours: str = "",
    ) -> Outcome:
        """A call in the initiator's name, answered at our `result` and `timeout` paths."""
        account = self.account()
        base = account.callback_base_url.rstrip("/")
        try:
            signed = {name: account.initiator_name, "SecurityCredential": account.credential()}
        except CertificateUnusable:
            return NotSent("certificate", 300, alert=True)
        urls = {"QueueTimeOutURL": base + timeout, "ResultURL": base + result}
        return answers.queued_outcome(self._call(account, path, {**signed, **body, **urls}, give_up_at), ours)

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
            answer = send(account.base_url, "POST", path, f"Bearer {token}", content, give_up_at)
            refusal = answers.refusal_of(answer) if answer.failure is None else None
            if refusal is None or not refusal[1].is_token:
                return answer
            token = self.token.replace(account.name, token, lambda: self._fetch_token(account))
        except TokenRefused as refused:
            return Answer(0, failure=Failure.NO_TOKEN, detail=refused.code)
        return send(account.base_url, "POST", path, f"Bearer {token}", content, give_up_at)

    def _fetch_token(self, account: DarajaAccount) -> str:
        """Ends the token that was in use before. Raises `TokenRefused`."""
        key = b64encode(f"{account.consumer_key}:{account.consumer_secret}".encode()).decode()
        path = "/oauth/v1/generate?grant_type=client_credentials"
        answer = send(account.base_url, "GET", path, f"Basic {key}")
        token = wire.id_of((answer.json or {}).get("access_token")) if answer.status == 200 else ""
        if not token:
            code = refusal[0] if answer.failure is None and (refusal := answers.refusal_of(answer)) else ""
            raise TokenRefused(f"token:{answer.failure or code or 'unreadable'}")
        return token


def _reference(row: Mapping[str, Any]) -> str:
    return wire.text_of(row.get("billreference")).strip()


def _payments(rows: Sequence[Mapping[str, Any]], at: datetime) -> Sequence[MpesaPayment] | Unreadable:
    """Each receipt once; a row that can't be read makes all of it `Unreadable`, for it may be the one looked for."""
    found: dict[str, MpesaPayment] = {}
    for row in rows:
        payment = _payment(row, at)
        if payment is None:
            return Unreadable("row")
        found[payment.receipt] = payment
    return list(found.values())


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
    return MpesaPayment(receipt, _reference(row), amount, paid_at.astimezone(UTC))
