"""The v3 calls that the simulator knows: fields, scopes, budgets, as strict as the gateway. Source: Deriv contract."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

TRANSFER_ERROR = "PaymentAgentTransferError"
Check: TypeAlias = Callable[[Any], bool]
STREAMS = {"balance", "transaction", "website_status", "cashier_payments", "proposal", "ticks", "candles"}
SENSITIVE = {"authorize", "tokens", "verification_code"}


class Refusal(Exception):
    """Deriv says no: an error code and its text."""

    def __init__(self, message: str, code: str = TRANSFER_ERROR, **details: Any) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message}
        if details:
            self.error["details"] = details


def whole(*allowed: int) -> Check:
    """An integer, one of `allowed` when any are given."""
    return lambda value: type(value) is int and (not allowed or value in allowed)


def between(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | Decimal)


def limit(value: Any) -> bool:
    return number(value) and 0 <= value <= 999


def text(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def one_of(*allowed: str) -> Check:
    return lambda value: isinstance(value, str) and value in allowed


def streams(value: Any) -> bool:
    return all(isinstance(name, str) and name in STREAMS for name in (value if isinstance(value, list) else [value]))


def url_parameters(value: Any) -> bool:
    """`verify_email`'s, as far as they concern payment agents."""
    return isinstance(value, dict) and all(
        key in URL_PARAMETERS and URL_PARAMETERS[key](given) for key, given in value.items()
    )


LOGIN_ID = text(r"[A-Za-z]+[0-9]+")
URL_PARAMETERS: dict[str, Check] = {
    "pa_amount": number,
    "pa_currency": text(r"[a-zA-Z0-9]{2,20}"),
    "pa_loginid": LOGIN_ID,
    "pa_remarks": text(r"[0-9A-Za-z .,'-]{0,100}"),
    "redirect_to": whole(),
}
COMMON: dict[str, Check] = {"passthrough": lambda value: isinstance(value, dict), "req_id": whole()}


@dataclass(frozen=True)
class Spec:
    """A call's fields, which of them it needs, the scopes of which one is enough (None: no login), its budget."""

    fields: Mapping[str, Check]
    required: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    budget: str = "general"


