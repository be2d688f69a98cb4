"""The attempts, the callbacks and the shared access token over Django."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection
from django.db.models import F, FilteredRelation, Q

from mpesa_integration import models
from mpesa_integration.domain.callback import Attempt, MpesaCallback, Verdict
from mpesa_integration.domain.ports import CallbackRepeated
from mpesa_integration.domain.request import HOLDS_PHONE, PromptOpen, callback_token, token_hash
from mpesa_integration.infrastructure.tokens import Token
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import Leg, MpesaClaim, MpesaRequest, RequestStatus
from shared_kernel.infrastructure.encryption import blind_index, decrypt
from shared_kernel.infrastructure.rows import insert, update

PHONE, CHECKOUT = "mpesa_requests.phone", "mpesa_requests.checkout_request_id"
CLAIMS = {"result_code", "received_at", "amount", "receipt", "verdict"}

# By hand, for each callback passes here: building it anew costs more than running it.
ATTEMPT_OF = """
    SELECT r.id, r.transaction_id, r.amount, r.currency, r.merchant_request_id, r.checkout_request_id, r.receipt,
        EXISTS (SELECT 1 FROM mpesa_callbacks c WHERE c.request_id = r.id AND c.sha256 = %s),
        EXISTS (SELECT 1 FROM mpesa_requests o WHERE o.receipt = %s AND o.id <> r.id)
    FROM mpesa_requests r WHERE r.callback_hash = %s
"""


@dataclass(frozen=True)
class DjangoMpesaRequests:
    """`mpesa_requests`."""

    def of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[MpesaRequest]]:
        said = FilteredRelation("callbacks", condition=Q(callbacks__verdict__in=[Verdict.AGREES, Verdict.DISAGREES]))
        rows: Iterable[Any] = (
            models.MpesaRequest.objects.filter(transaction_id__in=transactions)
            .alias(said=said)
            .annotate(**{f"claim_{name}": F(f"said__{name}") for name in CLAIMS})
            .defer("answer")
            .order_by("transaction_id", "attempt", "said__received_at")
        )
        found: dict[TransactionId, list[MpesaRequest]] = {}
        for row in rows:
            requests = found.setdefault(TransactionId(row.transaction_id), [])
            if not requests or requests[-1].id != row.pk:
                requests.append(to_domain(row))
            if row.claim_result_code is not None:
                requests[-1].claims.append(to_claim(row))
        return found

    def add(self, requests: Sequence[MpesaRequest]) -> None:
        rows = [to_row(request) for request in requests]
        try:
            insert(rows)  # never an upsert: it would fall upon the row that holds the phone
        except IntegrityError as error:
            if "open_phone" in str(error):
                raise PromptOpen("this phone has an open M-Pesa request") from None
            raise

    def send_again(self, requests: Sequence[MpesaRequest]) -> None:
        update([to_row(request) for request in requests], ["fence", "status", "send_before", "open_phone"])

    def conclude(self, requests: Sequence[MpesaRequest], answers: Sequence[str]) -> None:
        rows = [to_row(request) for request in requests]
        for row, answer in zip(rows, answers, strict=True):
            row.answer = answer
        columns = ["status", "code", "outcome_at", "open_phone", "merchant_request_id", "checkout_request_id"]
        update(rows, [*columns, "checkout_index", "receipt", "answer"])

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        columns = ["status", "code", "outcome_at", "open_phone", "receipt", "asked_at", "absences"]
        update([to_row(request) for request in requests], columns)

    def busy(self, numbers: Iterable[str]) -> set[str]:
        by_index = {blind_index(PHONE, number): number for number in numbers}
        rows = models.MpesaRequest.objects.filter(open_phone__in=by_index).values_list("open_phone", flat=True)
        return {by_index[index] for index in rows if index}


def to_domain(row: models.MpesaRequest) -> MpesaRequest:
    """Without claims, which are the callbacks' to tell."""
    return MpesaRequest(
        id=RequestId(row.pk),
        transaction_id=TransactionId(row.transaction_id),
        leg=Leg(row.leg),
        attempt=row.attempt,
        reference=row.reference,
        amount=Money(row.amount, Currency(row.currency)),
        send_before=row.send_before,
        created_at=row.created_at,
        status=RequestStatus(row.status),
        fence=row.fence,
        code=row.code,
        outcome_at=row.outcome_at,
        asked_at=row.asked_at,
        absences=row.absences,
        phone=Phone(row.phone),
        shortcode=row.shortcode,
        merchant_request_id=row.merchant_request_id,
        checkout_request_id=row.checkout_request_id,
        receipt=row.receipt or "",
    )


