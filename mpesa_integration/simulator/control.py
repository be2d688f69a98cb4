"""What the control side can set while the simulator runs."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from mpesa_integration.simulator.accounts import KINDS
from mpesa_integration.simulator.core import Core

WORDS = {
    "pending_form": {"4999", "error", "both"},
    "pull_zone": {"utc", "eat"},
    "drift": {"none", "old_keys", "repeated_key", "texts", "mixed"},
    "timeout_form": {"flat", "enveloped", "both"},
    "deposits_to": set(KINDS),
    "reversed_fate": {"Reversed", "Completed", "Cancelled", "Declined", "Expired"},
}
SECONDS = {"latency_s", "prompt_s", "prompt_lifetime_s", "result_s", "callback_s", "token_lifetime_s", "validation_s"}
SWITCHES = {"subscriber_lock", "duplicate_guard", "customer_limits", "validation", "masked", "plain_http"}
ROLES = {"b2c", "status", "reversal", "balance"}


def change(core: Core, order: Mapping[str, Any]) -> dict[str, Any]:
    """Sets what `order` names, all or nothing, and returns what holds now.

    Beside the settings: `float`, as in `{"utility": "5000"}`, what the accounts of the B2C shortcode hold from now on,
    as if they had always held it (no movement); `initiator_locked`. Raises `ValueError`.
    """
    for name, value in order.items():
        _check(name, value)
    for name, value in order.items():
        if name == "float":
            for kind, amount in value.items():
                core.accounts.balances[f"{core.b2c_shortcode}/{kind}"] = Decimal(str(amount))
        elif name == "initiator_locked":
            core.initiator.unlock()
            core.initiator.locked = value
        else:
            setattr(core, name, _value(name, value))
    return now(core)


def now(core: Core) -> dict[str, Any]:
    """The settings and the accounts, without secrets."""
    settings = {name: getattr(core, name) for name in sorted(WORDS.keys() | SECONDS | SWITCHES | {"rate_per_s"})}
    return settings | {
        "initiator_roles": sorted(core.initiator_roles),
        "initiator_locked": core.initiator.locked,
        "accounts": {name: f"{held:.2f}" for name, held in core.accounts.balances.items()},
    }


def _check(name: str, value: Any) -> None:
    match name:
        case "float":
            good = isinstance(value, dict) and value.keys() <= set(KINDS) and all(map(_is_number, value.values()))
        case "initiator_locked":
            good = isinstance(value, bool)
        case "initiator_roles":
            good = isinstance(value, list) and set(value) <= ROLES
        case "rate_per_s":
            good = value is None or (type(value) is int and value > 0)
        case _ if name in WORDS:
            good = isinstance(value, str) and value in WORDS[name]
        case _ if name in SECONDS:
            good = not isinstance(value, str) and _is_number(value)
        case _ if name in SWITCHES:
            good = isinstance(value, bool)
        case _:
            raise ValueError(f"no such setting: {name}")
    if not good:
        raise ValueError(f"not a value for {name}")


def _is_number(value: Any) -> bool:
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return False
    return not isinstance(value, bool) and number.is_finite() and number >= 0


def _value(name: str, value: Any) -> Any:
    if name in SECONDS:
        return float(value)
    return frozenset(value) if name == "initiator_roles" else value
