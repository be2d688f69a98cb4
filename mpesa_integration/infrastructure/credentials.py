"""The initiator's SecurityCredential: its password, encrypted for M-Pesa alone.

base64 of RSA PKCS#1 v1.5 over the password's bytes with the key of M-Pesa's certificate; not OAEP, nothing appended.
The certificates in circulation expired years ago: the key counts, the dates don't, and which file it is is pinned by
the SHA-256 fingerprint of the certificate. Source: the contract's section 11.
"""

from base64 import b64encode
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

LEAST_BITS = 2048


class CertificateUnusable(Exception):
    """The certificate can't be read, or is not the one that was pinned; says which."""


def security_credential(password: str, file: str, fingerprint: str) -> str:
    """344 characters for a key of 2,048 bits, others each time. Raises `CertificateUnusable`."""
    return b64encode(public_key(file, fingerprint).encrypt(password.encode(), PKCS1v15())).decode()


@lru_cache(maxsize=16)
def public_key(file: str, fingerprint: str) -> RSAPublicKey:
    """The key of the certificate in `file` (PEM or DER). An empty `fingerprint` pins nothing.

    Raises `CertificateUnusable`.
    """
    try:
        raw = Path(file).read_bytes()
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in raw else x509.load_der_x509_certificate
        certificate = load(raw)
        key = certificate.public_key()
    except OSError as error:
        raise CertificateUnusable(f"MPESA_CERTIFICATE_FILE can't be read: {error.strerror}: {file!r}") from None
    except ValueError:
        raise CertificateUnusable(f"MPESA_CERTIFICATE_FILE is no X.509 certificate: {file!r}") from None
    pinned, found = fingerprint.replace(":", "").strip().lower(), certificate.fingerprint(SHA256()).hex()
    if pinned and pinned != found:
        raise CertificateUnusable(f"MPESA_CERTIFICATE_FILE has the SHA-256 fingerprint {found}, not {pinned}")
    if not isinstance(key, RSAPublicKey) or key.key_size < LEAST_BITS:
        raise CertificateUnusable(f"MPESA_CERTIFICATE_FILE holds no RSA key of {LEAST_BITS} bits or more: {file!r}")
    return key
