"""Deposits over real processes that are killed: MariaDB, Redis, workers, and providers that lie."""

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.journeys.conftest import with_crash
from tests.journeys.world import World, raw

pytestmark = pytest.mark.timeout(600)
POINTS = range(1, 16)  # a deposit passes fourteen


def test_a_deposit_goes_from_rest_to_the_ledger(world: World) -> None:
    [person] = world.people(1)

    id = world.deposit(person)

    assert world.wait_for_ends([id]) == {id: "COMPLETED"}
    assert world.entries_of(id) == 5
    world.books_agree()


def test_a_callback_fifty_times_at_once_gives_one_set_of_entries(world: World) -> None:
    [person] = world.people(1)
    world.stack.control("mpesa", "faults", {"call": "stk_push", "fault": "duplicate_callback", "times": 50, "count": 1})

    id = world.deposit(person)
    world.wait_for_ends([id])

    def arrived() -> bool:
        [(count,)] = world.rows(
            "SELECT SUM(c.times) FROM mpesa_callbacks c JOIN mpesa_requests r ON r.id = c.request_id "
            "WHERE r.transaction_id = %s",
            raw(id),
        )
        return int(count or 0) >= 50

    world.wait(arrived, "the callbacks did not all arrive", 60)
    assert world.status(id) == "COMPLETED"
    assert world.entries_of(id) == 5
    world.books_agree()


def test_fifty_equal_requests_at_once_make_one_deposit(world: World) -> None:
    [person] = world.people(1)

    def ask(_: int) -> httpx.Response:
        return world.post(person, "deposits", {"quote_id": person["quote"]}, {"Idempotency-Key": "the-same-key"})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    again = ask(0)

    assert {answer.status_code for answer in answers} <= {202, 409}
    first = {json.dumps(answer.json()) for answer in (*answers, again) if answer.status_code == 202}
    assert len(first) == 1
    assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"idempotency_in_flight"}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(world.rows("SELECT id FROM transactions WHERE quote_id = %s", raw(person["quote"]))) == 1
    other = world.post(person, "deposits", {"quote_id": person["id"]}, {"Idempotency-Key": "the-same-key"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    id = again.json()["transaction"]["id"]
    assert world.wait_for_ends([id]) == {id: "COMPLETED"}
    world.books_agree()


def test_a_worker_killed_between_any_two_steps_leaves_every_deposit_to_its_right_end(world: World) -> None:
    people = world.people(len(POINTS))
    ids = []
    for point, person in zip(POINTS, people, strict=True):
        world.stack.kill("worker0") if "worker0" in world.stack.processes else None
        with_crash(world.stack, point)
        ids.append(world.deposit(person))
        process = world.stack.processes["worker0"]
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # it had fewer points to pass: it lives, and its deposit ends
            assert process.poll() is None
        else:
            world.stack.processes.pop("worker0")
    if "worker0" in world.stack.processes:
        world.stack.kill("worker0")
    world.stack.start_worker(0)

    ends = world.wait_for_ends(ids, most_s=300)

    assert set(ends.values()) <= {"COMPLETED", "FAILED"}, ends
    failed = [id for id, status in ends.items() if status == "FAILED"]
    for id in failed:  # only where the prompt never left: how many these are is up to how steps and kills fell together
        assert world.entries_of(id) == 0
        assert not accepted_by_mpesa(world, id)
    assert "COMPLETED" in ends.values()
    world.books_agree()


def accepted_by_mpesa(world: World, id: str) -> list[tuple[Any, ...]]:
    return world.rows(
        "SELECT id FROM mpesa_requests WHERE transaction_id = %s AND merchant_request_id <> ''",
        raw(id),
    )


def test_redis_flushed_while_deposits_run_loses_none(world: World) -> None:
    people = world.people(12)

    ids = [world.deposit(person) for person in people]
    world.stack.kill("worker0")
    world.flush_redis()
    world.stack.start_worker(0)
    world.wait(lambda: any(world.status(id) == "COMPLETED" for id in ids), "nothing goes on")
    world.flush_redis()

    assert set(world.wait_for_ends(ids).values()) == {"COMPLETED"}
    world.books_agree()


def test_mariadb_killed_and_started_again_while_deposits_run_loses_none(world: World) -> None:
    people = world.people(12, prompt_s=1.0)

    ids = [world.deposit(person) for person in people]
    world.mariadb.stop(signal.SIGKILL)
    world.mariadb.start()

    ends = world.wait_for_ends(ids)
    assert set(ends.values()) == {"COMPLETED"}, ends
    world.books_agree()


def test_redis_killed_does_not_hinder_a_request_and_deposits_end_when_it_is_back(world: World) -> None:
    people = world.people(3)
    world.redis.stop(signal.SIGKILL)

    ids = [world.deposit(person) for person in people]
    world.redis.start()

    assert set(world.wait_for_ends(ids).values()) == {"COMPLETED"}
    world.books_agree()


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("mpesa", {"call": "stk_push", "fault": "lost_answer_after_effect", "probability": 0.2}),
    ("mpesa", {"call": "stk_push", "fault": "http_500_after", "probability": 0.1}),
    ("mpesa", {"call": "stk_push", "fault": "lost_callback", "probability": 0.3}),
    ("mpesa", {"call": "stk_push", "fault": "duplicate_callback", "probability": 0.3}),
    ("mpesa", {"call": "stk_push", "fault": "callback_before_answer", "probability": 0.2}),
    ("mpesa", {"call": "stk_push", "fault": "forged_failure", "probability": 0.2}),
    ("mpesa", {"call": "stk_query", "fault": "http_500_before", "probability": 0.2}),
    ("mpesa", {"call": "stk_push", "fault": "token_superseded", "probability": 0.1}),
    ("deriv_ws", {"call": "paymentagent_transfer", "fault": "drop_socket_after_effect", "probability": 0.2}),
    ("deriv_ws", {"call": "paymentagent_transfer", "fault": "drop_socket_before_effect", "probability": 0.1}),
    ("deriv_ws", {"call": "paymentagent_transfer", "fault": "wrong_response_after", "probability": 0.1}),
]


def test_providers_that_drop_repeat_and_lie_neither_lose_nor_double_money(world: World) -> None:
    people = world.people(30)
    for provider, fault in FAULTS:
        world.stack.control(provider, "faults", fault)

    ids = [world.deposit(person) for person in people]
    world.wait(lambda: sum(world.status(id) in {"COMPLETED", "FAILED"} for id in ids) > 20, "nothing goes on", 180)
    world.calm()
    ends = world.wait_for_ends(ids, most_s=400)

    assert set(ends.values()) <= {"COMPLETED", "FAILED"}, ends
    world.books_agree()
