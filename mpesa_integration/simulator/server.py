"""M-Pesa as a server, as strict as the provider: token, STK push with its prompt and callback, STK query, Pull.

Built from the contract alone: it imports nothing of the adapter, its tables or its codes, so as to contradict them.
"""

import asyncio
import re
import time
from base64 import b64decode, b64encode
from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any
from urllib.parse import urlsplit

from mpesa_integration.simulator.callbacks import Callbacks
from mpesa_integration.simulator.prompts import BEHAVIOURS, PAID, Prompt, Subscriber
from shared_kernel.simulator import Answer, Books, Faults, Handler, JsonApp, Request, SimulatedClock, control_routes

EAT = timezone(timedelta(hours=3))
BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PHONE = re.compile(r"254[17][0-9]{8}")
FREE_TEXT = re.compile(r"[A-Za-z0-9 -]+")
FORBIDDEN_IN_URLS = ("mpesa", "safaricom", "exe", "exec", "cmd", "sql", "query")
PAGE = 100
PULL_REACH = timedelta(hours=48)


class Nothing(Enum):
    """No fault struck: None would be an answer that was lost."""

    STRUCK = "nothing struck"


BEFORE = frozenset(
    {
        "http_500_before",
        "lost_answer_before_effect",
        "rate_limited",
        "token_superseded",
        "waf_html",
        "answer_with",
        "slow",
    }
)
AFTER = frozenset({"http_500_after", "lost_answer_after_effect", "callback_before_answer"})
ON_CALLBACK = frozenset(
    {
        "duplicate_callback",
        "late_callback",
        "lost_callback",
        "out_of_order",
        "forged_failure",
        "forged_success",
        "wrong_amount",
    }
)
ON_QUERY = frozenset({"pending_long"})


