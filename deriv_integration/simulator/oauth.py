"""The simulated Deriv's OAuth 2.0 server: the page where customers sign in, and the token endpoint.

As strict as the contract: known clients, exact redirect URIs, PKCE with S256, codes that are used once and soon run
out, short-lived tokens of the REST face, refresh tokens that are turned over. A code or refresh token that comes twice
ends what came of it. Source: Deriv contract, section 1.1; RFC 6749, RFC 7636, RFC 9700.
"""

import asyncio
import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode

from deriv_integration.simulator.books import REST, Account
from deriv_integration.simulator.faults import Struck, seconds
from deriv_integration.simulator.world import World
from shared_kernel.simulator import Answer, Request

AUTH, TOKEN = "/oauth2/auth", "/oauth2/token"
KNOWN_SCOPES = {"payment", "account_manage", "trade", "application_read"}
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
CODE_TTL = timedelta(minutes=10)
OVERSIZED = 8 * 1024 * 1024


class Refused(Exception):
    """By RFC 6749's words: `error`."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.status = error, status


@dataclass(eq=False)
class Family:
    """What one consent came to: its tokens end together."""

    client: str
    account: Account
    scopes: frozenset[str]
    access: str = ""
    refresh: str = ""
    spent: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Code:
    """An authorization code, and what it was made for."""

    client: str
    redirect_uri: str
    challenge: str
    account: Account
    scopes: frozenset[str]
    expires_at: datetime
    family: Family | None = None  # once it was exchanged


@dataclass
class OAuthServer:
    """`answer` takes one request below `/oauth2/`."""

    world: World
    codes: dict[str, Code] = field(default_factory=dict)
    families: list[Family] = field(default_factory=list)

    def forget(self) -> None:
        """Every code and consent."""
        self.codes.clear()
        self.families.clear()

    async def answer(self, request: Request) -> Answer | None:
        """None where the connection is reset."""
        if (request.method, request.path) == ("GET", AUTH):
            return self._consent(request)
        if (request.method, request.path) == ("POST", TOKEN):
            return await self._token(request)
        return Answer.json({"error": "not_found"}, 404)

    # --- the page -----------------------------------------------------------------------------------------------------

    def _consent(self, request: Request) -> Answer:
        """The page; with `customer` (nickname or login id) that customer agrees at once, with `deny` nobody does."""
        pairs = parse_qsl(request.query, keep_blank_values=True)
        asked = dict(pairs)
        client, target = asked.get("client_id", ""), asked.get("redirect_uri", "")
        if len(asked) != len(pairs) or target not in self.world.oauth_clients.get(client, ()):
            return page("unknown client or redirect_uri", 400)  # never redirected: RFC 6749, 4.1.2.1
        scopes = frozenset(asked.get("scope", "").split())
        if error := _wrong(asked, scopes) or ("access_denied" if "deny" in asked else ""):
            return redirect(target, {"error": error, "state": asked.get("state", "")})
        if "customer" not in asked:
            kept = "".join(f'<input type=hidden name="{escape(k)}" value="{escape(v)}">' for k, v in asked.items())
            return page(f"<form>{kept}Nickname: <input name=customer> <button>Allow PenPay</button></form>")
        account = self._customer(asked["customer"])
        if account is None:
            return page("no such customer", 404)
        code = f"code-{self.world.random.randbytes(24).hex()}"
        self.codes[code] = Code(
            client, target, asked["code_challenge"], account, scopes, self.world.clock() + CODE_TTL
        )  # fmt: skip
        return redirect(target, {"code": code, "scope": " ".join(sorted(scopes)), "state": asked["state"]})

    def _customer(self, name: str) -> Account | None:
        found = self.world.bank.nicknames.get(name) or self.world.bank.accounts.get(name)
        return found if found is not None and found.nickname else None

    # --- the token endpoint -------------------------------------------------------------------------------------------

    async def _token(self, request: Request) -> Answer | None:
        form = dict(parse_qsl(request.body.decode("latin-1"), keep_blank_values=True))
        grant = form.get("grant_type", "")
        seen = f"oauth {grant}"
        self.world.calls_seen[seen] = self.world.calls_seen.get(seen, 0) + 1
        await self.world.delay()
        struck = self.world.strike("token", REST, {"grant": grant})
        if "slow" in struck:
            await asyncio.sleep(seconds(struck, "slow", 1))
        self.world.agenda.catch_up()
        if broken := _broken(struck, "before"):
            return broken[0]
        try:
            told = self._granted(request, form, struck)
        except Refused as refused:
            return Answer.json({"error": refused.error, "error_description": "no"}, refused.status)
        if broken := _broken(struck, "after"):
            return broken[0]
        return Answer(
            Answer.json({**told, **struck.get("odd_answer", {})}).body, headers=((b"cache-control", b"no-store"),)
        )

    def _granted(self, request: Request, form: Mapping[str, str], struck: Struck) -> dict[str, Any]:
        kind = request.headers.get(b"content-type", b"").split(b";")[0].strip()
        if kind != b"application/x-www-form-urlencoded":
            raise Refused("invalid_request")
        if form.get("client_id") not in self.world.oauth_clients:
            raise Refused("invalid_client", 401)
        if "error" in struck:
            raise Refused(str(struck["error"].get("code", "invalid_grant")), int(struck["error"].get("status", 400)))
        match form.get("grant_type"):
            case "authorization_code":
                return self._issue(self._spend_code(form))
            case "refresh_token":
                return self._issue(self._spend_refresh(form))
        raise Refused("unsupported_grant_type")

    def _spend_code(self, form: Mapping[str, str]) -> Family:
        code = self.codes.get(form.get("code", ""))
        if code is None:
            raise Refused("invalid_grant")
        if code.family is not None:  # it comes twice: whoever has what came of it may have stolen it
            self._end(code.family)
            raise Refused("invalid_grant")
        code.family = Family(code.client, code.account, code.scopes)  # used up, whatever follows
        verifier = form.get("code_verifier", "")
        right = code.expires_at > self.world.clock() and code.client == form.get("client_id")
        right = right and code.redirect_uri == form.get("redirect_uri") and VERIFIER.fullmatch(verifier) is not None
        if not right or challenge_of(verifier) != code.challenge:
            raise Refused("invalid_grant")
        self.families.append(code.family)
        return code.family

    def _spend_refresh(self, form: Mapping[str, str]) -> Family:
        given = form.get("refresh_token", "")
        for family in self.families:
            if given and given in family.spent:
                self._end(family)
            elif given and given == family.refresh and family.client == form.get("client_id"):
                family.spent.add(given)
                return family
        raise Refused("invalid_grant")

    def _issue(self, family: Family) -> dict[str, Any]:
        self._revoke(family.access)
        family.access = f"ory_at_{self.world.random.randbytes(24).hex()}"
        family.account.rest_tokens[family.access] = family.scopes
        self.world.bank.by_rest_token[family.access] = family.account
        lasts, token = int(self.world.token_ttl_s), family.access
        self.world.agenda.after(lasts, lambda: self._revoke(token))
        told: dict[str, Any] = {
            "access_token": family.access, "expires_in": lasts, "token_type": "bearer",
            "scope": " ".join(sorted(family.scopes)),
        }  # fmt: skip
        if self.world.gives_refresh_tokens:
            family.refresh = told["refresh_token"] = f"ory_rt_{self.world.random.randbytes(24).hex()}"
        return told

    def revoke_all(self, account: Account) -> None:
        """The customer takes PenPay's access away."""
        for family in [family for family in self.families if family.account is account]:
            self._end(family)

    def _end(self, family: Family) -> None:
        self._revoke(family.access)
        family.refresh = ""

    def _revoke(self, token: str) -> None:
        account = self.world.bank.by_rest_token.pop(token, None)
        if account is not None:
            account.rest_tokens.pop(token, None)


