"""M-Pesa as a server, as strict as the provider and as unreliable: its products behind one gateway, its control side.

Built from the contract alone: it imports nothing of the adapter, its tables or its codes, so as to contradict them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mpesa_integration.simulator import control
from mpesa_integration.simulator.accounts import Payment
from mpesa_integration.simulator.c2b import C2b
from mpesa_integration.simulator.core import Core
from mpesa_integration.simulator.delivery import Delivery
from mpesa_integration.simulator.express import Express, Prompt
from mpesa_integration.simulator.gateway import Gateway
from mpesa_integration.simulator.payouts import Payouts
from mpesa_integration.simulator.pull import Pull
from mpesa_integration.simulator.queries import Queries
from mpesa_integration.simulator.results import Results
from mpesa_integration.simulator.reversals import Reversals
from shared_kernel.simulator import Answer, JsonApp, Request, control_routes


@dataclass(kw_only=True)
class MpesaSimulator(Core):
    """M-Pesa. `app` is the ASGI application; the settings are `core.Settings`."""

    app: JsonApp = field(init=False)
    base_url: str = field(init=False, default="")  # where it is served, if whoever serves it says so

    def __post_init__(self) -> None:
        super().__post_init__()
        self.forget()
        self.gateway, self.delivery = Gateway(self), Delivery(self)
        self.c2b = C2b(self, self.gateway, self.delivery)
        self.express = Express(self, self.gateway, self.delivery, self.c2b)
        self.results = Results(self, self.gateway, self.delivery)
        routes = {
            ("GET", "/oauth/v1/generate"): self.gateway.give_token,
            **self.express.routes(),
            **self.c2b.routes(),
            **Pull(self, self.gateway, self.c2b).routes(),
            **Payouts(self, self.gateway, self.results).routes(),
            **Queries(self, self.gateway, self.results).routes(),
            **Reversals(self, self.gateway, self.results).routes(),
        }
        self._paths = {path for _, path in routes}
        steered = control_routes(
            self.faults,
            self.books,
            self.clock,
            customers=self._set_customers,
            reset=self.reset,
            more={"settings": self._set, "payments": self._pay, "c2b_urls": self._forget_urls},
        )
        self.app = JsonApp(
            {**routes, **steered}, self._no_route, on_start=self.callbacks.start, on_stop=self.callbacks.stop
        )

    @property
    def prompts(self) -> Mapping[str, Prompt]:
        """The STK pushes that were accepted, by CheckoutRequestID."""
        return self.express.prompts

    @property
    def paid(self) -> list[tuple[datetime, str, Payment]]:
        """What came in, by time."""
        return self.c2b.paid

    @property
    def token(self) -> str:
        """The one token that is good now."""
        return self.gateway.token

    def reset(self) -> None:
        """Forgets everything but the settings."""
        self.resets += 1
        self.clock.reset()
        self.faults.clear()
        self.callbacks.forget()
        self.delivery.held_back.clear()
        self.forget()
        for part in (self.gateway, self.c2b, self.express):
            part.forget()

    def set_customer(self, phone: str, behaviour: str = "pay", **given: Any) -> None:
        """What the owner of `phone` does with prompts (`behaviour`) and what becomes of payouts to them (`receives`).

        `balance`, `delay_s`, `name` as in `Customer`. Raises `ValueError`.
        """
        self.customers.set(phone, behaviour=behaviour, **given)

    def _set_customers(self, body: Any) -> Any:
        for one in body if isinstance(body, list) else [body]:
            self.set_customer(**one)
        return {"customers": len(self.customers.known)}

    def _set(self, body: Any) -> Any:
        return control.change(self, body or {})

    def _pay(self, body: Any) -> Any:
        """A customer pays the paybill: `phone, amount, reference`, and `shortcode` where it is not the usual one."""
        self.c2b.pay(**body)
        return {}

    def _forget_urls(self, _: Any) -> Any:
        """As two operators delete registered C2B URLs in the portal."""
        self.c2b.registered.clear()
        return {}

    async def _no_route(self, request: Request) -> Answer:
        if request.path in self._paths:
            return self.gateway.error(405, "405.001", f"{request.method} Method Not Allowed")
        return self.gateway.error(404, "404.001.01", "Resource not found")