def to_claim(row: Any) -> MpesaClaim:
    """From the columns that `DjangoMpesaRequests.of` joins."""
    return MpesaClaim(
        result_code=row.claim_result_code,
        received_at=row.claim_received_at,
        amount=None if row.claim_amount is None else Money(row.claim_amount, Currency.KES),
        receipt=row.claim_receipt,
        agrees=row.claim_verdict == Verdict.AGREES,
    )


def to_row(request: MpesaRequest) -> models.MpesaRequest:
    """Without the raw answer."""
    checkout = request.checkout_request_id
    return models.MpesaRequest(
        id=request.id,
        transaction_id=request.transaction_id,
        leg=request.leg,
        attempt=request.attempt,
        reference=request.reference,
        amount=request.amount.amount,
        currency=request.amount.currency,
        phone=request.phone.number,
        open_phone=blind_index(PHONE, request.phone.number) if request.status in HOLDS_PHONE else None,
        shortcode=request.shortcode,
        callback_hash=token_hash(callback_token(blind_index, request.id)),
        status=request.status,
        fence=request.fence,
        code=request.code[:128],
        send_before=request.send_before,
        created_at=request.created_at,
        outcome_at=request.outcome_at,
        asked_at=request.asked_at,
        absences=request.absences,
        merchant_request_id=request.merchant_request_id,
        checkout_request_id=checkout,
        checkout_index=blind_index(CHECKOUT, checkout) if checkout else None,
        receipt=request.receipt or None,
    )


@dataclass(frozen=True)
class DjangoMpesaCallbacks:
    """`mpesa_callbacks`."""

    def attempt_of(self, callback_hash: str, sha256: str, receipt: str) -> Attempt | None:
        with connection.cursor() as cursor:
            cursor.execute(ATTEMPT_OF, [sha256, receipt or None, callback_hash])
            row = cursor.fetchone()
        if row is None:
            return None
        id = UUID(bytes=bytes(row[0]))
        return Attempt(
            id=RequestId(id),
            transaction_id=TransactionId(UUID(bytes=bytes(row[1]))),
            amount=Money(row[2], Currency(row[3])),
            merchant_request_id=row[4],
            checkout_request_id=decrypt(row[5], f"{CHECKOUT}|{id}") if row[5] else "",
            receipt=row[6] or "",
            seen=bool(row[7]),
            receipt_taken=bool(row[8]),
        )

    def add(self, callback: MpesaCallback) -> None:
        claim = callback.claim
        row = models.MpesaCallback(
            id=callback.id,
            request_id=callback.request_id,
            kind=callback.kind,
            received_at=callback.received_at,
            last_received_at=callback.received_at,
            peer=callback.peer[:45],
            sha256=callback.sha256,
            verdict=callback.verdict,
            result_code=claim.result_code if claim else "",
            amount=claim.amount.amount if claim and claim.amount else None,
            receipt=claim.receipt if claim else "",
            headers=callback.headers,
            body=stored(callback.body),
        )
        try:
            insert([row])
        except IntegrityError as error:
            if callback.request_id is None:
                raise
            raise CallbackRepeated from error

    def repeated(self, attempt: Attempt, sha256: str, at: datetime) -> None:
        rows = models.MpesaCallback.objects.filter(request_id=attempt.id, sha256=sha256)
        rows.update(times=F("times") + 1, last_received_at=at)


def stored(body: bytes) -> str:
    """The raw bytes as text; what is not UTF-8 as `base64:…`."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "base64:" + b64encode(body).decode()


@dataclass(frozen=True)
class DjangoTokens:
    """`mpesa_tokens`; commits on its own."""

    def read(self, account: str) -> Token | None:
        row = models.MpesaToken.objects.filter(pk=_token_id(account)).first()
        return None if row is None else Token(row.token, row.fetched_at)

    def write(self, account: str, token: Token) -> None:
        row = models.MpesaToken(id=_token_id(account), token=token.value, fetched_at=token.fetched_at)
        if not update([row], ["token", "fetched_at"]):
            insert([row])  # the refresh's lease keeps others out


def _token_id(account: str) -> UUID:
    return UUID(bytes=sha256(account.encode()).digest()[:16])
