"""The REST edge of identity: signing up, in and out, and the customer's own page."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.validators import RegexValidator
from django.http import HttpResponse
from django.middleware.csrf import get_token
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from identity.api.authentication import ACCESS_COOKIE, DEVICE_COOKIE, SECURE, CsrfOnly
from identity.api.bodies import SIX_DIGITS, CodeBody, CodeSentJSON, EmailField, identifier, signed_in
from identity.facade import (
    Register,
    SignIn,
    Tokens,
    auth,
    queries,
    registration,
)
from shared_kernel.api.bodies import Body, IdField, PhoneField, TextField
from shared_kernel.api.problems import problem
from shared_kernel.domain.errors import Unauthenticated
from shared_kernel.facade import now

AUTH_PATH = "/api/v1/auth"
REFRESH_COOKIE = f"{SECURE}penpay_refresh"  # only to AUTH_PATH
DEVICE_COOKIE_AGE = timedelta(days=400)  # the longest that browsers keep one


class KycJSON(serializers.Serializer[Any]):
    """The identity check: `none`, `submitted`, `verified`, `rejected` or `expired`; the tier chooses the limits."""

    status = serializers.CharField()
    tier = serializers.CharField()


class AddressJSON(serializers.Serializer[Any]):
    """Where the customer lives; `country` by ISO 3166-1 alpha-2."""

    line = serializers.CharField()
    town = serializers.CharField()
    county = serializers.CharField()
    postal_code = serializers.CharField()
    country = serializers.CharField()


class UserJSON(serializers.Serializer[Any]):
    """The customer's own account."""

    id = IdField()
    phone = serializers.CharField()
    phone_verified = serializers.BooleanField()
    email = serializers.CharField()
    email_verified = serializers.BooleanField()
    full_name = serializers.CharField()
    address = AddressJSON(allow_null=True)
    kyc = KycJSON()
    deriv_login_bound = serializers.BooleanField()
    created_at = serializers.DateTimeField()


class RegisteredJSON(serializers.Serializer[Any]):
    """A new account."""

    user = UserJSON()


class DeviceJSON(serializers.Serializer[Any]):
    """A device that the customer signs in from; `id` is the one that it goes by."""

    id = serializers.CharField()
    name = serializers.CharField()
    platform = serializers.CharField()


class KnownDeviceJSON(DeviceJSON):
    """A device, and since when it is known."""

    created_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()


class DevicesJSON(serializers.Serializer[Any]):
    """All active devices: there are never more than a few."""

    items = KnownDeviceJSON(many=True)
    next = serializers.CharField(allow_null=True)


class WelcomeJSON(serializers.Serializer[Any]):
    """A sign-in; the tokens are in cookies."""

    user = UserJSON()
    device = DeviceJSON()


class Csrf(APIView):
    """`GET auth/csrf`."""

    authentication_classes = ()
    permission_classes = [AllowAny]

    @extend_schema(responses={204: None}, operation_id="read_csrf", auth=[])
    def get(self, request: Request) -> Response:
        """Sets the `csrftoken` cookie, whose value unsafe methods repeat in `X-CSRFToken`."""
        get_token(request._request)
        return Response(status=204)


class Registrations(APIView):
    """`POST auth/register`."""

    authentication_classes = [CsrfOnly]
    permission_classes = [AllowAny]
    problems = (403, 409, 422)

    class RegisterBody(Body):
        phone = PhoneField()
        email = EmailField()
        password = TextField(max_length=1024, trim_whitespace=False)
        full_name = TextField(max_length=120)

    @extend_schema(request=RegisterBody, responses={201: RegisteredJSON}, operation_id="register")
    def post(self, request: Request) -> Response:
        """A new account, whose phone is to be verified next: what was not verified a day later may be registered again.

        An account that never verified a number or address loses it to this one, after that day.
        """
        body = self.RegisterBody.read(request)
        user_id = registration.register(Register(**body))
        return Response(RegisteredJSON({"user": queries.me(user_id)}).data, status=201)


