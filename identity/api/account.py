"""The REST edge of an account's changes: password, phone, e-mail address, its end; stepping up, the authenticator."""

from datetime import datetime
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from identity.api.authentication import DEVICE_COOKIE, CsrfOnly
from identity.api.bodies import SIX_DIGITS, CodeBody, CodeSentJSON, EmailField, SteppedUp, identifier, signed_in
from identity.api.views import without_tokens
from identity.facade import account, step_up
from shared_kernel.api.bodies import Body, PhoneField, TextField


class PasswordReset(APIView):
    """`POST auth/password-reset`."""

    authentication_classes = [CsrfOnly]
    permission_classes = [AllowAny]
    problems = (403,)

    class ResetBody(Body):
        identifier = TextField(max_length=254)

    @extend_schema(request=ResetBody, responses={202: None}, operation_id="ask_for_password_reset")
    def post(self, request: Request) -> Response:
        """Sends a code to the account's verified address, without one to its verified phone: the answer never says.

        By which of them the account is named does not matter. With the cookie of a device that is known to the account
        the code is good on that device alone, without one on all others.
        """
        named = identifier(self.ResetBody.read(request)["identifier"])
        account.ask_for_reset(named, request.COOKIES.get(DEVICE_COOKIE, ""))
        return Response(status=202)


class PasswordResetConfirmation(APIView):
    """`POST auth/password-reset/confirm`."""

    authentication_classes = [CsrfOnly]
    permission_classes = [AllowAny]
    problems = (403,)

    class NewPasswordBody(Body):
        identifier = TextField(max_length=254)
        code = TextField(validators=[SIX_DIGITS])
        password = TextField(max_length=1024, trim_whitespace=False)

    @extend_schema(request=NewPasswordBody, responses={204: None}, operation_id="reset_password")
    def post(self, request: Request) -> Response:
        """Sets a new password by the code. Ends all sessions; whatever is wrong with the code is `reset_refused`."""
        body = self.NewPasswordBody.read(request)
        cookie = request.COOKIES.get(DEVICE_COOKIE, "")
        account.reset_password(identifier(body["identifier"]), body["code"], body["password"], cookie)
        return Response(status=204)


class Password(APIView):
    """`POST me/password`."""

    class PasswordBody(Body):
        old_password = TextField(max_length=1024, trim_whitespace=False)
        password = TextField(max_length=1024, trim_whitespace=False)

    @extend_schema(request=PasswordBody, responses={204: None}, operation_id="change_password")
    def post(self, request: Request) -> Response:
        """A new password, by the old one. Ends the other sessions at once; the verified channels are told."""
        body = self.PasswordBody.read(request)
        account.change_password(signed_in(request), body["old_password"], body["password"])
        return Response(status=204)


class NewContact(APIView):
    """What `me/phone` and `me/email` have in common: the step-up, and that a code was sent."""

    permission_classes = [IsAuthenticated, SteppedUp]

    def sent(self, expires_at: datetime) -> Response:
        """202."""
        return Response(CodeSentJSON({"expires_at": expires_at}).data, status=202)


class NewPhone(NewContact):
    """`POST me/phone`."""

    class NewPhoneBody(Body):
        phone = PhoneField()

    @extend_schema(request=NewPhoneBody, responses={202: CodeSentJSON}, operation_id="ask_for_phone")
    def post(self, request: Request) -> Response:
        """Sends a code to the new number, which `me/phone/confirm` takes, from the same session.

        Needs a step-up of the last five minutes (`POST auth/step-up`), else 403 `step_up_required`.
        """
        return self.sent(account.ask_for_phone(signed_in(request), self.NewPhoneBody.read(request)["phone"]))


class NewPhoneConfirmation(APIView):
    """`POST me/phone/confirm`."""

    @extend_schema(request=CodeBody, responses={204: None}, operation_id="confirm_phone")
    def post(self, request: Request) -> Response:
        """The number that the code went to is the account's now, and verified; payouts go there.

        Ends the other sessions and this one's step-up at once; the verified channels of before are told. Large payouts,
        and small ones that come to as much, wait as on a new device.
        """
        account.confirm_phone(signed_in(request), CodeBody.read(request)["code"])
        return Response(status=204)


