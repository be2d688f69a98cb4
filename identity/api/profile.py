"""The REST edge of the customer's own page: `me`."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from identity.api.bodies import signed_in
from identity.api.views import UserJSON
from identity.domain.contact import Address
from identity.domain.user import UserNotFound
from identity.facade import ChangeProfile, profiles, queries
from shared_kernel.api.bodies import Body, TextField


class AddressBody(Body):
    """A new address, whole: what is left out is empty, the country Kenya."""

    line = TextField(max_length=200)
    town = TextField(max_length=80, required=False, allow_blank=True)
    county = TextField(max_length=80, required=False, allow_blank=True)
    postal_code = TextField(max_length=16, required=False, allow_blank=True)
    country = TextField(max_length=2, required=False)


class Me(APIView):
    """`GET`, `PATCH me`."""

    class ProfileBody(Body):
        full_name = TextField(max_length=120, required=False)
        address = AddressBody(required=False)

    @extend_schema(responses=UserJSON, operation_id="read_me")
    def get(self, request: Request) -> Response:
        """The customer's own account."""
        return self._answer(request)

    @extend_schema(request=ProfileBody, responses=UserJSON, operation_id="change_me")
    def patch(self, request: Request) -> Response:
        """Changes what is sent. The name until documents are submitted; a new address is added to the former ones."""
        body, me = self.ProfileBody.read(request), signed_in(request).id
        address = Address(**body["address"]) if "address" in body else None
        profiles.change(ChangeProfile(user_id=me, full_name=body.get("full_name"), address=address))
        return self._answer(request)

    def _answer(self, request: Request) -> Response:
        account = queries.me(signed_in(request).id)
        if account is None:
            raise UserNotFound("no such customer")
        return Response(UserJSON(account).data)
