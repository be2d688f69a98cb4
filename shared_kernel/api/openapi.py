"""What the OpenAPI document says of every operation: its problems, its CSRF header, its closed bodies."""

from http import HTTPStatus
from typing import Any, ClassVar

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from shared_kernel.api.bodies import Body


class FieldProblem(serializers.Serializer[Any]):
    """One field's error."""

    field = serializers.CharField(help_text="A dotted path; empty for the body as a whole.", allow_blank=True)
    code = serializers.CharField()
    detail = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """RFC 9457. `code` is stable; `detail` says what to do."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    request_id = serializers.CharField(allow_blank=True)
    errors = FieldProblem(many=True, required=False)  # type: ignore[assignment]


RETRY_AFTER = {
    "description": "Whole seconds to wait before the request is repeated, where they are known.",
    "schema": {"type": "integer", "minimum": 1},
}


class ProblemSchema(AutoSchema):
    """Adds to each operation the problems that it can answer; a view names further statuses in `problems`."""

    later: ClassVar[set[int]] = {429, 503}
    unsafe: ClassVar[set[str]] = {"POST", "PUT", "PATCH", "DELETE"}

    def get_operation(self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any) -> Any:
        operation = super().get_operation(path, path_regex, path_prefix, method, registry)
        if operation is None:
            return None
        problems = {400, 429, 503} | set(getattr(self.view, "problems", ()))
        if self.view.permission_classes:
            problems |= {401, 403}
        if "{" in path:
            problems |= {404}
        if method in self.unsafe:
            problems |= {403, 409, 422}
        if "requestBody" in operation:
            problems |= {413, 415}
        content = {"application/problem+json": {"schema": self.resolve_serializer(Problem, "response").ref}}
        for number in sorted(problems):
            described: dict[str, Any] = {"description": HTTPStatus(number).phrase, "content": content}
            if number in self.later:
                described["headers"] = {"Retry-After": RETRY_AFTER}
            operation["responses"].setdefault(str(number), described)
        return operation

    def get_auth(self) -> list[dict[str, list[str]]]:
        """What an unsafe method needs beside a sign-in, it needs without one as well: nothing is "optional" there."""
        return [scheme for scheme in super().get_auth() if scheme or self.method not in self.unsafe]

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, Body):
            schema["additionalProperties"] = False
        return schema
