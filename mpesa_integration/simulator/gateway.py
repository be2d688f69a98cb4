"""Daraja's gateway: tokens, spike arrest, error bodies, and the faults that strike around any call."""

import asyncio
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from random import Random
from typing import Any, TypeAlias

from mpesa_integration.simulator.core import AFTER, BEFORE, Core
from mpesa_integration.simulator.fields import Rule, first_wrong, is_callback_url
from shared_kernel.simulator import Answer, Handler, Request

Struck: TypeAlias = dict[str, dict[str, Any]]
About: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]
Product: TypeAlias = Callable[[dict[str, Any]], Awaitable[Answer | None]]


# Refusals of a call that came too fast, by the option `form` of `rate_limited`; 429 has no body (an assumption).
TOO_FAST = {
    "spike": (500, "500.003.02", "Error Occurred: Spike Arrest Violation"),
    "busy": (500, "500.003.02", "System is busy. Please try again in few minutes."),
    "quota": (500, "500.003.03", "Error Occurred: Quota Violation"),
}


class Nothing(Enum):
    """No fault struck: None would be an answer that was lost."""

    STRUCK = "nothing struck"


@dataclass
class Gateway:
    """What stands before every product."""

    core: Core

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Ends the token."""
        self.token, self.token_until = "", self.core.clock()
        self.tokens_given = 0
        self.second, self.in_second = 0, 0

    def error(self, status: int, code: str, message: str) -> Answer:
        """Daraja's error body."""
        random = self.core.random
        id = f"{random.getrandbits(16):04x}-{random.getrandbits(16):04x}-{random.getrandbits(40)}"
        return Answer.json({"requestId": id, "errorCode": code, "errorMessage": message}, status)

    def invalid(self, what: str) -> Answer:
        """A field is wrong."""
        return self.error(400, "400.002.02", f"Bad Request - Invalid {what}")

    def wrong(self, body: Mapping[str, Any], rules: Mapping[str, Rule]) -> Answer | None:
        """The refusal of the first field that breaks its rule, or None."""
        name = first_wrong(body, rules)
        return None if name is None else self.invalid(name)

    def is_callback_url(self, url: Any) -> bool:
        """As the settings allow it now."""
        return is_callback_url(url, plain_http=self.core.plain_http)

    async def give_token(self, request: Request) -> Answer | None:
        """GET /oauth/v1/generate: a new token, which ends the one before."""
        self._count("token")
        if (struck := self.core.faults.take("token", BEFORE)) and (
            answer := await self.before(struck)
        ) is not Nothing.STRUCK:
            return answer
        if request.params().get("grant_type") != "client_credentials":
            return self.error(400, "400.008.02", "Invalid grant type passed")
        scheme, _, given = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme != "Basic":
            return self.error(400, "400.008.01", "Invalid Authentication passed")
        try:
            pair = b64decode(given, validate=True).decode()
        except ValueError:
            pair = ""
        if pair != f"{self.core.consumer_key}:{self.core.consumer_secret}":
            return Answer(b"", 400)
        self._new_token()
        lifetime = int(self.core.token_lifetime_s)
        expires_in = str(lifetime) if self.core.random.random() < 0.5 else lifetime  # it is both, over time
        if (after := self.core.faults.take("token", AFTER)) and (answer := self.after(after)) is not Nothing.STRUCK:
            return answer
        return Answer.json({"access_token": self.token, "expires_in": expires_in})

    def product(self, call: str, handler: Product, about: About = lambda _: {}) -> Handler:
        """A product behind the gateway. `about` says whom a call concerns, for faults that are meant for one."""

        async def answer(request: Request) -> Answer | None:
            self._count(call)
            if self.core.latency_s:
                await asyncio.sleep(self.core.latency_s)
            try:
                body = request.json()
            except ValueError:
                body = None
            if self.core.faults.armed:
                struck = self.core.faults.take(call, BEFORE, **(about(body) if isinstance(body, dict) else {}))
                if struck and (answered := await self.before(struck)) is not Nothing.STRUCK:
                    return answered
            if (refused := self._refusal(request, body)) is not None:
                return refused
            return await handler(body)

        return answer

    def _refusal(self, request: Request, body: Any) -> Answer | None:
        if self._is_too_fast():
            return self.error(*TOO_FAST["spike"])
        if (refused := self._unauthorised(request)) is not None:
            return refused
        kind = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            return self.invalid("Content-Type")
        return None if isinstance(body, dict) else self.error(400, "400.002.05", "Invalid Request Payload")

    async def before(self, struck: Struck) -> Answer | Nothing | None:
        """Faults that strike before anything happened."""
        if (slow := struck.get("slow")) is not None:
            resets = self.core.resets
            await asyncio.sleep(float(slow.get("after_s", 1)))
            if self.core.resets != resets:
                return None
        if "token_superseded" in struck:  # somebody else took a token with our key
            self._new_token()
        if (limited := struck.get("rate_limited")) is not None:
            form = str(limited.get("form", "spike"))
            return Answer(b"", 429) if form == "429" else self.error(*TOO_FAST[form])
        if "waf_html" in struck or "waf_page" in struck:
            page = b"<html><body>Request unsuccessful. Incapsula incident ID: 0-0</body></html>"
            return Answer(page, 503, b"text/html")
        if (say := struck.get("answer_with")) is not None:
            body, status = say.get("body", ""), int(say.get("status", 200))
            return Answer(body.encode(), status, b"text/html") if isinstance(body, str) else Answer.json(body, status)
        if "http_500_before" in struck:
            return self.error(500, "500.003.1001", "Internal Server Error")
        return None if "lost_answer_before_effect" in struck else Nothing.STRUCK

    def after(self, struck: Struck) -> Answer | Nothing | None:
        """Faults that strike once it has happened."""
        if "lost_answer_after_effect" in struck:
            return None
        if "http_500_after" in struck:
            return self.error(500, "500.003.1001", "Internal Server Error")
        return Nothing.STRUCK

    def _new_token(self) -> None:
        core = self.core
        fresh = Random(f"{core.seed} {core.resets} {self.tokens_given}").randbytes(21)  # a reset ends tokens, too
        self.token = b64encode(fresh).decode().replace("+", "a").replace("/", "b")
        self.token_until = core.clock() + timedelta(seconds=core.token_lifetime_s)
        self.tokens_given += 1

    def _count(self, call: str) -> None:
        self.core.calls[call] = self.core.calls.get(call, 0) + 1

    def _is_too_fast(self) -> bool:
        if self.core.rate_per_s is None:
            return False
        second = int(time.monotonic())
        if second != self.second:
            self.second, self.in_second = second, 0
        self.in_second += 1
        return self.in_second > self.core.rate_per_s

    def _unauthorised(self, request: Request) -> Answer | None:
        scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if not scheme:
            return self.error(404, "404.001.04", "Invalid Authentication Header")
        if scheme == "Bearer" and token == self.token and self.token and self.core.clock() < self.token_until:
            return None
        if self.core.random.random() < 0.5:
            return self.error(404, "404.001.03", "Invalid Access Token")
        return self.error(401, "401.002.01", f"Error Occurred - Invalid Access Token - {token[:28]}")
