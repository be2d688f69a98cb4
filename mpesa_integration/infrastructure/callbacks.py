"""The callbacks over Django: the attempt that one is about, and all that came."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection
from django.db.models import F

from mpesa_integration import models
from mpesa_integration.domain.callback import RESULT_OF, Attempt, Balance, CallbackKind, MpesaCallback
from mpesa_integration.domain.ports import CallbackRepeated
from mpesa_integration.infrastructure.persistence import CHECKOUT, PHONE
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import Leg
from shared_kernel.infrastructure.encryption import decrypt
from shared_kernel.infrastructure.rows import insert

# By hand, for each callback passes here: building it anew costs more than running it. A receipt is taken when another
# payment has it, or another payment's callback of the same kind named it; a question's own subject is no other payment.
ATTEMPT = """
    SELECT r.id, r.transaction_id, r.leg, r.reference, r.about, r.amount, r.currency, r.shortcode, r.phone,
        r.merchant_request_id, r.checkout_request_id, r.conversation_id, r.receipt,
        EXISTS (SELECT 1 FROM mpesa_callbacks c WHERE c.request_id = r.id AND c.kind = %s AND c.sha256 = %s),
        EXISTS (SELECT 1 FROM mpesa_requests o WHERE o.receipt = %s AND o.id <> r.id
            AND o.reference <> r.about AND o.receipt <> r.about),
        EXISTS (SELECT 1 FROM mpesa_callbacks c WHERE c.receipt = %s AND c.request_id <> r.id AND c.kind = %s
            AND c.verdict = 'agrees')
    FROM mpesa_requests r WHERE """
BY_TOKEN = ATTEMPT + "r.callback_hash = %s"
BY_TIMEOUT = ATTEMPT + "r.timeout_hash = %s"
BY_REFERENCE = ATTEMPT + "r.reference = %s AND r.shortcode = %s AND r.leg = %s"
NAMES_NEW_MONEY = {CallbackKind.STK, CallbackKind.B2C, CallbackKind.CONFIRMATION}


@dataclass(frozen=True)
class DjangoMpesaCallbacks:
    """`mpesa_callbacks`, and the balances that some of them bring."""

    def attempt_of(self, kind: CallbackKind, token_hash: str, sha256: str, receipt: str) -> Attempt | None:
        found = _attempt(kind, BY_TIMEOUT if kind.is_timeout else BY_TOKEN, [token_hash], sha256, receipt)
        return found if found is not None and RESULT_OF[found.leg] == kind[0] else None

    def attempt_paid(self, reference: str, shortcode: str, sha256: str, receipt: str) -> Attempt | None:
        kind = CallbackKind.CONFIRMATION
        return _attempt(kind, BY_REFERENCE, [reference, shortcode, Leg.STK_PUSH], sha256, receipt)

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
            fate=claim.fate if claim else "",
            blame=claim.blame if claim else "",
            fee=claim.fee.amount if claim and claim.fee else None,
            headers=callback.headers,
            body=stored(callback.body),
        )
        try:
            insert([row])
        except IntegrityError as error:
            if callback.request_id is None:
                raise
            raise CallbackRepeated from error

    def repeated(self, attempt: Attempt, kind: CallbackKind, sha256: str, at: datetime) -> None:
        rows = models.MpesaCallback.objects.filter(request_id=attempt.id, kind=kind, sha256=sha256)
        rows.update(times=F("times") + 1, last_received_at=at)

    def add_balances(self, attempt: Attempt, balances: Sequence[tuple[UUID, Balance]], at: datetime) -> None:
        insert(
            [
                models.MpesaBalance(
                    id=id,
                    shortcode=attempt.shortcode,
                    account=balance.account,
                    available=balance.available.amount,
                    at=at,
                    request_id=attempt.id,
                )
                for id, balance in balances
            ]
        )

    def told(self, questions: Sequence[UUID]) -> Mapping[UUID, tuple[Mapping[str, Money], datetime]]:
        found: dict[UUID, tuple[dict[str, Money], datetime]] = {}
        for row in models.MpesaBalance.objects.filter(request_id__in=list(questions)).order_by("at"):
            accounts, _ = found.setdefault(row.request_id, ({}, row.at))
            accounts.setdefault(row.account, Money(row.available, Currency.KES))  # the first answer: a repeat is later
        return found

    def balances(self, shortcode: str) -> Mapping[str, tuple[Money, datetime]]:
        newest = models.MpesaBalance.objects.filter(shortcode=shortcode).order_by("-at")
        of_last = newest.filter(at=newest.values("at")[:1])
        return {row.account: (Money(row.available, Currency.KES), row.at) for row in of_last}


def stored(body: bytes) -> str:
    """The raw bytes as text; what is not UTF-8 as `base64:…`."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "base64:" + b64encode(body).decode()


def _attempt(kind: CallbackKind, sql: str, key: Sequence[str], sha256: str, receipt: str) -> Attempt | None:
    of_kind = str(kind) if kind in NAMES_NEW_MONEY else ""  # questions and reversals may well name a receipt again
    with connection.cursor() as cursor:
        cursor.execute(sql, [str(kind), sha256, receipt or None, receipt or None, of_kind, *key])
        row: Any = cursor.fetchone()
    if row is None:
        return None
    id, transaction = UUID(bytes=bytes(row[0])), row[1]
    paid_to = kind is CallbackKind.B2C and row[8]
    return Attempt(
        id=RequestId(id),
        transaction_id=None if transaction is None else TransactionId(UUID(bytes=bytes(transaction))),
        leg=Leg(row[2]),
        reference=row[3],
        about=row[4],
        amount=Money(row[5], Currency(row[6])),
        shortcode=row[7],
        phone=Phone(decrypt(row[8], f"{PHONE}|{id}")) if paid_to else None,
        merchant_request_id=row[9],
        checkout_request_id=decrypt(row[10], f"{CHECKOUT}|{id}") if row[10] else "",
        conversation_id=row[11],
        receipt=row[12] or "",
        seen=bool(row[13]),
        receipt_taken=bool(row[14]) or bool(row[15]),
    )
