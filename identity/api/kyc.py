"""The REST edge of the identity check: `me/kyc`."""

import re
from datetime import date
from typing import Any

from drf_spectacular.utils import OpenApiRequest, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from identity.api.bodies import signed_in
from identity.api.views import KycJSON
from identity.domain.countries import COUNTRIES
from identity.domain.kyc_snapshot import Gender, IdType, KycFacts, Side
from identity.domain.user import UserNotFound
from identity.facade import SubmitKyc, kyc_submissions, queries
from shared_kernel.api.bodies import Body, TextField
from shared_kernel.api.uploads import FileField, FormParser

WORDS = {"FEMALE": "F", "MALE": "M", "OTHER": "X"}
KINDS = {"contentType": "image/jpeg, image/png"}


@extend_schema_field({"type": "string", "format": "date"})
class DayField(serializers.Field[date, Any, str, Any]):
    """`YYYY-MM-DD` and nothing else to a date."""

    default_error_messages = {"invalid": "Give a day as YYYY-MM-DD."}

    def to_internal_value(self, data: Any) -> date:
        if not isinstance(data, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", data):
            self.fail("invalid")
        try:
            return date.fromisoformat(data)
        except ValueError:
            self.fail("invalid")

    def to_representation(self, value: date) -> str:
        return value.isoformat()


class CodeField(serializers.ChoiceField):
    """One code of a closed list, in whatever case; `also` are other words for some."""

    def __init__(self, choices: Any, *, also: dict[str, str] | None = None, **kwargs: Any) -> None:
        self.also = also or {}
        super().__init__(choices, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input="")
        code = data.upper() if data.isascii() else data
        return super().to_internal_value(self.also.get(code, code))


@extend_schema_field({"type": "string", "pattern": "^[A-Z]{2}$", "description": "ISO 3166-1 alpha-2.", "example": "KE"})
class CountryField(CodeField):
    """One of the countries that there are."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(sorted(COUNTRIES), **kwargs)


class Kyc(APIView):
    """`GET`, `POST me/kyc`."""

    parser_classes = [FormParser]

    class KycBody(Body):
        id_type = serializers.ChoiceField(choices=[str(kind) for kind in IdType])
        id_number = TextField(max_length=32)
        id_issued_on = DayField()
        id_expires_on = DayField()
        date_of_birth = DayField()
        gender = CodeField(choices=[str(gender) for gender in Gender], also=WORDS)
        nationality = CountryField()
        residence = CountryField()
        kra_pin = TextField(max_length=16, required=False, allow_blank=True)
        front = FileField()
        back = FileField(required=False)
        selfie = FileField()

    @extend_schema(responses=KycJSON, operation_id="read_kyc")
    def get(self, request: Request) -> Response:
        """Where the identity check stands."""
        found = queries.kyc(signed_in(request).id)
        if found is None:
            raise UserNotFound("no such customer")
        return Response(KycJSON(found).data)

    @extend_schema(
        request={"multipart/form-data": OpenApiRequest(KycBody, encoding={str(side): KINDS for side in Side})},
        responses={202: KycJSON},
        operation_id="submit_kyc",
    )
    def post(self, request: Request) -> Response:
        """Submits facts, document and images for review: JPEG or PNG, at least 200 pixels each way and at most 25
        million, 6 MiB a file. A submission is kept as it is; a new one can follow once this one is decided.
        """
        body = self.KycBody.read(request)
        images = {side: body.pop(side) for side in Side if side in body}
        body["id_type"], body["gender"] = IdType(body["id_type"]), Gender(body["gender"])
        standing = kyc_submissions.submit(
            SubmitKyc(user_id=signed_in(request).id, facts=KycFacts(**body), images=images)
        )
        return Response(KycJSON({"status": standing.status, "tier": standing.tier}).data, status=202)
