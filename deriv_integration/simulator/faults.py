"""The ways in which the simulated Deriv fails, on both faces, armed by `POST /_control/faults`.

`call` is a generic one (`CALLS`), which means both faces unless `platform` (`ws_v3`, `rest`) says one, a v3 call by its
own name, `token` (OAuth's endpoint; `grant` is its grant type) or `connect`. `loginid` (the caller), `transfer_to`,
`request_id` and `req_id` narrow an order down further.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from deriv_integration.simulator.books import REST, WS_V3
from shared_kernel.simulator import Faults

Struck: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The faults that strike one call, with their options."""

CALLS = frozenset(
    {"transfer", "withdraw", "status", "wallet", "statement", "code", "account", "agents", "connect", "token"}
)
GENERIC = {"paymentagent_transfer": "transfer", "paymentagent_withdraw": "withdraw", "verify_email": "code"}
MATCHERS = frozenset({"platform", "loginid", "transfer_to", "request_id", "req_id", "grant"})
FAULTS = frozenset(
    {
        # on both faces; `after` means that the effect was booked
        "lost_answer_before_effect",  # v3: never answered; REST: the connection is reset
        "lost_answer_after_effect",
        "drop_socket_before_effect",
        "drop_socket_after_effect",
        "wrong_response_before",  # v3: WrongResponse; REST: 502 and no JSON
        "wrong_response_after",
        "request_timeout_before",  # v3: RequestTimeout; REST: 504
        "request_timeout_after",
        "http_500_before",  # v3: InternalServerError; REST: 500 with the operation's own code
        "http_500_after",
        "http_504_before",  # v3: RequestTimeout; REST: 504
        "http_504_after",
        "late_commit",  # as a time-out, and booked after `after_s` (3)
        "rate_limited",
        "error",  # answers `code` and `message` (REST: `status`), without effect
        "error_after",  # the same, with effect: v3's OutputValidationFailed
        "float_low",
        "token_superseded",  # the caller's tokens are gone
        "reverted_later",  # takes a payment back after `after_s` (3)
        "statement_gap",  # statement and wallet leave out the account's newest outgoing entry, as long as it is armed
        "slow",  # answers after `after_s` (1), others are not held up
        # REST
        "pending",  # a transfer starts pending too, for `after_s` (1)
        "pending_long",  # decided after `after_s` (30); `status`: `requested`, to begin with that
        "never_final",
        "rejected",  # accepted, and decided against; `after_s` (the usual time)
        "failed",
        "null_transaction_id",  # on a final state too; v3: the answer has none
        "not_found_for",  # the status call does not know it for `after_s` (30)
        "hidden_in_wallet",  # neither side's wallet shows it for `after_s` (30)
        "missing_links",
        # the token endpoint
        "not_json",  # a page
        "oversized",  # eight megabytes
        "redirects",  # `to` somewhere
        "odd_answer",  # the options stand in the answer, in place of what it says
        # v3
        "dry_run_value",  # answers 2 to what was meant, without effect
        "missing_transaction_id",
        "double_booking",
        "down",  # closes every socket and refuses new ones; REST: 503
        "updating",  # website_status; sockets drop after `after_s` (60)
        "site_down",
    }
)
ALIASES = {"request_timeout_late_commit": "late_commit", "missing_transaction_id": "null_transaction_id"}
UNSETTLED = ("wrong_response", "request_timeout", "http_500", "http_504")


@dataclass
class DerivFaults(Faults):
    """Faults of which some show at once, on the sockets that are open."""

    changed: Callable[[], None] = lambda: None

    def arm(self, order: Mapping[str, Any]) -> None:
        own = dict(order)
        if own.get("call") in GENERIC:
            own |= {"call": GENERIC[own["call"]], "platform": WS_V3}
        if own.get("platform", REST) not in {WS_V3, REST}:
            raise ValueError("platform is one of ws_v3, rest")
        own["fault"] = ALIASES.get(own.get("fault", ""), own.get("fault"))
        super().arm(own)
        self.changed()

    def clear(self) -> None:
        super().clear()
        self.changed()

    def is_armed(self, fault: str, face: str) -> bool:
        """Whether it waits, for any call of that face."""
        return any(a.fault == fault and a.match.get("platform", face) == face for a in self.armed)

    def option(self, fault: str, name: str, default: float) -> float:
        """An option of a fault that is armed."""
        return float(next((a.options.get(name, default) for a in self.armed if a.fault == fault), default))


def seconds(struck: Struck, fault: str, default: float) -> float:
    """The `after_s` of a fault that struck."""
    return float(struck[fault].get("after_s", default))
