"""The attempts and the shared access token over Django."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Case, F, FilteredRelation, Q, Sum, Value, When

from mpesa_integration import models
from mpesa_integration.domain.balance import BalanceQuestion
from mpesa_integration.domain.callback import RESULT_OF, CallbackKind, Verdict
from mpesa_integration.domain.request import (
    OPEN,
    OUTFLOWS,
    OutflowOpen,
    PromptOpen,
    ReceiptTaken,
    callback_token,
    token_hash,
)
from mpesa_integration.infrastructure.tokens import Token
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import SEND_WINDOW, Blame, Leg, MpesaClaim, MpesaRequest, RequestStatus
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.rows import insert, update

PHONE, CHECKOUT = "mpesa_requests.phone", "mpesa_requests.checkout_request_id"
CLAIMS = {"result_code", "received_at", "amount", "receipt", "verdict", "fate", "blame", "fee"}
PART = 1000  # ids in one SELECT
MOVES = [leg for leg in Leg if leg not in {Leg.STATUS_QUERY, Leg.ACCOUNT_BALANCE}]
EXPLAINS = timedelta(days=2)  # how far an attempt's sending and its movement can be apart: Pull shows it as long
UNSETTLED = [status for status in RequestStatus if status.may_take_effect]


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
            .order_by("transaction_id", "pk", "said__received_at")  # ids sort by time, over all legs
        )
        found: dict[TransactionId, list[MpesaRequest]] = {}
        for row in rows:
            requests = found.setdefault(TransactionId(row.transaction_id), [])
            if not requests or requests[-1].id != row.pk:
                requests.append(to_domain(row))
            if row.claim_result_code is not None:
                requests[-1].claims.append(to_claim(row))
        return found

    def prompts_by(self, references: Sequence[str]) -> dict[str, MpesaRequest]:
        rows = models.MpesaRequest.objects.filter(reference__in=list(references), leg=Leg.STK_PUSH).defer("answer")
        return {row.reference: to_domain(row) for row in rows}

    def behind(self, ids: Sequence[RequestId], receipts: Sequence[str]) -> list[MpesaRequest]:
        rows = models.MpesaRequest.objects.defer("answer")
        found: dict[RequestId, MpesaRequest] = {}
        for start in range(0, max(len(ids), len(receipts)), PART):
            known, shown = list(ids[start : start + PART]), list(receipts[start : start + PART])
            several = (rows.filter(pk__in=known), rows.filter(receipt__in=shown))
            named = [to_domain(row) for found_rows in several for row in found_rows]
            of = {request.transaction_id for request in named}
            taken_back = [to_domain(row) for row in rows.filter(transaction_id__in=of, leg=Leg.REVERSAL)]
            found |= {request.id: request for request in (*named, *taken_back)}
        return list(found.values())

    def may_explain(
        self,
        shortcode: str,
        receipt: str,
        reference: str,
        amount: Money,
        moved_at: datetime,
        *,
        other_amounts: bool = True,
    ) -> list[MpesaRequest]:
        rows = models.MpesaRequest.objects.defer("answer").filter(leg__in=MOVES)
        came_in = amount.amount > 0
        way = [Leg.STK_PUSH] if came_in else OUTFLOWS
        ended = [RequestStatus.DONE] if came_in else [RequestStatus.DONE, RequestStatus.REFUSED, RequestStatus.CLOSED]
        before = rows.filter(shortcode=shortcode, leg__in=way, send_before__lt=moved_at + EXPLAINS)
        undecided, alike = before.filter(status__in=UNSETTLED), before.filter(amount=abs(amount.amount))
        several = [  # one statement: each part finds its rows by an index of its own
            undecided if other_amounts and not came_in else undecided.filter(amount=abs(amount.amount)),
            alike.filter(status__in=ended, receipt=None, send_before__gt=moved_at - EXPLAINS),
            rows.filter(pk__in=models.MpesaCallback.objects.filter(receipt=receipt).values("request_id")),
            rows.filter(reference=reference) if reference else rows.none(),
        ]
        return [to_domain(row) for row in rows.filter(receipt=receipt).union(*several)[:PART]]

    def overdue(self, before: datetime, most: int) -> list[MpesaRequest]:
        rows = models.MpesaRequest.objects.filter(status__in=UNSETTLED, send_before__lt=before).defer("answer")
        rows = rows.exclude(leg__in=[Leg.STATUS_QUERY, Leg.ACCOUNT_BALANCE])
        return [to_domain(row) for row in rows.order_by("send_before")[:most]]

    def in_flight(self, shortcode: str, made_since: datetime | None) -> tuple[int, int]:
        rows = models.MpesaRequest.objects.filter(shortcode=shortcode, leg__in=MOVES)
        if made_since is None:
            rows = rows.filter(status__in=UNSETTLED)
        else:  # made since then, or sent once more
            again = Q(fence__gt=1, send_before__gte=made_since + SEND_WINDOW)
            rows = rows.filter(status__in=list(RequestStatus), send_before__gte=made_since)
            rows = rows.filter(Q(created_at__gte=made_since) | again)
        sums = dict(rows.order_by().values_list("leg").annotate(Sum("amount")))
        coming = sums.pop(Leg.STK_PUSH, 0)
        return int(coming), int(sum(sums.values()))

    def charged_later(self, shortcode: str, confirmed: str, since: datetime) -> int:
        sent = [*UNSETTLED, RequestStatus.DONE]
        rows = models.MpesaRequest.objects.filter(status__in=sent, send_before__gte=since, shortcode=shortcode)
        return rows.filter(leg__in=[Leg.B2C_PAYOUT, Leg.B2C_REFUND]).exclude(status="done", code=confirmed).count()

    def attach_receipts(self, receipts: Mapping[RequestId, str]) -> None:
        fresh = models.MpesaRequest.objects.filter(receipt=None)
        if receipts:
            cases = [When(pk=id, then=Value(receipt)) for id, receipt in receipts.items()]
            fresh.filter(pk__in=list(receipts)).update(receipt=Case(*cases))

    def add(self, requests: Sequence[MpesaRequest]) -> None:
        rows = [to_row(request) for request in requests]
        try:
            insert(rows)  # never an upsert: it would fall upon the row that holds the phone
        except IntegrityError as error:
            if "open_phone" in str(error):
                raise PromptOpen("this phone has an open M-Pesa request") from None
            if "open_outflow" in str(error):
                raise OutflowOpen("money may still leave by another attempt of this Transaction") from None
            raise

    def send_again(self, requests: Sequence[MpesaRequest]) -> None:
        """Unless the one before surely had no effect, it may still have one: its row says so for ever."""
        ids = [request.id for request in requests]
        models.MpesaRequest.objects.filter(pk__in=ids, status__in=UNSETTLED).update(was_unknown=True)
        columns = ["fence", "status", "send_before", "asked_at", "open_phone", "open_outflow"]
        update([to_row(request) for request in requests], columns)

    def conclude(self, requests: Sequence[MpesaRequest], answers: Sequence[str]) -> None:
        rows = [to_row(request) for request in requests]
        for row, answer in zip(rows, answers, strict=True):
            row.answer = answer
        columns = ["status", "code", "outcome_at", "open_phone", "open_outflow", "was_unknown", "merchant_request_id"]
        update(rows, [*columns, "checkout_request_id", "checkout_index", "conversation_id", "receipt", "answer"])

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        columns = ["status", "code", "outcome_at", "open_phone", "open_outflow", "was_unknown", "receipt", "asked_at"]
        columns.append("absences")
        try:
            update([to_row(request) for request in requests], columns)
        except IntegrityError as error:
            if "receipt" in str(error):
                raise ReceiptTaken("another attempt has this receipt: look up whose payment it was") from None
            raise

    def ask(self, question: BalanceQuestion) -> None:
        insert(
            [
                models.MpesaRequest(
                    id=question.id,
                    leg=Leg.ACCOUNT_BALANCE,
                    attempt=1,
                    reference=question.reference,
                    amount=0,
                    currency=Currency.KES,
                    shortcode=question.shortcode,
                    status=RequestStatus.SENDING,
                    send_before=question.send_before,
                    created_at=question.created_at,
                    **_hashes(question.id, Leg.ACCOUNT_BALANCE),
                )
            ]
        )

    def answered(
        self,
        question: BalanceQuestion,
        status: RequestStatus,
        code: str,
        conversation_id: str,
        answer: str,
        at: datetime,
    ) -> None:
        row = models.MpesaRequest(
            id=question.id,
            status=status,
            code=code[:128],
            conversation_id=conversation_id,
            answer=answer,
            outcome_at=at,
        )
        update([row], ["status", "code", "conversation_id", "answer", "outcome_at"])

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
        about=row.about,
        amount=Money(row.amount, Currency(row.currency)),
        send_before=row.send_before,
        created_at=row.created_at,
        status=RequestStatus(row.status),
        fence=row.fence,
        code=row.code,
        outcome_at=row.outcome_at,
        asked_at=row.asked_at,
        absences=row.absences,
        was_unknown=row.was_unknown,
        phone=Phone(row.phone),
        shortcode=row.shortcode,
        merchant_request_id=row.merchant_request_id,
        checkout_request_id=row.checkout_request_id,
        conversation_id=row.conversation_id,
        receipt=row.receipt or "",
    )


def to_claim(row: Any) -> MpesaClaim:
    """From the columns that `DjangoMpesaRequests.of` joins."""
    return MpesaClaim(
        result_code=row.claim_result_code,
        received_at=row.claim_received_at,
        amount=_kes(row.claim_amount),
        receipt=row.claim_receipt,
        agrees=row.claim_verdict == Verdict.AGREES,
        blame=Blame(row.claim_blame),
        fate=row.claim_fate,
        fee=_kes(row.claim_fee),
    )


def _kes(minor: int | None) -> Money | None:
    return None if minor is None else Money(minor, Currency.KES)


def to_row(request: MpesaRequest) -> models.MpesaRequest:
    """Without the raw answer."""
    checkout, is_open = request.checkout_request_id, request.status in OPEN
    holds_phone = is_open and request.leg is Leg.STK_PUSH
    return models.MpesaRequest(
        id=request.id,
        transaction_id=request.transaction_id,
        leg=request.leg,
        attempt=request.attempt,
        reference=request.reference,
        about=request.about,
        amount=request.amount.amount,
        currency=request.amount.currency,
        phone=request.phone.number,
        open_phone=blind_index(PHONE, request.phone.number) if holds_phone else None,
        open_outflow=request.transaction_id if is_open and request.leg in OUTFLOWS else None,
        shortcode=request.shortcode,
        status=request.status,
        fence=request.fence,
        code=request.code[:128],
        send_before=request.send_before,
        created_at=request.created_at,
        outcome_at=request.outcome_at,
        asked_at=request.asked_at,
        absences=request.absences,
        was_unknown=request.was_unknown,
        conversation_id=request.conversation_id,
        merchant_request_id=request.merchant_request_id,
        checkout_request_id=checkout,
        checkout_index=blind_index(CHECKOUT, checkout) if checkout else None,
        receipt=request.receipt or None,
        **_hashes(request.id, request.leg),
    )


def _hashes(id: RequestId, leg: Leg) -> dict[str, str | None]:
    """Of the tokens in an attempt's callback URLs."""
    kind = RESULT_OF[leg]
    late = None if kind is CallbackKind.STK else token_hash(callback_token(blind_index, id, kind.timeout))
    return {"callback_hash": token_hash(callback_token(blind_index, id, kind)), "timeout_hash": late}


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
