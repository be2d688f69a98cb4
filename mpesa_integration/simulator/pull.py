"""Pull: what a shortcode received in the last 48 hours, by prompt or straight; payouts and reversals are not in it."""

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from mpesa_integration.simulator.accounts import Payment
from mpesa_integration.simulator.c2b import C2b
from mpesa_integration.simulator.core import EAT, Core
from mpesa_integration.simulator.fields import PHONE, matching, one_of
from mpesa_integration.simulator.gateway import Gateway
from shared_kernel.simulator import Answer, Handler

PAGE = 100
REACH = timedelta(hours=48)


@dataclass
class Pull:
    """The book of incoming payments, in pages. POST and GET, for the portal says both."""

    core: Core
    gateway: Gateway
    c2b: C2b

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What it serves."""
        query = self.gateway.product("pull", self._query)
        return {
            ("POST", "/pulltransactions/v1/query"): query,
            ("GET", "/pulltransactions/v1/query"): query,
            ("POST", "/pulltransactions/v1/register"): self.gateway.product("pull", self._register),
        }

    async def _register(self, body: dict[str, Any]) -> Answer | None:
        rules = {
            "ShortCode": one_of(self.core.shortcode),
            "RequestType": one_of("Pull"),
            "NominatedNumber": matching(PHONE),
            "CallBackURL": self.gateway.is_callback_url,
        }
        if (refused := self.gateway.wrong(body, rules)) is not None:
            return refused
        return Answer.json(
            {
                "ResponseRefID": self._reference(),
                "ResponseStatus": "1000",
                "ShortCode": self.core.shortcode,
                "ResponseDescription": "Shortcode Registered Successfully",
            }
        )

    async def _query(self, body: dict[str, Any]) -> Answer | None:
        if body.get("ShortCode") != self.core.shortcode:
            return self.gateway.invalid("ShortCode")
        start, end = (self._time(body.get(name)) for name in ("StartDate", "EndDate"))
        offset = body.get("OffSetValue")
        if start is None:
            return self.gateway.invalid("StartDate")
        if end is None or end <= start:
            return self.gateway.invalid("EndDate")
        if not isinstance(offset, str) or not re.fullmatch(r"[0-9]{1,9}", offset):
            return self.gateway.invalid("OffSetValue")
        page = self._page(start, end, int(offset))
        code, message = ("1000", "Success") if page else ("1001", "No transactions available")
        rows = [self._row(at, payment) for at, payment in page]
        return Answer.json(
            {"ResponseRefID": self._reference(), "ResponseCode": code, "ResponseMessage": message, "Response": [rows]}
        )

    def _page(self, start: datetime, end: datetime, offset: int) -> list[tuple[datetime, Payment]]:
        paid, start = self.c2b.paid, max(start, self.core.clock() - REACH)
        first, last = bisect_left(paid, start, key=_at), bisect_left(paid, end, key=_at)
        page = paid[first + offset : min(first + offset + PAGE, last)]
        return [(at, payment) for at, _, payment in page if payment.shortcode == self.core.shortcode]

    def _reference(self) -> str:
        return f"{self.core.random.getrandbits(16)}-{self.core.random.getrandbits(24)}-2"

    @property
    def _zone(self) -> tzinfo:
        return UTC if self.core.pull_zone == "utc" else EAT

    def _time(self, text: Any) -> datetime | None:
        try:
            return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=self._zone)
        except (ValueError, TypeError):
            return None

    def _row(self, at: datetime, payment: Payment) -> dict[str, Any]:
        return {
            "transactionId": payment.receipt,
            "trxDate": f"{at.astimezone(self._zone):%Y-%m-%dT%H:%M:%S}Z",
            "msisdn": int(payment.phone[3:]),
            "sender": "MPESA",
            "transactiontype": "c2b-pay-bill-debit",
            "billreference": payment.reference,
            "amount": f"{payment.amount:.2f}",
            "organizationname": "PenPay",
        }


def _at(row: tuple[datetime, str, Payment]) -> datetime:
    return row[0]