class DeviceBody(Body):
    """The device that signs in; without `id` it gets one."""

    id = TextField(required=False, validators=[RegexValidator(r"^[A-Za-z0-9._~:-]{1,64}\Z")])
    name = TextField(max_length=64)
    platform = TextField(max_length=32)


class Login(APIView):
    """`POST auth/login`."""

    authentication_classes = [CsrfOnly]
    permission_classes = [AllowAny]
    problems = (401, 403, 404, 409, 422, 429, 503)

    class LoginBody(Body):
        identifier = TextField(max_length=254)
        password = TextField(max_length=1024, trim_whitespace=False)
        device = DeviceBody()
        code = TextField(required=False, validators=[SIX_DIGITS])
        replace_device = TextField(required=False, max_length=64)

    @extend_schema(request=LoginBody, responses={200: WelcomeJSON}, operation_id="login")
    def post(self, request: Request) -> HttpResponse:
        """Signs in with phone or e-mail address; sets the three cookies.

        From a device that its cookie does not show to be the account's, once the phone is verified: 403
        `device_code_required`, a code goes out by SMS, and the same request with `code` signs in. While an
        authenticator is in use, only its codes are taken, and none is sent. An account's very first device needs none.

        With the code and all places for devices taken: 409 `device_limit_reached`, with the `devices`. The code stays
        good: remove one of them, or send the same request with its id as `replace_device`, which counts only beside a
        right `code`; that device's tokens stop at once.
        """
        body = self.LoginBody.read(request)
        device = body["device"]
        welcome = auth.sign_in(
            SignIn(
                identifier=identifier(body["identifier"]),
                password=body["password"],
                device_cookie=request.COOKIES.get(DEVICE_COOKIE, ""),
                client_id=device.get("id", ""),
                device_name=device["name"],
                platform=device["platform"],
                code=body.get("code", ""),
                replace_device=body.get("replace_device", ""),
            )
        )
        answer = WelcomeJSON({"user": queries.me(welcome.user_id), "device": welcome.device}).data
        return with_tokens(Response(answer), welcome.tokens)


class Refresh(APIView):
    """`POST auth/refresh`."""

    authentication_classes = [CsrfOnly]
    permission_classes = [AllowAny]
    problems = (401, 403, 409)

    @extend_schema(request=None, responses={204: None}, operation_id="refresh")
    def post(self, request: Request) -> HttpResponse:
        """Turns access and refresh token over. A refresh token that comes twice ends its session."""
        cookies, arrived_at = request.COOKIES, now()
        try:
            tokens = auth.refresh(
                cookies.get(REFRESH_COOKIE, ""), cookies.get(DEVICE_COOKIE, ""), arrived_at=arrived_at
            )
        except Unauthenticated as refused:
            answer = problem(refused)
            assert answer is not None
            return without_tokens(answer)
        return with_tokens(Response(status=204), tokens)


class Logout(APIView):
    """`POST auth/logout`."""

    authentication_classes = [CsrfOnly]
    permission_classes = [AllowAny]
    problems = (403,)

    @extend_schema(request=None, responses={204: None}, operation_id="logout")
    def post(self, request: Request) -> HttpResponse:
        """Ends this session, if there is one; the device stays known."""
        auth.sign_out(request.COOKIES.get(ACCESS_COOKIE, ""), request.COOKIES.get(REFRESH_COOKIE, ""))
        return without_tokens(Response(status=204))


class LogoutAll(APIView):
    """`POST auth/logout-all`."""

    @extend_schema(request=None, responses={204: None}, operation_id="logout_all")
    def post(self, request: Request) -> HttpResponse:
        """Ends all sessions on all devices."""
        auth.sign_out_everywhere(signed_in(request).id)
        return without_tokens(Response(status=204))


