"""Deriv as a real server over simulated books: WebSocket v3 and REST, with their refusals, guards and ways to fail."""

from dataclasses import dataclass
from typing import Any

from deriv_integration.simulator.control import Control
from deriv_integration.simulator.rest import Rest
from deriv_integration.simulator.v3 import V3
from deriv_integration.simulator.v3_session import Session
from deriv_integration.simulator.world import World
from shared_kernel.simulator import Answer, JsonApp, Request


@dataclass
class DerivSimulator(World):
    """One Deriv: its books, its two faces, its control side.

    `app` serves both faces at one address; `ws_app` and `rest_app` one each, as Deriv does. Servers of one simulator
    share one event loop.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.v3 = V3(self)
        self.rest = Rest(self)
        self.control = Control(self, self.reset, self.renew, lambda: self.v3.budgets.refused)
        self.reset()

    def reset(self) -> None:
        """Forgets accounts, money, codes and faults; opens the agents anew."""
        self.begin()
        self.rest.oauth.forget()
        self.renew()

    def renew(self) -> None:
        """Gives everybody a full call budget, on both faces."""
        self.v3.renew()
        self.rest.spent.clear()

    @property
    def app(self) -> JsonApp:
        """Both faces and the control side."""
        return JsonApp(self.control.routes(), self.rest.answer, self.v3.websocket)

    @property
    def ws_app(self) -> JsonApp:
        """v3 and the control side."""
        return JsonApp(self.control.routes(), nothing_here, self.v3.websocket)

    @property
    def rest_app(self) -> JsonApp:
        """REST and the control side."""
        return JsonApp(self.control.routes(), self.rest.answer)

    @property
    def sessions(self) -> set[Session]:
        """The open sockets."""
        return self.v3.sessions

    def last_code(self, customer: str) -> str:
        """The newest one-time code that was sent to a customer (login id, nickname, address); empty without one."""
        sent = self.codes.of(customer)
        return sent[-1].value if sent else ""

    def _customers(self, body: Any) -> list[dict[str, Any]]:
        return self.control.customers(body)


async def nothing_here(_: Request) -> Answer:
    """404."""
    return Answer.json({"error": "not found"}, 404)