PURPOSES = (
    "account_opening", "account_verification", "reset_password", "paymentagent_withdraw", "payment_withdraw",
    "trading_platform_dxtrade_password_reset", "trading_platform_mt5_password_reset",
    "trading_platform_investor_password_reset", "request_email", "phone_number_verification",
)  # fmt: skip
READ = frozenset({"read", "trading_information"})
EPOCH = between(0, 9_999_999_999)
SPECS: dict[str, Spec] = {
    "authorize": Spec({"authorize": text(r"[\w\-]{1,128}"), "add_to_login_history": whole(0, 1)}),
    "balance": Spec(
        {
            "balance": whole(1),
            "account": text(r"(current|all|[A-Z]{2,4}[0-9]{1,10})"),
            "subscribe": whole(0, 1),
            "loginid": LOGIN_ID,
        },
        scopes=READ,
    ),
    "statement": Spec(
        {
            "statement": whole(1),
            "action_type": one_of(
                "buy", "sell", "deposit", "withdrawal", "escrow", "adjustment", "virtual_credit", "transfer"
            ),
            "date_from": EPOCH,
            "date_to": EPOCH,
            "description": whole(0, 1),
            "limit": limit,
            "offset": between(0, 10**12),
            "loginid": LOGIN_ID,
        },
        scopes=READ,
        budget="statement",
    ),
    "paymentagent_transfer": Spec(
        {
            "paymentagent_transfer": whole(1),
            "amount": number,
            "currency": text(r"[a-zA-Z0-9]{2,20}"),
            "transfer_to": LOGIN_ID,
            "description": text(r"[0-9A-Za-z .,'-]{0,250}"),
            "dry_run": whole(0, 1),
            "loginid": LOGIN_ID,
        },
        required=frozenset({"amount", "currency", "transfer_to"}),
        scopes=frozenset({"payments"}),
    ),
    "paymentagent_withdraw": Spec(
        {
            "paymentagent_withdraw": whole(1),
            "amount": number,
            "currency": text(r"[a-zA-Z0-9]{2,20}"),
            "paymentagent_loginid": LOGIN_ID,
            "verification_code": text(r"\w{8,128}"),
            "description": text(r"[0-9A-Za-z .,'-]{0,250}"),
            "dry_run": whole(0, 1),
            "loginid": LOGIN_ID,
        },
        required=frozenset({"amount", "currency", "paymentagent_loginid", "verification_code"}),
        scopes=frozenset({"payments"}),
    ),
    "paymentagent_withdraw_justification": Spec(
        {
            "paymentagent_withdraw_justification": whole(1),
            "message": lambda value: isinstance(value, str) and 1 <= len(value) <= 500,
            "loginid": LOGIN_ID,
        },
        scopes=frozenset({"payments"}),
    ),
    "paymentagent_list": Spec(
        {"paymentagent_list": text(r"\w\w"), "currency": text(r"[a-zA-Z0-9]{2,20}"), "loginid": LOGIN_ID}
    ),
    "verify_email": Spec(
        {
            "verify_email": text(r"[a-zA-Z0-9_.+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,63}"),
            "type": one_of(*PURPOSES),
            "url_parameters": url_parameters,
            "loginid": LOGIN_ID,
        },
        required=frozenset({"type"}),
        budget="verify_email",
    ),
    "transaction": Spec(
        {"transaction": whole(1), "subscribe": whole(1), "loginid": LOGIN_ID},
        required=frozenset({"subscribe"}),
        scopes=READ,
    ),
    "ping": Spec({"ping": whole(1)}, budget=""),
    "time": Spec({"time": whole(1)}, budget=""),
    "website_status": Spec({"website_status": whole(1), "subscribe": whole(0, 1)}),
    "forget": Spec({"forget": text(r"[\w-]{32,128}")}),
    "forget_all": Spec({"forget_all": streams}),
    "logout": Spec({"logout": whole(1), "loginid": LOGIN_ID}),
}


def call_of(request: Mapping[str, Any]) -> str:
    """The call that a request names, or an empty text."""
    return next((key for key in request if key in SPECS and key not in {"description"}), "")


def validate(call: str, request: Mapping[str, Any]) -> None:
    """Raises `Refusal` (`InputValidationFailed`) with what is wrong by field, as the gateway does."""
    spec = SPECS[call]
    wrong: dict[str, str] = {}
    for key, value in request.items():
        check = spec.fields.get(key) or COMMON.get(key)
        if check is None:
            wrong[key] = "Properties not allowed."
        elif not check(value):
            wrong[key] = "Invalid value."
    wrong |= dict.fromkeys(spec.required - request.keys(), "Missing property.")
    if wrong:
        raise Refusal(f"Input validation failed: {', '.join(sorted(wrong))}", "InputValidationFailed", **wrong)


BUDGETS = {"general": (180, 14_400), "statement": (25, 1_500), "verify_email": (10, 60)}  # a minute, an hour


@dataclass
class Budgets:
    """Calls a minute and an hour for each login (or connection), by kind; None switches them off."""

    clock: Callable[[], datetime]
    limits: dict[str, tuple[int, int]] | None = field(default_factory=lambda: dict(BUDGETS))
    spent: dict[tuple[str, str], list[datetime]] = field(default_factory=dict)
    refused: int = 0

    def spend(self, who: str, call: str) -> None:
        """Raises `Refusal` (`RateLimit`) when the budget is used up."""
        budget = SPECS[call].budget
        if self.limits is None or budget not in self.limits:
            return
        now, (minutely, hourly) = self.clock(), self.limits[budget]
        spent = self.spent.setdefault((who, budget), [])
        while spent and now - spent[0] > timedelta(hours=1):
            spent.pop(0)
        minute_ago = now - timedelta(minutes=1)
        if len(spent) >= hourly or (len(spent) >= minutely and spent[-minutely] > minute_ago):
            self.refused += 1
            raise Refusal(f"You have reached the rate limit for {call}.", "RateLimit")
        spent.append(now)
