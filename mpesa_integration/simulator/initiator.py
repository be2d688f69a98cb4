"""The initiator: opens SecurityCredentials with M-Pesa's own key, counts wrong ones, locks.

The certificate beside this file and its key are test material. It has expired, as those in circulation have: its key
counts, not its dates.
"""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

CERTIFICATE = Path(__file__).parent / "test_material" / "certificate.pem"
PRIVATE_KEY = Path(__file__).parent / "test_material" / "private_key.pem"
TRIES = 3  # an assumption: the contract says "repeated"

INVALID = (2001, "The initiator information is invalid.")
LOCKED = (8006, "The security credential is locked")
NOT_ALLOWED = (21, "The initiator is not allowed to initiate this request")


def _key() -> RSAPrivateKey:
    key = load_pem_private_key(PRIVATE_KEY.read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


@dataclass
class Initiator:
    """One operator of our organisation. Three wrong credentials in a row lock it until a person unlocks it."""

    key: RSAPrivateKey
    wrong: int = 0
    locked: bool = False
    last: tuple[str, str | None] = ("", None)  # a credential may be reused, and opening one takes a millisecond

    @classmethod
    def with_test_key(cls) -> "Initiator":
        """With the key beside this file."""
        return cls(_key())

    def unlock(self) -> None:
        """As the business administrator does it."""
        self.wrong, self.locked = 0, False

    def refusal(self, name: Any, credential: str, right: Mapping[str, str], *, allowed: bool) -> tuple[int, str] | None:
        """Why this call may not be made, or None. `right` holds the password by the initiator's name."""
        if self.locked:
            return LOCKED
        if name not in right or self._opened(credential) != right[name]:
            self.wrong += 1
            self.locked = self.wrong >= TRIES
            return INVALID
        self.wrong = 0
        return None if allowed else NOT_ALLOWED

    def _opened(self, credential: str) -> str | None:
        if credential != self.last[0]:
            self.last = (credential, self._decrypted(credential))
        return self.last[1]

    def _decrypted(self, credential: str) -> str | None:
        try:
            return self.key.decrypt(b64decode(credential), PKCS1v15()).decode()
        except ValueError:  # encrypted for another key, or by another padding
            return None
