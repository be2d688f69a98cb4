"""What is broken when: drawn from the seed alone, so that the same seed breaks the same things at the same seconds.

How processes and blows fall together is the machine's own chance. Left out is what only reconciliation, which is not
built yet, can bring into the ledger: what a provider takes back later, v3's double booking, and a payout of another
amount (Transaction Status proves only what agrees, so such a payout waits before a person, unposted).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, TypeAlias

Fault: TypeAlias = tuple[str, Mapping[str, Any]]
"""A provider's control side, and what is armed there."""


class Kind(StrEnum):
    """A blow."""

    KILL_API = "kill -9 of the API"
    KILL_WORKER = "kill -9 of a worker"
    KILL_BEAT = "kill -9 of beat"
    FREEZE_WORKER = "a worker sleeps"
    FLUSH_REDIS = "Redis flushed"
    KILL_REDIS = "kill -9 of Redis"
    KILL_MARIADB = "kill -9 of MariaDB"
    RESTART_MARIADB = "MariaDB restarted"
    MPESA_DOWN = "M-Pesa down"
    DERIV_DOWN = "Deriv down"
    PROVIDERS_HANG = "both providers hang"
    MPESA_CLOCK = "M-Pesa's clock ahead"
    DERIV_CLOCK = "Deriv's clock ahead"


@dataclass(frozen=True, slots=True)
class Blow:
    """`at_s` after the beginning; `for_s` it lasts (a clock: is put ahead by); `number` says which worker."""

    at_s: float
    kind: Kind
    for_s: float
    number: int = 0


# How long each lasts, at least and at most. Hanging stays under the time that Deriv may book late at this run's scale:
# beyond it v3 can't be helped (docs/architecture.md, known limit). Clocks stay inside what the adapters allow for.
LASTS: dict[Kind, tuple[float, float]] = {
    Kind.KILL_API: (0.5, 3),
    Kind.KILL_WORKER: (0.2, 4),
    Kind.KILL_BEAT: (1, 8),
    Kind.FREEZE_WORKER: (3, 14),
    Kind.FLUSH_REDIS: (0, 0),
    Kind.KILL_REDIS: (1, 5),
    Kind.KILL_MARIADB: (0, 2),
    Kind.RESTART_MARIADB: (0, 2),
    Kind.MPESA_DOWN: (5, 12),
    Kind.DERIV_DOWN: (5, 12),
    Kind.PROVIDERS_HANG: (1, 4),
    Kind.MPESA_CLOCK: (5, 10),
    Kind.DERIV_CLOCK: (5, 10),
}
MOST_CLOCK_S = 90  # of each provider, in one run
MINUTE = (Kind.MPESA_DOWN, Kind.DERIV_DOWN)  # down for a whole minute once, if the run is long enough
GAP_S = (2.0, 6.0)


def blows(seed: int, seconds: float, workers: int) -> list[Blow]:
    """Every kind in turn, shuffled anew each round, one after the other, until `seconds` are over."""
    random = Random(f"blows {seed}")
    planned: list[Blow] = []
    deck: list[Kind] = []
    at, clocks = 3.0, {Kind.MPESA_CLOCK: 0.0, Kind.DERIV_CLOCK: 0.0}
    long_ones = list(MINUTE) if seconds >= 300 else []
    while True:
        deck = deck or random.sample(list(Kind), len(Kind))
        kind = deck.pop()
        lasts = random.uniform(*LASTS[kind])
        if kind in long_ones:
            long_ones.remove(kind)
            lasts = 60.0
        if kind in clocks:
            clocks[kind] += lasts
            if clocks[kind] > MOST_CLOCK_S:
                continue
        takes = 0.0 if kind in clocks else lasts
        if at + takes > seconds:
            return planned
        planned.append(Blow(round(at, 1), kind, round(lasts, 1), random.randrange(workers)))
        at += takes + random.uniform(*GAP_S)