class Devices(APIView):
    """`GET me/devices`."""

    @extend_schema(responses=DevicesJSON, operation_id="list_devices")
    def get(self, request: Request) -> Response:
        """The devices that take the places under the device limit."""
        items = queries.devices_of(signed_in(request).id)
        return Response(DevicesJSON({"items": items, "next": None}).data)


class DeviceDetail(APIView):
    """`DELETE me/devices/{id}`."""

    @extend_schema(responses={204: None}, operation_id="remove_device")
    def delete(self, request: Request, id: str) -> Response:
        """Its tokens stop at once, and its place is free.

        For another device than this session's it needs a step-up of the last five minutes (`POST auth/step-up`), else
        403 `step_up_required`.
        """
        auth.remove_device(signed_in(request), id)
        return Response(status=204)


class PhoneVerification(APIView):
    """`POST me/phone-verification`."""

    @extend_schema(request=None, responses={202: CodeSentJSON}, operation_id="send_phone_code")
    def post(self, request: Request) -> Response:
        """Sends a code by SMS; the one before is closed."""
        expires_at = registration.send_phone_code(signed_in(request).id)
        return Response(CodeSentJSON({"expires_at": expires_at}).data, status=202)


class PhoneConfirmation(APIView):
    """`POST me/phone-verification/confirm`."""

    @extend_schema(request=CodeBody, responses={204: None}, operation_id="confirm_phone_code")
    def post(self, request: Request) -> Response:
        """Proves the phone number. A wrong code is counted; the fifth closes it."""
        body = CodeBody.read(request)
        registration.confirm_phone(signed_in(request).id, body["code"])
        return Response(status=204)


class EmailVerification(APIView):
    """`POST me/email-verification`."""

    @extend_schema(request=None, responses={202: CodeSentJSON}, operation_id="send_email_code")
    def post(self, request: Request) -> Response:
        """Sends a code by e-mail; the one before is closed."""
        expires_at = registration.send_email_code(signed_in(request).id)
        return Response(CodeSentJSON({"expires_at": expires_at}).data, status=202)


class EmailConfirmation(APIView):
    """`POST me/email-verification/confirm`."""

    @extend_schema(request=CodeBody, responses={204: None}, operation_id="confirm_email_code")
    def post(self, request: Request) -> Response:
        """Proves the e-mail address. A wrong code is counted; the fifth closes it."""
        body = CodeBody.read(request)
        registration.confirm_email(signed_in(request).id, body["code"])
        return Response(status=204)


def with_tokens(response: HttpResponse, tokens: Tokens) -> HttpResponse:
    """Sets the cookies. Tokens travel in nothing else."""
    age, refresh_age = settings.JWT_ACCESS_TTL, settings.JWT_REFRESH_TTL
    set_cookie(response, ACCESS_COOKIE, tokens.access, path="/", max_age=age)
    set_cookie(response, REFRESH_COOKIE, tokens.refresh, path=AUTH_PATH, max_age=refresh_age)
    if tokens.device is not None:
        longest = int(DEVICE_COOKIE_AGE.total_seconds())
        set_cookie(response, DEVICE_COOKIE, tokens.device, path=AUTH_PATH, max_age=longest)
    response["Cache-Control"] = "no-store"
    return response


def set_cookie(response: HttpResponse, name: str, value: str, *, path: str, max_age: int) -> None:
    response.set_cookie(
        name, value, max_age=max_age, path=path, secure=settings.SECURE_COOKIES, httponly=True, samesite="Strict"
    )


def without_tokens(response: HttpResponse) -> HttpResponse:
    """Clears access and refresh; the device stays known."""
    response.delete_cookie(ACCESS_COOKIE, path="/", samesite="Strict")
    response.delete_cookie(REFRESH_COOKIE, path=AUTH_PATH, samesite="Strict")
    response["Cache-Control"] = "no-store"
    return response
