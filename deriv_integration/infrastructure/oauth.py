"""Signing in at Deriv's new platform: OAuth 2.0 Authorization Code with PKCE (S256), and refresh tokens.

Every address is a setting of ours; what a customer sends is only ever a value in a form. Codes, verifiers and tokens
stand in no message, log or exception. Source: Deriv contract, section 1.1; RFC 6749, 5.1 and 5.2; RFC 7636.
"""

import hashlib
import logging
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import httpx

from deriv_integration.domain.transfer import (
    DerivGrant,
    DerivGrantRefused,
    DerivPlatformUnsupported,
    DerivScopesMissing,
    DerivUnavailable,
    InsideTransaction,
)
from deriv_integration.infrastructure.rest_v1.client import read_object
from shared_kernel.infrastructure import http
from shared_kernel.infrastructure.persistence import in_transaction

log = logging.getLogger(__name__)

SCOPES = ("payment", "account_manage")  # payments and codes; the nickname, by which we know whose account it is
TIMEOUT: Mapping[str, float | None] = httpx.Timeout(15.0, connect=http.CONNECT_S).as_dict()
MOST_CHARACTERS = 64 * 1024  # of an answer: tokens have at most 4,096
LONGEST_S = 366 * 24 * 3600
TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
OUR_FAULT = {"invalid_client", "unauthorized_client", "invalid_request", "unsupported_grant_type", "invalid_scope"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class OAuth:
    """Our OAuth client at Deriv. It has no secret: PKCE shows that who exchanges a code is who had it made."""

    def __init__(
        self,
        client_id: str,
        auth_url: str,
        token_url: str,
        redirect_uri: str,
        *,
        outside: Callable[[], bool] = lambda: not in_transaction(),
    ) -> None:
        self._client_id = client_id
        self._auth_url, self._token_url, self._redirect_uri = auth_url, token_url, redirect_uri
        self._outside = outside

    def url(self, state: str, verifier: str) -> str:
        """Where the customer signs in at Deriv. Raises `DerivPlatformUnsupported` where no client is set up."""
        if not self._client_id:
            raise DerivPlatformUnsupported(
                "signing in at Deriv is not set up here: make a token at Deriv, and post it to me/deriv-login"
            )
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(SCOPES),
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._auth_url}?{urlencode(asked)}"

    def exchange(self, code: str, verifier: str) -> DerivGrant:
        """A code for tokens, once: whatever comes of it, the code is used up.

        Raises `DerivGrantRefused`, `DerivScopesMissing`, `DerivUnavailable`.
        """
        asked = {"code": code, "redirect_uri": self._redirect_uri, "code_verifier": verifier}
        return self._granted("authorization_code", asked)

    def refresh(self, refresh_token: str) -> DerivGrant:
        """A new token; the refresh token that may come with it takes the place of this one.

        Raises `DerivGrantRefused` and `DerivScopesMissing`, which are final, and `DerivUnavailable`, which says nothing
        about whether Deriv has turned the refresh token over.
        """
        return self._granted("refresh_token", {"refresh_token": refresh_token})

    def _granted(self, grant_type: str, asked: Mapping[str, str]) -> DerivGrant:
        if not self._outside():
            raise InsideTransaction("Deriv is not called while a database transaction is open")
        form = urlencode({"grant_type": grant_type, "client_id": self._client_id, **asked}).encode()
        try:
            reply = http.exchange("POST", self._token_url, "", FORM, form, timeout=TIMEOUT)
        except http.NotConnected:
            raise DerivUnavailable("Deriv can't be reached: try again later") from None
        except http.NoAnswer:
            raise DerivUnavailable("Deriv did not answer, so nothing is known of its sign-in: try again") from None
        body = read_object(reply.text) if len(reply.text) <= MOST_CHARACTERS else {}
        if reply.status == 200:
            return _grant_of(body)
        self._refuse(grant_type, reply.status, body.get("error"))
        raise DerivUnavailable("Deriv can't sign you in at the moment: try again later")

    def _refuse(self, grant_type: str, status: int, error: Any) -> None:
        """Raises `DerivGrantRefused` where Deriv itself says so, and nothing for what says nothing."""
        if 400 <= status < 500 and error == "invalid_grant":
            raise DerivGrantRefused("Deriv does not accept this sign-in any more: begin anew, or bind with a token")
        known = error if isinstance(error, str) and error in OUR_FAULT else ""
        log.error("Deriv's token endpoint refused a %s: %s %s", grant_type, status, known)


def _grant_of(body: Mapping[str, Any]) -> DerivGrant:
    """Raises `DerivUnavailable` for what can't be used, `DerivScopesMissing`."""
    token, kind, lasts = body.get("access_token"), body.get("token_type"), body.get("expires_in")
    refresh, scope = body.get("refresh_token", ""), body.get("scope", " ".join(SCOPES))  # left out: as it was asked for
    good = isinstance(token, str) and TOKEN.fullmatch(token) and isinstance(kind, str) and kind.lower() == "bearer"
    good = good and type(lasts) is int and 0 < lasts <= LONGEST_S
    good = good and isinstance(refresh, str) and (refresh == "" or TOKEN.fullmatch(refresh)) and isinstance(scope, str)
    if not good:
        log.error("an answer of Deriv's token endpoint can't be used")
        raise DerivUnavailable("Deriv's answer can't be used: begin anew later")
    if missing := sorted(set(SCOPES) - set(str(scope).split())):
        raise DerivScopesMissing(f"allow PenPay at Deriv what it needs: {', '.join(missing)} is missing; begin anew")
    return DerivGrant(str(token), str(refresh), int(str(lasts)))
