"""What goes wrong, how often: drawn once for a run, then diced for at each point. And the network in between."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from shared_kernel.domain.outcome import NotSent, Unknown
from tests.simulation.books import Books
from tests.simulation.schedule import Schedule

T = TypeVar("T")
ANSWER_S = 30.0  # longest that a caller waits
CALM = 0.0


@dataclass
class Weather:
    """Chances, each for one occasion of its kind. All of them are zero once faults are off."""

    crash: float  # a process dies at a commit or a call boundary
    freeze: float  # a process sleeps before it sends, or before it stores an answer
    database: float  # a commit fails and nothing was kept
    commit_unknown: float  # a commit holds, and its answer is lost
    not_connected: float
    lost: float  # the request never arrives, and no answer comes
    silent: float  # it is carried out, and the answer is lost
    late: float  # the same, only later
    slow: float  # the answer takes long
    waits: float  # the provider refuses for its rate, its token, its float: nothing was done
    refuses: float  # a request is refused for good at the door
    declines: float  # M-Pesa takes a payout and then does not make it
    no_credit: float  # Deriv does not let the login be credited
    no_reversal: float  # M-Pesa does not reverse
    unreadable: float  # a book or a status can't be read
    lag: float  # a book shows an entry only later
    callback_lost: float
    callback_again: float
    callback_late: float
    forged: float
    event_lost: float
    event_again: float
    event_late: float
    pending: float  # accepted, decided much later
    taken_back: float  # Deriv makes an entry and reverts it before anybody has seen it
    other_amount: float  # M-Pesa pays another amount than it was told

    CHOICES = {
        "crash": (0.0, 0.004, 0.015, 0.04),
        "freeze": (0.0, 0.004, 0.02, 0.05),
        "database": (0.0, 0.0, 0.004, 0.015),
        "commit_unknown": (0.0, 0.0, 0.01, 0.05),
        "not_connected": (0.0, 0.02, 0.1),
        "lost": (0.0, 0.02, 0.08),
        "silent": (0.0, 0.03, 0.12),
        "late": (0.0, 0.03, 0.12),
        "slow": (0.0, 0.05, 0.2),
        "waits": (0.0, 0.05, 0.25),
        "refuses": (0.0, 0.03, 0.1),
        "declines": (0.02, 0.1, 0.4),
        "no_credit": (0.02, 0.1, 0.5),
        "no_reversal": (0.0, 0.2, 0.6),
        "unreadable": (0.0, 0.05, 0.2),
        "lag": (0.0, 0.1, 0.4),
        "callback_lost": (0.0, 0.1, 0.4),
        "callback_again": (0.0, 0.1, 0.4),
        "callback_late": (0.0, 0.1, 0.3),
        "forged": (0.0, 0.05, 0.2),
        "event_lost": (0.0, 0.1, 1.0),
        "event_again": (0.0, 0.1, 0.3),
        "event_late": (0.0, 0.1, 0.3),
        "pending": (0.0, 0.1, 0.3),
        "taken_back": (0.0, 0.02, 0.1),
        "other_amount": (0.0, 0.0, 0.03),
    }

    @classmethod
    def drawn(cls, random: random.Random) -> "Weather":
        """One in eight runs is fair."""
        is_fair = random.random() < 0.125
        return cls(**{f.name: CALM if is_fair else random.choice(cls.CHOICES[f.name]) for f in fields(cls)})

    def clear(self) -> None:
        """Faults are off."""
        for each in fields(self):
            setattr(self, each.name, CALM)


class Dice:
    """The one source of chance of a run, and the count of what it let happen."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.weather = Weather.drawn(self.random)
        self.happened: Counter[str] = Counter()

    def happens(self, what: str, times: float = 1.0) -> bool:
        """Whether this fault happens now; `times` as likely as it is."""
        of: float = getattr(self.weather, what)
        if of and self.random.random() < of * times:
            self.happened[what] += 1
            return True
        return False

    def chance(self, of: float) -> bool:
        return self.random.random() < of

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.random.random()

    def pause(self) -> float:
        """How long a frozen process sleeps: mostly a while, sometimes longer than anybody waits."""
        return self.between(1, 30) if self.chance(0.4) else self.between(30, 5000)


@dataclass
class Network:
    """Carries calls to a provider, late or never, and answers back, late or never."""

    schedule: Schedule
    dice: Dice
    books: Books
    is_inside: Callable[[], bool]  # a unit of work is open
    written: Callable[[Any], None] = lambda request: None
    lost: Callable[[Any], None] = lambda request: None

    def send(self, request: Any, arrive: Callable[[], Any], *, give_up_at: float, most_late_s: float) -> Any:
        """A call that moves money or asks for a callback: what came of it, as its sender learns it.

        The sender looks at the clock directly before it writes; what is written arrives whatever becomes of the sender.
        """
        self._leave()
        if self.schedule.monotonic() >= give_up_at:
            return NotSent("send_before_passed")
        if self.dice.happens("not_connected"):
            return NotSent("not_connected", 5)
        if self.dice.happens("waits"):
            self.schedule.sleep(0.2)
            return NotSent("rate", self.dice.random.choice((1, 5, 60)))
        self.written(request)
        if self.dice.happens("lost"):
            self.lost(request)
            return self._unanswered()
        self.books.taken(request.id)
        if self.dice.happens("late"):
            self.schedule.after(self.dice.between(1, most_late_s), arrive)
            return self._unanswered()
        answer: list[Any] = []
        self.schedule.after(self.dice.between(0.02, 0.5), lambda: answer.append(arrive()))
        if self.dice.happens("silent"):
            return self._unanswered()
        self._travel()
        return answer[0]

    def ask(self, read: Callable[[], T]) -> T | None:
        """A read: what the provider says at that moment; None when it can't be read."""
        self._leave()
        if self.dice.happens("unreadable"):
            self.schedule.sleep(self.dice.between(0.1, ANSWER_S))
            return None
        self._travel()
        said = read()
        self.schedule.sleep(self.dice.between(0.02, 0.3))
        return said

    def _leave(self) -> None:
        assert not self.is_inside(), "a provider was called inside a unit of work"
        process = self.schedule.current.process
        if self.dice.happens("freeze"):
            process.frozen_until = self.schedule.now + self.dice.pause()
            self.schedule.sleep(0.0)

    def _travel(self) -> None:
        """There, and the way back."""
        slow = self.dice.happens("slow")
        self.schedule.sleep(self.dice.between(3, ANSWER_S) if slow else self.dice.between(0.5, 1.0))

    def _unanswered(self) -> Unknown:
        self.schedule.sleep(ANSWER_S)
        return Unknown("timeout")
