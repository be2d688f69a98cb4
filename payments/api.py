"""The REST edge of payments: quotes, deposits, withdrawals, transactions, limits."""

import json
from typing import Any, cast
from uuid import UUID

from django.core.validators import RegexValidator
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from payments.domain.eligibility import CustomerOwes
from payments.domain.limits import Left
from payments.domain.transaction import TransactionNotFound
from payments.facade import (
    CreateDeposit,
    CreateQuote,
    CreateWithdrawal,
    RequestCode,
    TransactionStatus,
    TransactionType,
    deposits,
    first_answer,
    limits,
    new_id,
    now,
    queries,
    quotes,
    users,
    withdrawals,
)
from shared_kernel.api.answers import LIMIT, Page, accepted, idempotency_key
from shared_kernel.api.bodies import Body, IdField, MoneyField, TextField, money_json
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Money
from shared_kernel.domain.rate_limits import Counter
from shared_kernel.facade import limiter

# as either of Deriv's platforms writes one: whatever else was typed is told before the quote is used up
CODE = RegexValidator(r"^[A-Za-z0-9_]+\Z", "Give the code as Deriv sent it: letters and digits only.")


def customer_id(request: Request) -> UserId:
    """Who is signed in."""
    return cast("UserId", request.user.id)


def counter(limit: str, request: Request) -> Counter:
    """Of the customer who asks."""
    return Counter(limit, str(customer_id(request)))


def session_id(request: Request) -> UUID:
    """The session that they are signed in with."""
    signed_in: Any = request.user
    return cast("UUID", signed_in.session_id)


class StepJSON(serializers.Serializer[Any]):
    """One change of status."""

    status = serializers.CharField()
    at = serializers.DateTimeField()


class FailureJSON(serializers.Serializer[Any]):
    """Why it ended otherwise, in the customer's words."""

    code = serializers.CharField()
    detail = serializers.CharField()


class TransactionJSON(serializers.Serializer[Any]):
    """A Transaction as its customer sees it."""

    id = IdField()
    type = serializers.CharField()
    status = serializers.CharField()
    amount = MoneyField()
    payout = MoneyField()
    locked_rate = serializers.CharField()
    expected_by = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    failure = FailureJSON(allow_null=True)
    timeline = StepJSON(many=True)


class AcceptedJSON(serializers.Serializer[Any]):
    """What was accepted."""

    transaction = TransactionJSON()


class TransactionPage(serializers.Serializer[Any]):
    """One page, newest first."""

    items = TransactionJSON(many=True)
    next = serializers.CharField(allow_null=True)


class QuoteJSON(serializers.Serializer[Any]):
    """An offer, good until `expires_at`; `rate` and `margin` are KES for one USD."""

    id = IdField()
    type = serializers.CharField()
    rate = serializers.CharField()
    margin = serializers.CharField()
    you_send = MoneyField()
    you_get = MoneyField()
    expires_at = serializers.DateTimeField()


class LimitJSON(serializers.Serializer[Any]):
    """What may still be moved in one period; `left` is null where there is no such limit."""

    minimum = MoneyField()
    maximum = MoneyField()
    left_today = MoneyField(allow_null=True)
    left_this_month = MoneyField(allow_null=True)
    why = serializers.CharField()


class LimitsJSON(serializers.Serializer[Any]):
    """By type of Transaction."""

    deposit = LimitJSON()
    withdrawal = LimitJSON()


class VerificationJSON(serializers.Serializer[Any]):
    """Deriv sent the customer a one-time code."""

    expires_at = serializers.DateTimeField()
    next_request_at = serializers.DateTimeField()


class QuotesView(APIView):
    """`POST quotes`."""

    class QuoteBody(Body):
        type = serializers.ChoiceField(choices=[str(kind) for kind in TransactionType])
        amount = MoneyField()

    @extend_schema(request=QuoteBody, responses={201: QuoteJSON}, operation_id="create_quote")
    def post(self, request: Request) -> Response:
        """What an amount would give, before anything is asked of the customer."""
        body = self.QuoteBody.read(request)
        limiter.take(counter("quotes.user", request))
        kind = TransactionType(body["type"])
        quote = quotes.create(CreateQuote(QuoteId(new_id()), customer_id(request), kind, body["amount"], now()))
        answer = {
            "id": str(quote.id),
            "type": str(quote.type),
            "rate": queries.decimal(quote.rate.rate),
            "margin": queries.decimal(quote.margin),
            "you_send": money_json(quote.you_send),
            "you_get": money_json(quote.you_get),
            "expires_at": queries.time(quote.expires_at),
        }
        return Response(answer, status=201)


class Deposits(APIView):
    """`POST deposits`."""

    problems = (404, 409, 422)

    class DepositBody(Body):
        quote_id = IdField()

    @extend_schema(
        request=DepositBody,
        responses={202: AcceptedJSON},
        operation_id="create_deposit",
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, required=True)],
    )
    def post(self, request: Request) -> Response:
        """Accepts a quote: M-Pesa will ask the customer's phone for the payment."""
        key = idempotency_key(request, f"{customer_id(request)}:deposits")
        body = self.DepositBody.read(request)
        command = CreateDeposit(TransactionId(new_id()), customer_id(request), body["quote_id"], key, now())
        text, replayed = deposits.create(command, first_answer)
        answer = json.loads(text)
        return accepted(answer, location=f"/api/v1/transactions/{answer['transaction']['id']}", replayed=replayed)


