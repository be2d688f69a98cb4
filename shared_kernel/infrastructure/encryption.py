"""Personal data and secrets at rest: AES-256-GCM with key ids, tied to row and column, and a blind index for look-ups.

Stored form: `v1.<key id>.<base64url(nonce 12 || ciphertext || tag)>`; the additional data is
`<key id>|<table>.<column>|<row uuid>`, so that a value moved to another row or column does not decrypt. Keys come from
`PII_KEYS` (`id:64 hex digits`, newest first).
"""

import hashlib
import hmac
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cache
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import models

from shared_kernel.domain.errors import ILLEGIBLE


class DecryptionFailed(Exception):
    """The key is missing, or the value does not belong to this row and column. Never carries the value."""


class Ciphertext(str):
    """A value as it is stored; only the field of its own row decrypts it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Ciphertext(...)"


@cache
def _keys(setting: str) -> dict[str, AESGCM]:
    pairs = (part.strip().partition(":") for part in setting.split(",") if part.strip())
    return {key_id: AESGCM(bytes.fromhex(key)) for key_id, _, key in pairs}


def key_ids() -> list[str]:
    """The ids of the keys that we have, the newest, which encrypts, first."""
    return list(_keys(settings.PII_KEYS))  # in the order of the setting


def encrypt(plain: str, place: str) -> Ciphertext:
    """`plain` under the newest key, bound to `place` (`table.column|row uuid`)."""
    keys = _keys(settings.PII_KEYS)
    key_id = next(iter(keys))
    nonce = os.urandom(12)
    sealed = keys[key_id].encrypt(nonce, plain.encode(), f"{key_id}|{place}".encode())
    return Ciphertext(f"v1.{key_id}.{urlsafe_b64encode(nonce + sealed).decode()}")


def decrypt(stored: str, place: str) -> str:
    """The plain text of `encrypt`. Raises `DecryptionFailed` for a missing key, another place or a damaged value."""
    version, _, rest = stored.partition(".")
    key_id, _, body = rest.partition(".")
    key = _keys(settings.PII_KEYS).get(key_id)
    if version != "v1" or key is None:
        raise DecryptionFailed(f"no key for a value in {place}: is its key id in PII_KEYS?")
    try:
        sealed = urlsafe_b64decode(body)
        return key.decrypt(sealed[:12], sealed[12:], f"{key_id}|{place}".encode()).decode()
    except (InvalidTag, ValueError):  # what is no base64, or too short, was altered as well
        raise DecryptionFailed(f"a value does not belong to {place}, or was altered") from None


def legible(row: models.Model, name: str) -> str:
    """The text of an encrypted column; `ILLEGIBLE` where its key is missing or it was altered: told, not raised."""
    try:
        return getattr(row, name) or ""
    except (DecryptionFailed, ValueError):
        return ILLEGIBLE


def blind_index(label: str, value: str) -> str:
    """HMAC-SHA256 in hex of a normalised value, for equality look-ups; `label` (`users.phone`) separates uses."""
    return hmac.new(bytes.fromhex(settings.PII_INDEX_KEY), f"{label}|{value}".encode(), hashlib.sha256).hexdigest()


class BlindIndexField(models.CharField):  # type: ignore[type-arg]
    """Holds a `blind_index` (64 hex digits)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 64)
        super().__init__(*args, **kwargs)


class _Decrypting:
    """Decrypts on first use; writing puts plain text, which the field encrypts when it saves."""

    def __init__(self, field: "EncryptedField") -> None:
        self.field = field

    def __get__(self, row: models.Model | None, owner: type[models.Model]) -> Any:
        if row is None:
            return self
        if self.field.attname not in row.__dict__:
            row.refresh_from_db(fields=[self.field.attname])
        value = row.__dict__[self.field.attname]
        if isinstance(value, Ciphertext):
            value = row.__dict__[self.field.attname] = decrypt(value, self.field.place(row)) if value else ""
        return value

    def __set__(self, row: models.Model, value: Any) -> None:
        row.__dict__[self.field.attname] = value


class EncryptedField(models.TextField):  # type: ignore[type-arg]
    """Text that is encrypted at rest. The row's primary key must be a UUID known before the row is saved.

    Empty stays empty. It cannot be filtered on (keep a `BlindIndexField` beside it) nor set by `QuerySet.update`.
    """

    def place(self, row: models.Model) -> str:
        """Where a value belongs: `table.column|row uuid`."""
        if not isinstance(row.pk, UUID):
            raise TypeError(f"{row._meta.label} needs a UUID primary key before an encrypted value is saved")
        return f"{self.model._meta.db_table}.{self.column}|{row.pk}"

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        super().contribute_to_class(cls, name, private_only)
        setattr(cls, self.attname, _Decrypting(self))

    def from_db_value(self, value: str | None, *_: Any) -> Ciphertext | None:
        return None if value is None else Ciphertext(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = model_instance.__dict__.get(self.attname)
        if value is None or value == "":
            return value
        if isinstance(value, Ciphertext):
            return self._under_newest(value, model_instance)
        return encrypt(str(value), self.place(model_instance))

    def _under_newest(self, stored: Ciphertext, row: models.Model) -> Ciphertext:
        """A row that was read before its key was left behind must not bring it back. What can't be read stays."""
        if stored.startswith(f"v1.{key_ids()[0]}."):
            return stored
        try:
            return encrypt(decrypt(stored, self.place(row)), self.place(row))
        except DecryptionFailed:
            return stored

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if value and not isinstance(value, Ciphertext):
            raise TypeError(f"{self.name} is encrypted: save the row instead of updating the column")
        return super().get_db_prep_save(value, connection)


def content_place(row: models.Model) -> str:
    """Where the content of a row belongs, as `EncryptedField.place` has it for a text."""
    return f"{row._meta.db_table}.content|{row.pk}"


def seal_content(content: bytes, place: str) -> tuple[str, bytes]:
    """Large `content` under a key of its own, bound to `place`: that key in hex, and `nonce 12 || ciphertext || tag`.

    The key goes into an `EncryptedField` of the same row, so that a rotation of `PII_KEYS` leaves the content alone.
    """
    key, nonce = AESGCM.generate_key(256), os.urandom(12)
    return key.hex(), nonce + AESGCM(key).encrypt(nonce, content, place.encode())


def open_content(key: str, sealed: bytes, place: str) -> bytes:
    """What `seal_content` was given. Raises `DecryptionFailed` for another key or place, or a damaged content."""
    try:
        return AESGCM(bytes.fromhex(key)).decrypt(sealed[:12], sealed[12:], place.encode())
    except (InvalidTag, ValueError):
        raise DecryptionFailed(f"a content does not belong to {place}, or was altered") from None