# Each with the probability around which it is drawn.
FAULTS: tuple[tuple[str, float, Mapping[str, Any]], ...] = (
    ("mpesa", 0.05, {"call": "stk_push", "fault": "lost_answer_before_effect"}),
    ("mpesa", 0.15, {"call": "stk_push", "fault": "lost_answer_after_effect"}),
    ("mpesa", 0.10, {"call": "stk_push", "fault": "http_500_after"}),
    ("mpesa", 0.20, {"call": "stk_push", "fault": "lost_callback"}),
    ("mpesa", 0.20, {"call": "stk_push", "fault": "duplicate_callback", "times": 5}),
    ("mpesa", 0.15, {"call": "stk_push", "fault": "late_callback", "after_s": 20}),
    ("mpesa", 0.15, {"call": "stk_push", "fault": "callback_before_answer"}),
    ("mpesa", 0.10, {"call": "stk_push", "fault": "out_of_order"}),
    ("mpesa", 0.10, {"call": "stk_push", "fault": "forged_failure"}),
    ("mpesa", 0.05, {"call": "stk_push", "fault": "forged_success"}),
    ("mpesa", 0.15, {"call": "stk_query", "fault": "http_500_before"}),
    ("mpesa", 0.10, {"call": "stk_query", "fault": "pending_long", "after_s": 5}),
    ("mpesa", 0.05, {"call": "pull", "fault": "lost_answer_before_effect"}),
    ("mpesa", 0.05, {"call": "*", "fault": "rate_limited"}),
    ("mpesa", 0.03, {"call": "*", "fault": "token_superseded"}),
    ("mpesa", 0.03, {"call": "b2c", "fault": "lost_answer_before_effect"}),
    ("mpesa", 0.15, {"call": "b2c", "fault": "lost_answer_after_effect"}),
    ("mpesa", 0.10, {"call": "b2c", "fault": "http_500_after"}),
    ("mpesa", 0.20, {"call": "b2c", "fault": "lost_callback"}),
    ("mpesa", 0.20, {"call": "b2c", "fault": "duplicate_callback", "times": 5}),
    ("mpesa", 0.10, {"call": "b2c", "fault": "late_callback", "after_s": 20}),
    ("mpesa", 0.15, {"call": "b2c", "fault": "callback_before_answer"}),
    ("mpesa", 0.10, {"call": "b2c", "fault": "out_of_order"}),
    ("mpesa", 0.15, {"call": "b2c", "fault": "forged_failure"}),
    ("mpesa", 0.05, {"call": "b2c", "fault": "forged_failure", "when": "after"}),
    ("mpesa", 0.04, {"call": "b2c", "fault": "forged_success"}),
    ("mpesa", 0.05, {"call": "b2c", "fault": "timeout_then_success", "after_s": 5}),
    ("mpesa", 0.05, {"call": "b2c", "fault": "failure_then_late_success", "after_s": 5}),
    ("mpesa", 0.10, {"call": "b2c", "fault": "pending_long", "after_s": 10}),
    ("mpesa", 0.03, {"call": "b2c", "fault": "wrong_amount", "amount": 777, "in_books": True}),
    ("mpesa", 0.15, {"call": "status", "fault": "lost_callback"}),
    ("mpesa", 0.10, {"call": "status", "fault": "forged_failure"}),
    ("mpesa", 0.10, {"call": "status", "fault": "http_500_before"}),
    ("mpesa", 0.15, {"call": "reversal", "fault": "lost_answer_after_effect"}),
    ("deriv_ws", 0.10, {"call": "transfer", "fault": "drop_socket_before_effect"}),
    ("deriv_ws", 0.15, {"call": "transfer", "fault": "drop_socket_after_effect"}),
    ("deriv_ws", 0.05, {"call": "transfer", "fault": "lost_answer_after_effect"}),
    ("deriv_ws", 0.10, {"call": "transfer", "fault": "wrong_response_after"}),
    ("deriv_ws", 0.05, {"call": "transfer", "fault": "late_commit", "after_s": 3}),
    ("deriv_ws", 0.05, {"call": "transfer", "fault": "rate_limited"}),
    ("deriv_ws", 0.10, {"call": "transfer", "fault": "pending_long", "after_s": 8, "platform": "rest"}),
    ("deriv_ws", 0.05, {"call": "transfer", "fault": "rejected", "platform": "rest"}),
    ("deriv_ws", 0.05, {"call": "withdraw", "fault": "drop_socket_before_effect"}),
    ("deriv_ws", 0.15, {"call": "withdraw", "fault": "drop_socket_after_effect"}),
    ("deriv_ws", 0.10, {"call": "withdraw", "fault": "request_timeout_after"}),
    ("deriv_ws", 0.05, {"call": "withdraw", "fault": "late_commit", "after_s": 3}),
    ("deriv_ws", 0.10, {"call": "withdraw", "fault": "pending_long", "after_s": 8, "platform": "rest"}),
    ("deriv_ws", 0.03, {"call": "withdraw", "fault": "rejected", "platform": "rest"}),
    ("deriv_ws", 0.10, {"call": "status", "fault": "http_500_before", "platform": "rest"}),
    ("deriv_ws", 0.10, {"call": "statement", "fault": "request_timeout_before"}),
)


def faults(seed: int, round: int) -> list[Fault]:
    """What is armed at both providers in that round: half of the list, each more or less often than usual."""
    random = Random(f"faults {seed} {round}")
    chosen = [fault for fault in FAULTS if random.random() < 0.5]
    return [
        (provider, {**order, "probability": round_down(usual * random.uniform(0.5, 2))})
        for provider, usual, order in chosen
    ]


def round_down(probability: float) -> float:
    """To three digits, for the timeline's sake."""
    return int(probability * 1000) / 1000