class NewEmail(NewContact):
    """`POST me/email`."""

    class NewEmailBody(Body):
        email = EmailField()

    @extend_schema(request=NewEmailBody, responses={202: CodeSentJSON}, operation_id="ask_for_email")
    def post(self, request: Request) -> Response:
        """Sends a code to the new address, which `me/email/confirm` takes, from the same session.

        Needs a step-up of the last five minutes (`POST auth/step-up`), else 403 `step_up_required`.
        """
        return self.sent(account.ask_for_email(signed_in(request), self.NewEmailBody.read(request)["email"]))


class NewEmailConfirmation(APIView):
    """`POST me/email/confirm`."""

    @extend_schema(request=CodeBody, responses={204: None}, operation_id="confirm_email")
    def post(self, request: Request) -> Response:
        """The address that the code went to is the account's now, and verified.

        Ends the other sessions at once; the verified channels of before are told.
        """
        account.confirm_email(signed_in(request), CodeBody.read(request)["code"])
        return Response(status=204)


class Close(APIView):
    """`POST me/close`."""

    permission_classes = [IsAuthenticated, SteppedUp]

    @extend_schema(request=None, responses={204: None}, operation_id="close_account")
    def post(self, request: Request) -> Any:
        """Closes the account; 409 `account_in_use` while a payment is on its way or money is open.

        Needs a step-up of the last five minutes (`POST auth/step-up`), else 403 `step_up_required`.
        """
        account.close(signed_in(request).id)
        return without_tokens(Response(status=204))


class StepUp(APIView):
    """`POST auth/step-up`."""

    class StepUpBody(Body):
        code = TextField(validators=[SIX_DIGITS], required=False)

    @extend_schema(
        request=StepUpBody,
        responses={
            202: OpenApiResponse(CodeSentJSON, description="Without `code`: one was sent."),
            204: OpenApiResponse(description="With `code`: this session is stepped up for five minutes."),
        },
        operation_id="step_up",
    )
    def post(self, request: Request) -> Response:
        """Shows once more that it is the customer, before what a stolen session must not do.

        With an empty body a code is sent by SMS to the verified phone (without one, by e-mail to the verified address):
        202. With `code`, this session is stepped up for five minutes: 204. While an authenticator is in use, only its
        codes are taken, and none is sent: 409 `authenticator_in_use`.
        """
        code = self.StepUpBody.read(request).get("code")
        if code is None:
            return Response(CodeSentJSON({"expires_at": step_up.send_code(signed_in(request))}).data, status=202)
        step_up.confirm(signed_in(request), code)
        return Response(status=204)


class EnrolmentJSON(serializers.Serializer[Any]):
    """What an authenticator app is given; shown once."""

    secret = serializers.CharField()
    otpauth_uri = serializers.CharField()


class Totp(APIView):
    """`POST`, `DELETE me/totp`."""

    permission_classes = [IsAuthenticated, SteppedUp]
    problems = (404,)

    @extend_schema(request=None, responses={201: EnrolmentJSON}, operation_id="enrol_totp")
    def post(self, request: Request) -> Response:
        """A secret for an authenticator app (RFC 6238), shown this once; `me/totp/confirm` takes its first code.

        Needs a step-up of the last five minutes (`POST auth/step-up`), else 403 `step_up_required`.
        """
        enrolment = step_up.enrol_totp(signed_in(request).id)
        answer = EnrolmentJSON({"secret": enrolment.secret, "otpauth_uri": enrolment.uri}).data
        return Response(answer, status=201, headers={"Cache-Control": "no-store"})

    @extend_schema(responses={204: None}, operation_id="remove_totp")
    def delete(self, request: Request) -> Response:
        """Forgets the authenticator.

        Needs a step-up of the last five minutes (`POST auth/step-up`), else 403 `step_up_required`.
        """
        step_up.remove_totp(signed_in(request).id)
        return Response(status=204)


class TotpConfirmation(APIView):
    """`POST me/totp/confirm`."""

    permission_classes = [IsAuthenticated, SteppedUp]
    problems = (404,)

    @extend_schema(request=CodeBody, responses={204: None}, operation_id="confirm_totp")
    def post(self, request: Request) -> Response:
        """The authenticator's first code, within ten minutes: from now on its codes alone step up.

        Five wrong ones in a row lock it a while, and longer each time. Needs a step-up of the last five minutes (`POST
        auth/step-up`), else 403 `step_up_required`.
        """
        step_up.confirm_totp(signed_in(request).id, CodeBody.read(request)["code"])
        return Response(status=204)
