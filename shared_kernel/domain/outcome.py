"""What became of a call to a provider, as values: the type checker sees to it that *unknown* is never forgotten.

`answer` is the provider's raw answer; it may hold personal data, is stored encrypted, and is kept out of `repr`.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from shared_kernel.domain.money import Money


@dataclass(frozen=True, slots=True)
class Done:
    """It took effect; `reference` is the provider's own id of it (a Deriv transaction id, an M-Pesa receipt, may
    be empty).
    """

    reference: str
    answer: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took it and tells its end later.

    `references` are the provider's ids for it, by the provider's names.
    """

    references: dict[str, str] = field(default_factory=dict, repr=False)
    answer: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """It has not taken effect and never will; `code` is the provider's, in full; `reason` ours, for the customer's
    words.
    """

    code: str
    reason: str = ""
    answer: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have taken effect: ask, never repeat. `code` says why it is not known (`timeout`, a provider's code)."""

    code: str
    answer: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NotSent:
    """It surely had no effect and the same reference may go again, not before `retry_after_s`.

    For what never left (not connected, `send_before` passed) and for refusals that wait (token, rate, quota, float low,
    daily cap); `alert` asks for a person's eye meanwhile.
    """

    code: str
    retry_after_s: int = 0
    alert: bool = False
    answer: str = field(default="", repr=False)


Outcome: TypeAlias = Done | Accepted | Refused | Unknown | NotSent


@dataclass(frozen=True, slots=True)
class Found:
    """The provider's own book shows it:
    `references` are the provider's transaction ids (more than one is a double booking).
    """

    references: tuple[str, ...]
    amounts: tuple[Money, ...] = ()
    reverted: bool = False  # it was there, and the provider took it back


@dataclass(frozen=True, slots=True)
class Absent:
    """The book was read and does not show it.

    `proven` only if the book was read from before the sending up to now without a gap (on Deriv v3: after a clean
    log-in, an unbroken chain of balances that ends at the current balance). When it was asked decides what the
    absence is worth. `repeatable`: the provider knows the request by our own key, so that the very same one may go
    again without harm (Deriv's REST).
    """

    proven: bool
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """By the provider's own word it was not made and never will be; `code` is that word."""

    code: str


@dataclass(frozen=True, slots=True)
class Pending:
    """The provider has it and has not decided."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The book could not be read; `code` says why. Says nothing about the money."""

    code: str


Lookup: TypeAlias = Found | Absent | Dead | Pending | Unreadable
