"""Customers who want their money: they ask until they have a definite answer, with the same Idempotency-Key."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from threading import Event, Lock
from typing import Any

import httpx

from tests.journeys.world import World, keyed

AGAIN = {409, 429, 500, 502, 503, 504}  # in flight, too soon, or something is broken: ask once more
PATIENCE_S = 300
DOLLARS = (5, 25)


@dataclass
class Customers:
    """Asks for payments over `seconds`, from many threads."""

    world: World
    seed: int
    is_over: Event
    accepted: dict[str, str] = field(default_factory=dict)  # the Transaction of each key
    refused: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    different: list[str] = field(default_factory=list)  # keys that were answered with two Transactions
    repeated: int = 0
    lock: Lock = field(default_factory=Lock)

    def run(self, depositing: list[dict[str, Any]], withdrawing: list[dict[str, Any]], seconds: float) -> None:
        """Returns once each has an answer, or has lost patience."""
        random = Random(f"customers {self.seed}")
        wishes = [("deposit", person) for person in depositing] + [("withdrawal", person) for person in withdrawing]
        random.shuffle(wishes)
        begins = time.monotonic()
        due = [begins + random.uniform(0, seconds) for _ in wishes]
        with ThreadPoolExecutor(24) as pool:
            for (wish, person), at in sorted(zip(wishes, due, strict=True), key=lambda one: one[1]):
                self.is_over.wait(max(0.0, at - time.monotonic()))
                if self.is_over.is_set():
                    break
                pool.submit(self._wants, wish, person, f"{wish}-{person['id']}", random.randrange(*DOLLARS))

    def _wants(self, wish: str, person: Mapping[str, Any], key: str, dollars: int) -> None:
        try:
            if wish == "deposit":
                self._ask(person, "deposits", {"quote_id": person["quote"]}, key)
                return
            asked = {"type": "withdrawal", "amount": {"amount": f"{dollars}.00", "currency": "USD"}}
            quote = self._insist(person, "quotes", asked, key)
            if quote is None:
                return
            ordered = {"quote_id": quote.json()["id"]}
            coded = self._insist(person, "withdrawals/verification", ordered, key)
            if coded is not None and self._steps_up(person, key):
                self._ask(person, "withdrawals", {**ordered, "verification_code": self.world.code(person)}, key)
        except Exception as error:  # a customer whose thread dies would go missing without a word
            self.unanswered[key] = f"{type(error).__name__}: {error}"
            raise

    def _steps_up(self, person: Mapping[str, Any], key: str) -> bool:
        """Whether the order will be let in. A code is good once, and its answer may get lost: then another one is."""
        for _ in range(3):  # codes in ten minutes
            if self._insist(person, "auth/step-up", {}, key) is None:
                return False
            try:
                answer = self.world.post(person, "auth/step-up", {"code": self.world.sms_code(person)})
            except httpx.TransportError:
                continue
            if answer.is_success:
                return True
        self.unanswered[key] = "auth/step-up: no code was taken"
        return False

    def _ask(self, person: Mapping[str, Any], path: str, body: Mapping[str, Any], key: str) -> None:
        answer = self._insist(person, path, body, key, keyed(key))
        if answer is None:
            return
        again = self._insist(person, path, body, key, keyed(key))  # a client that did not see its first answer
        ids = {one.json()["transaction"]["id"] for one in (answer, again) if one is not None}
        with self.lock:
            self.accepted[key] = min(ids)
            if len(ids) > 1:
                self.different.append(key)

    def _insist(
        self, person: Mapping[str, Any], path: str, body: Any, key: str, headers: Mapping[str, str] | None = None
    ) -> httpx.Response | None:
        """The answer, once it is one; None for a refusal or a customer who gave up."""
        until, last = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < until and not self.is_over.is_set():
            try:
                answer = self.world.post(person, path, body, headers)
            except httpx.TransportError as error:
                last = type(error).__name__
            else:
                if answer.is_success:
                    return answer
                last = f"{answer.status_code} {answer.text}"
                if answer.status_code not in AGAIN:
                    self.refused[key] = f"{path}: {last}"
                    return None
            self.repeated += 1
            self.is_over.wait(0.5)
        self.unanswered[key] = f"{path}: {last}"
        return None