def _wrong(asked: Mapping[str, str], scopes: frozenset[str]) -> str:
    """What is wrong with a request whose redirect URI is right; empty for nothing."""
    if asked.get("response_type") != "code":
        return "unsupported_response_type"
    if not scopes or not scopes <= KNOWN_SCOPES:
        return "invalid_scope"
    pkce = asked.get("code_challenge_method") == "S256" and CHALLENGE.fullmatch(asked.get("code_challenge", ""))
    return "" if pkce and len(asked.get("state", "")) >= 8 else "invalid_request"


def _broken(struck: Struck, when: str) -> list[Answer | None]:
    """How a call fails by the faults that struck it: no answer (None) or another one; empty where it does not."""
    if f"lost_answer_{when}_effect" in struck:
        return [None]
    if f"http_500_{when}" in struck:
        return [Answer.json({"error": "server_error"}, 500)]
    if when == "after":
        return []
    if "not_json" in struck:
        return [page("Deriv", 200)]
    if "oversized" in struck:
        return [Answer(b'{"access_token": "' + b"x" * OVERSIZED + b'"}')]
    if "redirects" in struck:
        return [redirect(str(struck["redirects"]["to"]), {})]
    return []


def challenge_of(verifier: str) -> str:
    """RFC 7636, 4.2."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def page(text: str, status: int = 200) -> Answer:
    """A page of Deriv's."""
    return Answer(f"<!doctype html><title>Deriv</title>{text}".encode(), status, b"text/html")


def redirect(target: str, values: Mapping[str, str]) -> Answer:
    """303 to `target`, with these in its query."""
    query = f"?{urlencode(values)}" if values else ""
    return Answer(b"", 303, b"text/html", ((b"location", f"{target}{query}".encode()),))
