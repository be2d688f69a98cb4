"""The simulated M-Pesa's settings and what all of its products share: clock, books, faults, chance, ids."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from random import Random

from mpesa_integration.simulator.accounts import Accounts
from mpesa_integration.simulator.callbacks import Callbacks
from mpesa_integration.simulator.customers import Customers
from mpesa_integration.simulator.initiator import Initiator
from shared_kernel.simulator import Books, Faults, SimulatedClock

EAT = timezone(timedelta(hours=3))
BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# The calls that faults can be armed for. `c2b`: registering and simulating, and each confirmation.
CALLS = frozenset({"token", "stk_push", "stk_query", "pull", "b2c", "status", "reversal", "balance", "c2b"})
# Faults, by where they strike; in brackets their options.
BEFORE = frozenset(  # on any call, before it took effect
    {
        "http_500_before",
        "lost_answer_before_effect",
        "rate_limited",  # [form: `spike`, `busy`, `quota`, `429`]
        "token_superseded",  # somebody else took a token with our key
        "waf_html",
        "waf_page",  # the same
        "answer_with",  # [body, status]
        "slow",  # [after_s]
    }
)
AFTER = frozenset({"http_500_after", "lost_answer_after_effect", "callback_before_answer"})  # once it took effect
ON_CALLBACK = frozenset(  # on STK callbacks, C2B confirmations and results
    {
        "duplicate_callback",  # [times]
        "late_callback",  # [after_s]
        "lost_callback",
        "out_of_order",  # the next one overtakes it; before a result comes a time-out notice [after_s: at most]
        "forged_failure",  # beside the true end [B2C: code, text, when: `before`, `after` + after_s; status: knows_ids]
        "forged_success",  # while it truly failed; a status: beside the true one [status: knows_ids]
        "wrong_amount",  # [amount, in_books]
        "reverted_later",  # M-Pesa takes an incoming payment back, and tells nobody [after_s]
    }
)
ON_RESULT = ON_CALLBACK | {  # on B2C, status, reversal and balance
    "pending_long",  # its end takes longer [after_s]; a status: it says that the payment is pending [fate]
    "queue_timeout",  # a time-out notice is all that is told [B2C: fate; `Completed` pays]
    "timeout_then_success",  # the notice, then the end [after_s]
    "failure_then_late_success",  # B2C: a failure is told, later paid [code, text, fate meanwhile, after_s]
    "result_with",  # this result, nothing moves [code, text; B2C: fate]
}
ON_QUERY = frozenset({"pending_long"})


@dataclass(kw_only=True)
class Settings:
    """What can be set. Times in seconds, money in KES.

    `prompt_s`: from the push to what the subscriber does; `prompt_lifetime_s`: until an ignored prompt ends;
    `result_s`: from an accepted B2C, status, reversal or balance request to its end; `callback_s`: from there to the
    callback. The provider's guards: `rate_per_s`, `subscriber_lock`, `duplicate_guard` (rule 17), `customer_limits`
    (wallet and day). `pending_form`: `4999`, `error`, or `both` in turn. `pull_zone`: what the Z in Pull's times stands
    for, `utc` or `eat`. `plain_http`: callback URLs may be http on this machine. `drift`: how results are spelt:
    `none` as the newest samples, `old_keys`, `repeated_key`, `texts`, or `mixed`. `timeout_form` of the time-out
    notice: `flat`, `enveloped`, or `both` in turn. `masked`: numbers in STK callbacks and results are masked.
    `deposits_to`: the sub-account that deposits reach. `reversed_fate`: what Transaction Status says of a payment that
    was reversed; the contract does not know (assumption). `initiator_roles`: what the initiator may do.
    """

    consumer_key: str = "demo-consumer-key"
    consumer_secret: str = "demo-consumer-secret"  # noqa: S105 - the demo's
    shortcode: str = "174379"
    passkey: str = "demo-passkey"
    b2c_shortcode: str = "600992"
    initiator_name: str = "testapi"
    initiator_password: str = "demo-initiator-password"  # noqa: S105 - the demo's
    initiator_roles: frozenset[str] = frozenset({"b2c", "status", "reversal", "balance"})
    utility_float: Decimal = Decimal(10_000_000)
    working_float: Decimal = Decimal(1_000_000)
    deposits_to: str = "utility"
    seed: int = 0
    start: datetime | None = None
    latency_s: float = 0.0
    prompt_s: float = 0.3
    prompt_lifetime_s: float = 60.0
    result_s: float = 0.3
    callback_s: float = 0.0
    token_lifetime_s: float = 3599
    rate_per_s: int | None = 20
    subscriber_lock: bool = True
    duplicate_guard: bool = True
    customer_limits: bool = True
    validation: bool = False
    validation_s: float = 8.0
    pending_form: str = "both"
    pull_zone: str = "utc"
    drift: str = "mixed"
    timeout_form: str = "both"
    masked: bool = False
    reversed_fate: str = "Reversed"
    plain_http: bool = True
    callback_workers: int = 16


@dataclass(kw_only=True)
class Core(Settings):
    """Settings and shared state. Books, faults and clock can be reached from a test in the same process."""

    faults: Faults = field(init=False)
    books: Books = field(init=False)
    clock: SimulatedClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock, self.books = SimulatedClock(self.start), Books()
        self.faults = Faults(
            calls=CALLS,
            known=BEFORE | AFTER | ON_RESULT | ON_QUERY,
            matchers=frozenset({"phone", "reference"}),
        )
        self.callbacks = Callbacks(self.callback_workers)
        self.accounts = Accounts(self.books, Customers())
        self.initiator = Initiator.with_test_key()
        self.resets = 0
        self.calls: dict[str, int] = {}

    def forget(self) -> None:
        """Begins again: chance, accounts, what was counted; the settings stay."""
        self.random, self.faults.random = Random(self.seed), Random(self.seed + 1)
        self.serial = self.random.randrange(36**4)
        self.calls.clear()
        self.accounts.forget()
        self.initiator.unlock()
        self.accounts.balances[f"{self.b2c_shortcode}/utility"] = Decimal(self.utility_float)
        self.accounts.balances[f"{self.b2c_shortcode}/working"] = Decimal(self.working_float)

    @property
    def customers(self) -> Customers:
        return self.accounts.customers

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Does it after a while, unless everything was forgotten meanwhile."""
        before = self.resets
        asyncio.get_running_loop().call_later(delay_s, lambda: act() if self.resets == before else None)

    def receipt(self, at: datetime) -> str:
        """A new receipt: year, month and day in its first letters, as M-Pesa makes them."""
        self.serial = (self.serial + 7919) % 36**7
        rest, serial = "", self.serial
        for _ in range(7):
            serial, digit = divmod(serial, 36)
            rest = BASE36[digit] + rest
        return self.receipt_prefix(at) + rest

    def receipt_prefix(self, at: datetime) -> str:
        """The letters for the day: with seven zeros the TransactionID of what is no transaction."""
        day = at.astimezone(EAT)
        year, month = chr(ord("K") + (day.year - 2016) % 16), "ABCDEFGHIJKL"[day.month - 1]
        return f"{year}{month}{'123456789ABCDEFGHIJKLMNOPQRSTUV'[day.day - 1]}"

    def shown_phone(self, phone: str) -> str:
        """As messages show it: plain, or masked since 2026."""
        return f"{phone[:4]} ***** {phone[-3:]}" if self.masked else phone

    def public_name(self, phone: str) -> str:
        """Number and name of a customer, as results show them."""
        return f"{self.shown_phone(phone)} - {self.customers.at(phone).name}"

    def conversation_id(self) -> str:
        """`AG_yyyyMMdd_` and twenty hex digits."""
        return f"AG_{self.clock().astimezone(EAT):%Y%m%d}_{self.random.getrandbits(80):020x}"

    def gateway_id(self) -> str:
        """The OriginatorConversationID of what brings none: made by the gateway."""
        return f"{self.random.randrange(1000, 30000)}-{self.random.randrange(10**6, 10**8)}-1"
