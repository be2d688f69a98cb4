"""The REST edge of a customer's Deriv login: binding it by a token or by signing in at Deriv, and letting it go."""

from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from identity.api.bodies import SteppedUp, signed_in
from identity.domain.session import must_be_stepped_up
from identity.domain.user import DerivLoginNotFound
from identity.facade import BindDerivLogin, deriv_authorizations, deriv_logins, door, queries
from shared_kernel.api.bodies import Body, TextField
from shared_kernel.domain.errors import Forbidden
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.facade import now

VISIBLE = RegexValidator(r"^[!-~]{1,512}\Z", "1 to 512 visible ASCII characters.")
A_CODE = RegexValidator(r"^[!-~]{1,2048}\Z", "1 to 2048 visible ASCII characters.")
OURS = {"", "same-origin", "none"}  # of Sec-Fetch-Site: not sent by clients that are no browsers


class DerivAccountJSON(serializers.Serializer[Any]):
    """The Deriv account that deposits go to."""

    platform = serializers.CharField()
    account = serializers.CharField()
    currency = serializers.CharField()
    name = serializers.CharField()


class DerivLoginJSON(DerivAccountJSON):
    """The same, and how it stands. `state`: `active`, `expired` or `lost`; the latter two have to be bound anew.

    `expires_at` is when the present token runs out; null where Deriv sets no time.
    """

    state = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)


class DerivAuthorizationJSON(serializers.Serializer[Any]):
    """Where the customer signs in at Deriv, and until when."""

    url = serializers.CharField()
    expires_at = serializers.DateTimeField()


class DerivLoginBody(Body):
    """`token`, or the `code` that is shown after signing in at Deriv: one of them."""

    platform = serializers.ChoiceField(choices=[str(platform) for platform in DerivPlatform])
    token = TextField(required=False, validators=[VISIBLE])
    code = TextField(required=False, validators=[A_CODE])

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("token" in attrs) is ("code" in attrs):
            raise serializers.ValidationError({"token": "Give either token or code."}, code="token_or_code")
        return attrs


class CrossSiteRequest(Forbidden):
    """A browser says that another site sends this request."""


class BegunHere(BasePermission):
    """What `GET me/deriv-login/authorize` asks although it is a GET: a step-up, and no other site behind it."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raises `CrossSiteRequest`, `StepUpRequired`."""
        if request.method == "OPTIONS":
            return True
        if request.headers.get("Sec-Fetch-Site", "") not in OURS:
            raise CrossSiteRequest("begin signing in at Deriv from PenPay itself")
        must_be_stepped_up(signed_in(request).stepped_up_at, at=now())
        return True


class DerivAuthorize(APIView):
    """`GET me/deriv-login/authorize`."""

    permission_classes = [IsAuthenticated, BegunHere]
    http_method_names = ["get", "options"]
    problems = (403, 404, 409, 422)

    @extend_schema(responses=DerivAuthorizationJSON, operation_id="authorize_deriv_login")
    def get(self, request: Request) -> Response:
        """Begins signing in at Deriv (`rest` alone); ends what was begun before. Open the answer's `url` in a browser.

        After it a code is shown: post it from this session, with the platform, to me/deriv-login. Needs a step-up of
        the last five minutes (`POST auth/step-up`), else 403 `step_up_required`.
        """
        door.may_change_deriv_login(signed_in(request).id)
        begun = deriv_authorizations.begin(signed_in(request))
        response = Response(DerivAuthorizationJSON({"url": begun.url, "expires_at": begun.expires_at}).data)
        response["Cache-Control"] = "no-store"
        return response


class DerivLogin(APIView):
    """`GET`, `POST`, `DELETE me/deriv-login`."""

    permission_classes = [IsAuthenticated, SteppedUp]
    problems = (404,)

    @extend_schema(responses=DerivLoginJSON, operation_id="read_deriv_login")
    def get(self, request: Request) -> Response:
        """The bound login, without its token."""
        bound = queries.deriv_login_of(signed_in(request).id)
        if bound is None:
            raise DerivLoginNotFound("no Deriv login is bound: post one to me/deriv-login")
        return Response(DerivLoginJSON(bound).data)

    @extend_schema(request=DerivLoginBody, responses={201: DerivAccountJSON}, operation_id="bind_deriv_login")
    def post(self, request: Request) -> Response:
        """Binds the account that the token belongs to, by Deriv's word; it takes the place of the one before.

        By `code`: the one that was shown after signing in at Deriv, from the session that began it. It is good once.
        From a device that is new, or just after a change of the phone, another account than before is refused: 403
        `device_too_new`, with `may_at`.
        """
        body, who = DerivLoginBody.read(request), signed_in(request)
        platform = DerivPlatform(body["platform"])
        door.may_change_deriv_login(who.id)
        if "code" in body:
            bound = deriv_authorizations.complete(who, platform, body["code"])
        else:
            bound = deriv_logins.bind(
                BindDerivLogin(user_id=who.id, session_id=who.session_id, platform=platform, token=body["token"])
            )
        answer = {
            "platform": str(bound.platform),
            "account": bound.account,
            "currency": bound.currency,
            "name": bound.full_name,
        }
        return Response(answer, status=201)

    @extend_schema(responses={204: None}, operation_id="unbind_deriv_login")
    def delete(self, request: Request) -> Response:
        """Forgets the tokens; deposits need a new login first."""
        deriv_logins.unbind(signed_in(request).id)
        return Response(status=204)