@dataclass(kw_only=True)
class MpesaSimulator:
    """M-Pesa. `app` is the ASGI application; books, faults and clock can be reached from a test in the same process.

    Times in seconds. `prompt_s`: from the push to what the subscriber does; `prompt_lifetime_s`: until an ignored
    prompt ends; `callback_s`: from there to the callback. `rate_per_s`, `subscriber_lock`, `duplicate_guard` (rule 17):
    the provider's guards. `pending_form`: `4999`, `error`, or `both` in turn. `pull_zone`: what the Z in Pull's times
    stands for, `utc` or `eat`. `plain_http`: callback URLs may be http on this machine.
    """

    consumer_key: str = "demo-consumer-key"
    consumer_secret: str = "demo-consumer-secret"  # noqa: S105 - the demo's
    shortcode: str = "174379"
    passkey: str = "demo-passkey"
    seed: int = 0
    start: datetime | None = None
    latency_s: float = 0.0
    prompt_s: float = 0.3
    prompt_lifetime_s: float = 60.0
    callback_s: float = 0.0
    token_lifetime_s: float = 3599
    rate_per_s: int | None = 20
    subscriber_lock: bool = True
    duplicate_guard: bool = True
    pending_form: str = "both"
    pull_zone: str = "utc"
    plain_http: bool = True
    callback_workers: int = 16

    faults: Faults = field(init=False)
    books: Books = field(init=False)
    clock: SimulatedClock = field(init=False)
    app: JsonApp = field(init=False)
    base_url: str = field(init=False, default="")  # where it is served, if whoever serves it says so

    def __post_init__(self) -> None:
        self.clock = SimulatedClock(self.start)
        self.books = Books()
        self.faults = Faults(
            calls=frozenset({"token", "stk_push", "stk_query", "pull"}),
            known=BEFORE | AFTER | ON_CALLBACK | ON_QUERY,
            matchers=frozenset({"phone", "reference"}),
        )
        self.callbacks = Callbacks(self.callback_workers)
        self.resets = 0
        self._forget()
        routes = {
            ("GET", "/oauth/v1/generate"): self._token,
            ("POST", "/mpesa/stkpush/v1/processrequest"): self._product("stk_push", self._push),
            ("POST", "/mpesa/stkpushquery/v1/query"): self._product("stk_query", self._query),
            ("POST", "/pulltransactions/v1/query"): self._product("pull", self._pull),
            ("GET", "/pulltransactions/v1/query"): self._product("pull", self._pull),
        }
        self._paths = {path for _, path in routes}
        control = control_routes(self.faults, self.books, self.clock, customers=self._set_customers, reset=self.reset)
        self.app = JsonApp(
            {**routes, **control}, self._no_route, on_start=self.callbacks.start, on_stop=self.callbacks.stop
        )

    # --- the control side -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forgets everything but the settings."""
        for prompt in self.prompts.values():
            if prompt.timer is not None:
                prompt.timer.cancel()
        self.resets += 1
        self.clock.reset()
        self.faults.clear()
        self.books.movements.clear()
        self.callbacks.forget()
        self._forget()

    def _forget(self) -> None:
        self.random = Random(self.seed)
        self.faults.random = Random(self.seed + 1)
        self.token, self.token_until = "", self.clock()
        self.tokens_given = 0
        self.prompts: dict[str, Prompt] = {}
        self.open: dict[str, Prompt] = {}
        self.paid_lately: dict[tuple[str, Decimal], datetime] = {}
        self.paid: list[tuple[datetime, str, Prompt]] = []  # by time, for Pull
        self.subscribers: dict[str, Subscriber] = {}
        self.held_back: list[Callable[[], None]] = []
        self.second, self.in_second = 0, 0
        self.queries = 0
        self.calls: dict[str, int] = {}
        self.serial = self.random.randrange(36**4)

    def _set_customers(self, body: Any) -> Any:
        for one in body if isinstance(body, list) else [body]:
            self.set_customer(**one)
        return {"customers": len(self.subscribers)}

    def set_customer(self, phone: str, behaviour: str = "pay", balance: Any = None, delay_s: Any = None) -> None:
        """What the owner of `phone` does with prompts from now on. Raises `ValueError`."""
        if not isinstance(phone, str) or not PHONE.fullmatch(phone):
            raise ValueError("phone is 2547XXXXXXXX or 2541XXXXXXXX")
        if behaviour not in BEHAVIOURS:
            raise ValueError(f"behaviour is one of {sorted(BEHAVIOURS)}")
        self.subscribers[phone] = Subscriber(
            behaviour, None if balance is None else Decimal(str(balance)), None if delay_s is None else float(delay_s)
        )

    # --- the gateway ------------------------------------------------------------------------------------------------

    async def _no_route(self, request: Request) -> Answer:
        if request.path in self._paths:
            return self._error(405, "405.001", f"{request.method} Method Not Allowed")
        return self._error(404, "404.001.01", "Resource not found")

    def _error(self, status: int, code: str, message: str) -> Answer:
        id = f"{self.random.getrandbits(16):04x}-{self.random.getrandbits(16):04x}-{self.random.getrandbits(40)}"
        return Answer.json({"requestId": id, "errorCode": code, "errorMessage": message}, status)

    def _invalid(self, what: str) -> Answer:
        return self._error(400, "400.002.02", f"Bad Request - Invalid {what}")

    async def _token(self, request: Request) -> Answer | None:
        self._count("token")
        if (struck := self.faults.take("token", BEFORE)) and (
            answer := await self._before(struck)
        ) is not Nothing.STRUCK:
            return answer
        if request.params().get("grant_type") != "client_credentials":
            return self._error(400, "400.008.02", "Invalid grant type passed")
        scheme, _, given = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme != "Basic":
            return self._error(400, "400.008.01", "Invalid Authentication passed")
        try:
            pair = b64decode(given, validate=True).decode()
        except ValueError:
            pair = ""
        if pair != f"{self.consumer_key}:{self.consumer_secret}":
            return Answer(b"", 400)
        self._new_token()
        lifetime = int(self.token_lifetime_s)
        expires_in = str(lifetime) if self.random.random() < 0.5 else lifetime  # it is both, over time
        if (after := self.faults.take("token", AFTER)) and (answer := self._after(after)) is not Nothing.STRUCK:
            return answer
        return Answer.json({"access_token": self.token, "expires_in": expires_in})

    def _new_token(self) -> None:
        fresh = Random(f"{self.seed} {self.resets} {self.tokens_given}").randbytes(21)  # a reset ends tokens, too
        self.token = b64encode(fresh).decode().replace("+", "a").replace("/", "b")
        self.token_until = self.clock() + timedelta(seconds=self.token_lifetime_s)
        self.tokens_given += 1

    def _count(self, call: str) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1

    def _product(self, call: str, handler: Callable[[dict[str, Any]], Awaitable[Answer | None]]) -> Handler:
        async def product(request: Request) -> Answer | None:
            self._count(call)
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            try:
                body = request.json()
            except ValueError:
                body = None
            if self.faults.armed:
                about = self._about(body)
                struck = self.faults.take(call, BEFORE, **about)
                if struck and (answer := await self._before(struck)) is not Nothing.STRUCK:
                    return answer
            if self._is_too_fast():
                return self._error(500, "500.003.02", "Error Occurred: Spike Arrest Violation")
            if (refused := self._unauthorised(request)) is not None:
                return refused
            kind = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                return self._invalid("Content-Type")
            if not isinstance(body, dict):
                return self._error(400, "400.002.05", "Invalid Request Payload")
            return await handler(body)

        return product

    def _about(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict):
            return {}
        checkout = body.get("CheckoutRequestID")
        prompt = self.prompts.get(checkout) if isinstance(checkout, str) else None
        if prompt is not None:
            return {"phone": prompt.phone, "reference": prompt.reference}
        return {"phone": body.get("PhoneNumber"), "reference": body.get("AccountReference")}

    def _is_too_fast(self) -> bool:
        if self.rate_per_s is None:
            return False
        second = int(time.monotonic())
        if second != self.second:
            self.second, self.in_second = second, 0
        self.in_second += 1
        return self.in_second > self.rate_per_s

    def _unauthorised(self, request: Request) -> Answer | None:
        scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if not scheme:
            return self._error(404, "404.001.04", "Invalid Authentication Header")
        if scheme == "Bearer" and token == self.token and self.token and self.clock() < self.token_until:
            return None
        if self.random.random() < 0.5:
            return self._error(404, "404.001.03", "Invalid Access Token")
        return self._error(401, "401.002.01", f"Error Occurred - Invalid Access Token - {token[:28]}")

    async def _before(self, struck: Mapping[str, dict[str, Any]]) -> Answer | Nothing | None:
        """Faults that strike before anything happened."""
        if (slow := struck.get("slow")) is not None:
            before = self.resets
            await asyncio.sleep(float(slow.get("after_s", 1)))
            if self.resets != before:
                return None
        if "token_superseded" in struck:  # somebody else took a token with our key
            self._new_token()
        if "rate_limited" in struck:
            return self._error(500, "500.003.02", "Error Occurred: Spike Arrest Violation")
        if "waf_html" in struck:
            page = b"<html><body>Request unsuccessful. Incapsula incident ID: 0-0</body></html>"
            return Answer(page, 503, b"text/html")
        if (say := struck.get("answer_with")) is not None:
            body = say.get("body", "")
            if isinstance(body, str):
                return Answer(body.encode(), int(say.get("status", 200)), b"text/html")
            return Answer.json(body, int(say.get("status", 200)))
        if "http_500_before" in struck:
            return self._error(500, "500.003.1001", "Internal Server Error")
        if "lost_answer_before_effect" in struck:
            return None
        return Nothing.STRUCK

    def _after(self, struck: Mapping[str, dict[str, Any]]) -> Answer | Nothing | None:
        """Faults that strike once it has happened."""
        if "lost_answer_after_effect" in struck:
            return None
        if "http_500_after" in struck:
            return self._error(500, "500.003.1001", "Internal Server Error")
        return Nothing.STRUCK

    # --- STK push ---------------------------------------------------------------------------------------------------

    async def _push(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self._wrong_push(body)) is not None:
            return refused
        phone = body["PhoneNumber"]
        if self.subscriber_lock and phone in self.open:
            text = "Unable to lock subscriber, a transaction is already in process for the current subscriber"
            return self._error(500, "500.001.1001", text)
        about = {"phone": phone, "reference": body["AccountReference"]}
        faults = self.faults.take("stk_push", AFTER | ON_CALLBACK, **about) if self.faults.armed else {}
        prompt = self._prompt(body, faults)
        if "callback_before_answer" in faults:
            prompt.called_back = asyncio.Event()
            self._decide(prompt)
            await asyncio.wait_for(prompt.called_back.wait(), 30)
        else:
            subscriber = self.subscribers.get(phone, Subscriber())
            wait = self.prompt_s if subscriber.delay_s is None else subscriber.delay_s
            wait = self.prompt_lifetime_s if subscriber.behaviour == "ignore" else wait
            if subscriber.behaviour != "never":
                prompt.timer = asyncio.get_running_loop().call_later(wait, self._decide, prompt)
        if faults and (answer := self._after(faults)) is not Nothing.STRUCK:
            return answer
        return Answer.json(
            {
                "MerchantRequestID": prompt.merchant_request_id,
                "CheckoutRequestID": prompt.checkout_request_id,
                "ResponseCode": "0",
                "ResponseDescription": "Success. Request accepted for processing",
                "CustomerMessage": "Success. Request accepted for processing",
            }
        )

    def _wrong_push(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self._wrong_signature(body)) is not None:
            return refused
        if body.get("TransactionType") not in {"CustomerPayBillOnline", "CustomerBuyGoodsOnline"}:
            return self._invalid("TransactionType")
        amount = body.get("Amount")
        digits = str(amount) if type(amount) is int or isinstance(amount, str) else ""
        if not re.fullmatch(r"[1-9][0-9]{0,5}", digits) or int(digits) > 250_000:
            return self._invalid("Amount")
        for name in ("PartyA", "PhoneNumber"):
            if not isinstance(body.get(name), str) or not PHONE.fullmatch(body[name]):
                return self._invalid(name)
        if body.get("PartyB") != self.shortcode:
            return self._invalid("PartyB")
        if not self._is_callback_url(body.get("CallBackURL")):
            return self._invalid("CallBackURL")
        reference, text = body.get("AccountReference"), body.get("TransactionDesc")
        if not isinstance(reference, str) or len(reference) > 12 or not FREE_TEXT.fullmatch(reference):
            return self._invalid("AccountReference")
        if not isinstance(text, str) or len(text) > 13 or not FREE_TEXT.fullmatch(text):
            return self._invalid("Remarks")
        return None

    def _wrong_signature(self, body: dict[str, Any]) -> Answer | None:
        shortcode, timestamp, password = (body.get(name) for name in ("BusinessShortCode", "Timestamp", "Password"))
        if not isinstance(shortcode, str) or not re.fullmatch(r"[0-9]{5,7}", shortcode):
            return self._invalid("BusinessShortCode")
        if not isinstance(timestamp, str) or not self._is_now(timestamp):
            return self._invalid("Timestamp")
        if not isinstance(password, str):
            return self._invalid("Password")
        if shortcode != self.shortcode:
            return self._error(500, "500.001.1001", "Merchant does not exist")
        if password != b64encode(f"{shortcode}{self.passkey}{timestamp}".encode()).decode():
            return self._error(500, "500.001.1001", "Wrong credentials")
        return None

    def _is_now(self, timestamp: str) -> bool:
        try:
            at = datetime.strptime(timestamp, "%Y%m%d%H%M%S").replace(tzinfo=EAT)
        except ValueError:
            return False
        return len(timestamp) == 14 and abs(self.clock() - at) < timedelta(minutes=30)

    def _is_callback_url(self, url: Any) -> bool:
        if not isinstance(url, str) or any(word in url.lower() for word in FORBIDDEN_IN_URLS):
            return False
        parts = urlsplit(url)
        local = self.plain_http and parts.hostname in {"127.0.0.1", "localhost", "::1"}
        return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))

    def _prompt(self, body: dict[str, Any], faults: dict[str, dict[str, Any]]) -> Prompt:
        at, phone = self.clock(), body["PhoneNumber"]
        checkout = ""
        while not checkout or checkout in self.prompts:
            stamp = at.astimezone(EAT)
            checkout = f"ws_CO_{stamp:%d%m%Y%H%M%S}{stamp.microsecond // 1000:03d}{phone[3:]}"
            at += timedelta(milliseconds=1)
        random = self.random
        prompt = Prompt(
            merchant_request_id=f"{random.getrandbits(16):04x}-{random.getrandbits(16):04x}-{random.getrandbits(32):x}",
            checkout_request_id=checkout,
            phone=phone,
            shortcode=self.shortcode,
            amount=Decimal(str(body["Amount"])),
            reference=body["AccountReference"],
            callback_url=body["CallBackURL"],
            pushed_at=self.clock(),
            faults=faults,
        )
        self.prompts[checkout] = self.open[phone] = prompt
        return prompt

    def _decide(self, prompt: Prompt) -> None:
        """The subscriber did something, or did not in time."""
        subscriber = self.subscribers.get(prompt.phone, Subscriber())
        result, at = BEHAVIOURS[subscriber.behaviour], self.clock()
        key = (prompt.phone, prompt.amount)
        if self.duplicate_guard and at - self.paid_lately.get(key, at - timedelta(hours=1)) < timedelta(minutes=2):
            result = (17, "Rule limited.")
        elif result[0] == 0 and subscriber.balance is not None and subscriber.balance < prompt.amount:
            result = BEHAVIOURS["no_funds"]
        if "forged_success" in prompt.faults:
            result = BEHAVIOURS["cancel"]
        prompt.result = result
        if self.open.get(prompt.phone) is prompt:
            del self.open[prompt.phone]
        if result[0] == 0:
            self._take_money(prompt, subscriber, at)
        self._call_back(prompt)

    def _take_money(self, prompt: Prompt, subscriber: Subscriber, at: datetime) -> None:
        wrong = prompt.faults.get("wrong_amount")
        if wrong is not None and wrong.get("in_books"):
            prompt.amount = Decimal(str(wrong.get("amount", prompt.amount + 1)))
        if subscriber.balance is not None:
            subscriber.balance -= prompt.amount
        prompt.receipt, prompt.paid_at = self._receipt(at), at
        self.paid_lately[(prompt.phone, prompt.amount)] = at
        insort(self.paid, (at, prompt.receipt, prompt))
        self.books.enter(
            prompt.receipt,
            prompt.reference,
            prompt.phone,
            prompt.shortcode,
            prompt.amount,
            "KES",
            at,
            checkout_request_id=prompt.checkout_request_id,
        )

    def _receipt(self, at: datetime) -> str:
        local = at.astimezone(EAT)
        self.serial = (self.serial + 7919) % 36**7
        rest, serial = "", self.serial
        for _ in range(7):
            serial, digit = divmod(serial, 36)
            rest = BASE36[digit] + rest
        year, month = chr(ord("K") + (local.year - 2016) % 16), "ABCDEFGHIJKL"[local.month - 1]
        return f"{year}{month}{'123456789ABCDEFGHIJKLMNOPQRSTUV'[local.day - 1]}{rest}"

    # --- callbacks --------------------------------------------------------------------------------------------------

    def _call_back(self, prompt: Prompt) -> None:
        faults = prompt.faults
        body = self._callback(prompt, prompt.result or BEHAVIOURS["never"])
        if "forged_failure" in faults:
            self._deliver(prompt, self._callback(prompt, BEHAVIOURS["cancel"]), 0)
        if "forged_success" in faults:
            self._deliver(prompt, self._callback(prompt, (0, PAID), receipt=self._receipt(self.clock())), 0)
            return
        if "lost_callback" in faults:
            return
        delay = float(
            faults.get("late_callback", {}).get("after_s", 5 if "late_callback" in faults else self.callback_s)
        )
        times = int(faults.get("duplicate_callback", {}).get("times", 2)) if "duplicate_callback" in faults else 1

        def send() -> None:
            for _ in range(times):
                self._deliver(prompt, body, delay)

        if "out_of_order" in faults:  # waits for the next one to overtake it
            self.held_back.append(send)
            asyncio.get_running_loop().call_later(float(faults["out_of_order"].get("after_s", 2)), self._let_go)
            return
        send()
        if self.held_back:
            asyncio.get_running_loop().call_later(0.2, self._let_go)  # once this one is surely there

    def _let_go(self) -> None:
        held, self.held_back = self.held_back, []
        for send in held:
            send()

    def _deliver(self, prompt: Prompt, body: bytes, delay: float) -> None:
        self.callbacks.post(prompt.callback_url, body, delay, prompt.called_back)

    def _callback(self, prompt: Prompt, result: tuple[int | str, str], receipt: str = "") -> bytes:
        callback: dict[str, Any] = {
            "MerchantRequestID": prompt.merchant_request_id,
            "CheckoutRequestID": prompt.checkout_request_id,
            "ResultCode": result[0],
            "ResultDesc": result[1],
        }
        if result[0] == 0:
            at = (prompt.paid_at or self.clock()).astimezone(EAT)
            amount = prompt.amount
            if "wrong_amount" in prompt.faults:
                amount = Decimal(str(prompt.faults["wrong_amount"].get("amount", amount + 1)))
            items: list[dict[str, Any]] = [
                {"Name": "Amount", "Value": float(amount)},
                {"Name": "MpesaReceiptNumber", "Value": receipt or prompt.receipt},
                {"Name": "Balance"},
                {"Name": "TransactionDate", "Value": int(f"{at:%Y%m%d%H%M%S}")},
                {"Name": "PhoneNumber", "Value": int(prompt.phone)},
            ]
            callback["CallbackMetadata"] = {"Item": items}
        return Answer.json({"Body": {"stkCallback": callback}}).body

    # --- STK query and Pull -----------------------------------------------------------------------------------------

    async def _query(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self._wrong_signature(body)) is not None:
            return refused
        checkout = body.get("CheckoutRequestID")
        prompt = self.prompts.get(checkout) if isinstance(checkout, str) else None
        if prompt is None:
            return self._invalid("CheckoutRequestID")
        about = {"phone": prompt.phone, "reference": prompt.reference}
        faults = self.faults.take("stk_query", AFTER | ON_QUERY, **about) if self.faults.armed else {}
        if faults and (answer := self._after(faults)) is not Nothing.STRUCK:
            return answer
        result = None if "pending_long" in faults else prompt.result
        if result is None:
            self.queries += 1
            if self.pending_form == "error" or (self.pending_form == "both" and self.queries % 2):
                return self._error(500, "500.001.1001", "The transaction is being processed")
            result = BEHAVIOURS["never"]
        return Answer.json(
            {
                "ResponseCode": "0",
                "ResponseDescription": "The service request has been accepted successsfully",
                "MerchantRequestID": prompt.merchant_request_id,
                "CheckoutRequestID": prompt.checkout_request_id,
                "ResultCode": str(result[0]),
                "ResultDesc": result[1],
            }
        )

    async def _pull(self, body: dict[str, Any]) -> Answer | None:
        if body.get("ShortCode") != self.shortcode:
            return self._invalid("ShortCode")
        start, end = (self._pull_time(body.get(name)) for name in ("StartDate", "EndDate"))
        offset = body.get("OffSetValue")
        if start is None:
            return self._invalid("StartDate")
        if end is None or end <= start:
            return self._invalid("EndDate")
        if not isinstance(offset, str) or not re.fullmatch(r"[0-9]{1,9}", offset):
            return self._invalid("OffSetValue")
        start = max(start, self.clock() - PULL_REACH)
        first, last = bisect_left(self.paid, (start, "")), bisect_left(self.paid, (end, ""))
        page = self.paid[first + int(offset) : min(first + int(offset) + PAGE, last)]
        reference = f"{self.random.getrandbits(16)}-{self.random.getrandbits(24)}-2"
        code, message = ("1000", "Success") if page else ("1001", "No transactions available")
        rows = [self._pull_row(at, prompt) for at, _, prompt in page]
        return Answer.json(
            {"ResponseRefID": reference, "ResponseCode": code, "ResponseMessage": message, "Response": [rows]}
        )

    def _pull_time(self, text: Any) -> datetime | None:
        zone = UTC if self.pull_zone == "utc" else EAT
        try:
            return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
        except (ValueError, TypeError):
            return None

    def _pull_row(self, at: datetime, prompt: Prompt) -> dict[str, Any]:
        zone = UTC if self.pull_zone == "utc" else EAT
        return {
            "transactionId": prompt.receipt,
            "trxDate": f"{at.astimezone(zone):%Y-%m-%dT%H:%M:%S}Z",
            "msisdn": int(prompt.phone[3:]),
            "sender": "MPESA",
            "transactiontype": "c2b-pay-bill-debit",
            "billreference": prompt.reference,
            "amount": f"{prompt.amount:.2f}",
            "organizationname": "PenPay",
        }
