"""What identity's views share: fields, small bodies, who is asking, and whether they stepped up."""

from typing import Any

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from identity.domain.contact import Email, InvalidEmail
from identity.domain.ports import SignedIn
from identity.domain.session import must_be_stepped_up
from shared_kernel.api.bodies import Body, TextField
from shared_kernel.domain.identifiers import InvalidPhone, Phone
from shared_kernel.facade import now

SIX_DIGITS = RegexValidator(r"^[0-9]{6}\Z", "Six digits.")


@extend_schema_field({"type": "string", "format": "email", "maxLength": 254})
class EmailField(serializers.Field[Email, Any, str, Any]):
    """Text to `Email`."""

    def to_internal_value(self, data: Any) -> Email:
        try:
            return Email.parse(data if isinstance(data, str) else "")
        except InvalidEmail as bad:
            raise serializers.ValidationError(bad.detail, code=bad.code) from None

    def to_representation(self, value: Email) -> str:
        return str(value)


class CodeBody(Body):
    """A one-time code."""

    code = TextField(validators=[SIX_DIGITS])


class CodeSentJSON(serializers.Serializer[Any]):
    """Until when the code is good."""

    expires_at = serializers.DateTimeField()


class SteppedUp(BasePermission):
    """Unsafe methods need a session that was stepped up in the last five minutes; comes after `IsAuthenticated`."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raises `StepUpRequired`."""
        if request.method not in SAFE_METHODS:
            must_be_stepped_up(signed_in(request).stepped_up_at, at=now())
        return True


def signed_in(request: Request) -> SignedIn:
    """Who is asking; the view's permissions have let nobody else in."""
    user: Any = request.user
    assert isinstance(user, SignedIn)
    return user


def identifier(text: str) -> Phone | Email | None:
    """A phone number or an e-mail address; None for what is neither, which then is as unknown as any other."""
    try:
        return Email.parse(text) if "@" in text else Phone.parse(text)
    except (InvalidEmail, InvalidPhone):
        return None
