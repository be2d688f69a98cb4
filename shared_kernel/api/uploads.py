"""Forms with files: strict as JSON bodies are, bounded before anything is read, and never on a disk in clear."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, MemoryFileUploadHandler
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from drf_spectacular.utils import extend_schema_field
from rest_framework import exceptions, serializers
from rest_framework.parsers import BaseParser

from shared_kernel.api.bodies import MAX_BODY, BodyTooLarge

MAX_FILE = 6 * 1024 * 1024
MAX_FORM = 3 * MAX_FILE + MAX_BODY  # what `client_max_body_size` of a proxy must let through


class MalformedForm(exceptions.ParseError):
    """Not a form by RFC 7578."""

    default_detail = "The body is not valid multipart/form-data."
    default_code = "malformed_form"


class NoFiles(FileUploadHandler):
    """For `FILE_UPLOAD_HANDLERS`: no page takes files. Django takes them in whenever a form is read, from anybody."""

    def new_file(self, *_: Any, **__: Any) -> None:
        """Raises `RequestDataTooBig`, at the file's first byte."""
        raise RequestDataTooBig

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Never called."""

    def file_complete(self, file_size: int) -> None:
        """Never called."""


class _InMemory(MemoryFileUploadHandler):
    """Django's own would put files above 2.5 MB on the disk."""

    def handle_raw_input(self, *_: Any, **__: Any) -> None:
        self.activated = True


class FormParser(BaseParser):
    """`multipart/form-data` up to `MAX_FORM` bytes; each part once. Files by their content: names are never used."""

    media_type = "multipart/form-data"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Texts and `UploadedFile`s by name. Raises `MalformedForm`, `ValidationError` (400), `BodyTooLarge` (413)."""
        request = (parser_context or {})["request"]
        if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_FORM:
            raise BodyTooLarge(f"Send at most {MAX_FORM} bytes in all.")
        try:
            texts, files = MultiPartParser(request.META, stream, [_InMemory(request._request)], "utf-8").parse()
        except MultiPartParserError:
            raise MalformedForm from None
        except RequestDataTooBig:
            raise BodyTooLarge(f"Send at most {MAX_BODY} bytes of text.") from None
        parts = [*texts.lists(), *files.lists()]
        names = [name for name, values in parts for _ in values]
        if twice := sorted({name for name in names if names.count(name) > 1})[:20]:
            raise serializers.ValidationError(
                {name[:64]: [exceptions.ErrorDetail("Send this field once.", code="sent_twice")] for name in twice}
            )
        return {name: values[0] for name, values in parts}


@extend_schema_field({"type": "string", "format": "binary", "maxLength": MAX_FILE})
class FileField(serializers.Field[bytes, Any, bytes, Any]):
    """A file's content, of which nothing but the size has been looked at."""

    default_error_messages = {
        "not_a_file": "Send this as a file, with a file name.",
        "empty": "The file is empty.",
        "file_too_large": f"Send at most {MAX_FILE} bytes.",
    }

    def to_internal_value(self, data: Any) -> bytes:
        if not isinstance(data, UploadedFile):
            self.fail("not_a_file")
        if not data.size:
            self.fail("empty")
        if data.size > MAX_FILE:
            self.fail("file_too_large")
        content: bytes = data.read()
        return content

    def to_representation(self, value: bytes) -> bytes:
        return value