class WithdrawalVerification(APIView):
    """`POST withdrawals/verification`."""

    problems = (404, 409, 422, 429, 503)

    class VerificationBody(Body):
        quote_id = IdField()

    @extend_schema(
        request=VerificationBody, responses={202: VerificationJSON}, operation_id="request_withdrawal_verification"
    )
    def post(self, request: Request) -> Response:
        """Has Deriv send the customer the one-time code for a withdrawal that they were quoted.

        403 `device_too_new` where a large one is asked for from a device new to the account, or after
        a change of its phone; `may_at` says until when.
        """
        body = self.VerificationBody.read(request)
        limiter.take(counter("withdrawal_codes.user", request))
        sent = withdrawals.request_code(RequestCode(customer_id(request), body["quote_id"], now(), session_id(request)))
        answer = {
            "expires_at": queries.time(sent.expires_at),
            "next_request_at": queries.time(sent.next_request_at),
        }
        return Response(answer, status=202)


class Withdrawals(APIView):
    """`POST withdrawals`."""

    problems = (404, 409, 422, 503)

    class WithdrawalBody(Body):
        quote_id = IdField()
        verification_code = TextField(min_length=6, max_length=128, validators=[CODE])
        min_payout = MoneyField(required=False)

    @extend_schema(
        request=WithdrawalBody,
        responses={202: AcceptedJSON},
        operation_id="create_withdrawal",
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, required=True)],
    )
    def post(self, request: Request) -> Response:
        """Accepts a quote with Deriv's one-time code: Deriv is debited, then the customer's own phone is paid.

        Needs a step-up of the last five minutes (`POST auth/step-up`), else 403 `step_up_required`. From a device that
        is new to the account, or after a change of its phone, a large one has to wait: 403 `device_too_new`, and
        `may_at` says until when.
        """
        key = idempotency_key(request, f"{customer_id(request)}:withdrawals")
        body = self.WithdrawalBody.read(request)
        command = CreateWithdrawal(
            TransactionId(new_id()),
            customer_id(request),
            body["quote_id"],
            body["verification_code"],
            body.get("min_payout"),
            key,
            now(),
            session_id(request),
        )
        text, replayed = withdrawals.create(command, first_answer)
        answer = json.loads(text)
        return accepted(answer, location=f"/api/v1/transactions/{answer['transaction']['id']}", replayed=replayed)


class Transactions(APIView):
    """`GET transactions`."""

    class Filter(Body):
        type = serializers.ChoiceField(choices=[str(kind) for kind in TransactionType], required=False)
        status = serializers.ChoiceField(choices=[str(status) for status in TransactionStatus], required=False)
        since = serializers.DateTimeField(required=False)
        until = serializers.DateTimeField(required=False)
        cursor = TextField(required=False, max_length=300)
        limit = TextField(required=False)

    @extend_schema(
        responses=TransactionPage,
        operation_id="list_transactions",
        parameters=[
            OpenApiParameter("type", str, enum=[str(kind) for kind in TransactionType]),
            OpenApiParameter("status", str, enum=[str(status) for status in TransactionStatus]),
            OpenApiParameter("from", str, description="RFC 3339; created then or later"),
            OpenApiParameter("to", str, description="RFC 3339; created before"),
            OpenApiParameter("cursor", str),
            OpenApiParameter("limit", LIMIT),
        ],
    )
    def get(self, request: Request) -> Response:
        """The customer's Transactions, newest first."""
        given = {RENAMED.get(name, name): value for name, value in request.query_params.items()}
        wanted = self.Filter(data=given)
        wanted.is_valid(raise_exception=True)
        page = Page.of(request)
        chosen = {name: wanted.validated_data.get(name) for name in ("type", "status", "since", "until")}
        rows = page.rows(queries.transactions_of(customer_id(request), **chosen))
        timelines = queries.timelines([row.id for row in rows])
        return page.answer(rows, lambda row: queries.transaction_json(row, timelines[row.id]))


RENAMED = {"from": "since", "to": "until"}


class TransactionDetail(APIView):
    """`GET transactions/{id}`."""

    @extend_schema(responses=TransactionJSON, operation_id="read_transaction")
    def get(self, request: Request, id: UUID) -> Response:
        """One of the customer's own Transactions."""
        row = queries.transaction_of(customer_id(request), id)
        if row is None:
            raise TransactionNotFound("no such transaction")
        answer = queries.transaction_json(row, queries.timelines([id])[id], expected=queries.expected_by(row))
        return Response(answer)


class LimitsView(APIView):
    """`GET limits`."""

    @extend_schema(responses=LimitsJSON, operation_id="read_limits")
    def get(self, request: Request) -> Response:
        """What this customer may still deposit and withdraw, and why; in shillings both."""
        return Response({str(kind): limits_json(request, kind) for kind in TransactionType})


def limits_json(request: Request, kind: TransactionType) -> dict[str, Any]:
    """The tier's rule and what is left of it; nothing of withdrawals while the customer owes."""
    tier, why = users.tier_of(customer_id(request)), ""
    rule, moved = limits.left(customer_id(request), tier, kind, at=now())
    if kind is TransactionType.WITHDRAWAL:
        try:
            withdrawals.must_owe_nothing(customer_id(request))
        except CustomerOwes as refusal:
            nothing = Money(0, rule.minimum.currency)
            moved, why = Left(nothing, nothing), refusal.detail
    return {
        "minimum": money_json(rule.minimum),
        "maximum": money_json(rule.maximum),
        "left_today": money_json(moved.today) if moved.today is not None else None,
        "left_this_month": money_json(moved.this_month) if moved.this_month is not None else None,
        "why": why or f"your verification level is {tier}",
    }
