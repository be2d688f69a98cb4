"""Withdrawals over real processes that are killed: MariaDB, Redis, workers, and providers that lie."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.journeys.conftest import with_crash
from tests.journeys.world import FINAL, World, raw

pytestmark = pytest.mark.timeout(600)
POINTS = range(1, 27)  # a withdrawal passes twenty-five, each in a worker of its own
PAID = 1275  # shillings for ten dollars: what is asked of M-Pesa is floored
ENTRIES = {"debit": 1, "exchange": 4, "payout": 1, "fee": 1}


def customer(world: World, platform: str = "ws_v3", **at_mpesa: Any) -> dict[str, Any]:
    [person] = world.people(1, platform=platform, balance="50.00", at_mpesa=at_mpesa)
    return person


def movements(world: World, id: str) -> dict[str, int]:
    """How often M-Pesa paid this Transaction out, and Deriv moved money for it, by kind."""
    ours = [str(reference) for [reference] in world.rows(
        "SELECT reference FROM mpesa_requests WHERE transaction_id = %s "
        "UNION SELECT reference FROM deriv_transfers WHERE transaction_id = %s", raw(id), raw(id))]  # fmt: skip
    mpesa, deriv = world.provider_books()
    standing = [one for one in (*mpesa, *deriv) if one.get("status") != "reverted"]
    found = [one["kind"] for one in standing if any(reference in names(one) for reference in ours)]
    return {kind: found.count(kind) for kind in found}


def names(movement: dict[str, Any]) -> str:
    """All by which a movement may name what it is for; in a note our reference stands among other words."""
    return " ".join(str(movement.get(name, "")) for name in ("reference", "note", "request_id"))


@pytest.mark.parametrize("platform", ["ws_v3", "rest"])
def test_a_withdrawal_goes_from_rest_to_the_ledger(world: World, platform: str) -> None:
    person = customer(world, platform)

    id = world.withdrawal(person)

    assert world.wait_for_ends([id]) == {id: "COMPLETED"}
    world.books_agree()
    assert world.entries_of(id) == sum(ENTRIES.values())
    assert movements(world, id) == {"withdrawal": 1, "b2c": 1}


def test_a_phone_that_cannot_be_paid_gets_its_dollars_back(world: World) -> None:
    for platform in ("ws_v3", "rest"):
        person = customer(world, platform, receives="unregistered")

        id = world.withdrawal(person)

        assert world.wait_for_ends([id]) == {id: "REVERSED"}
        assert movements(world, id) == {"withdrawal": 1, "transfer": 1}
    world.books_agree()


def test_a_result_fifty_times_at_once_gives_one_set_of_entries(world: World) -> None:
    person = customer(world)
    world.arm("mpesa", call="b2c", fault="duplicate_callback", times=50, count=1)

    id = world.withdrawal(person)
    world.wait_for_ends([id])

    def arrived() -> bool:
        [(count,)] = world.rows(
            "SELECT SUM(c.times) FROM mpesa_callbacks c JOIN mpesa_requests r ON r.id = c.request_id "
            "WHERE r.transaction_id = %s AND r.leg = 'b2c_payout'",
            raw(id),
        )
        return int(count or 0) >= 50

    world.wait(arrived, "the results did not all arrive", 60)
    world.books_agree()
    assert world.status(id) == "COMPLETED"
    assert world.entries_of(id) == sum(ENTRIES.values())


def test_fifty_equal_requests_at_once_make_one_withdrawal(world: World) -> None:
    person = customer(world)
    asked = {"type": "withdrawal", "amount": {"amount": "10.00", "currency": "USD"}}
    quote = world.post(person, "quotes", asked).json()["id"]
    assert world.post(person, "withdrawals/verification", {"quote_id": quote}).status_code == 202
    world.steps_up(person)
    body = {"quote_id": quote, "verification_code": world.code(person)}

    with ThreadPoolExecutor(50) as pool:
        key = {"Idempotency-Key": "one-withdrawal"}
        answers = list(pool.map(lambda _: world.post(person, "withdrawals", body, key), range(50)))

    ids = {answer.json()["transaction"]["id"] for answer in answers if answer.status_code == 202}
    assert {answer.status_code for answer in answers} <= {202, 409}
    [id] = ids
    assert world.wait_for_ends([id]) == {id: "COMPLETED"}
    assert movements(world, id) == {"withdrawal": 1, "b2c": 1}
    world.books_agree()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_forged_failure_beside_a_true_payout_pays_once_and_credits_nothing_back(world: World, when: str) -> None:
    person = customer(world)
    world.arm("mpesa", call="b2c", fault="forged_failure", when=when, count=1)

    id = world.withdrawal(person)
    world.wait_for_ends([id])

    def heard() -> bool:
        [(count,)] = world.rows(
            "SELECT COUNT(DISTINCT c.result_code) FROM mpesa_callbacks c JOIN mpesa_requests r ON r.id = c.request_id "
            "WHERE r.transaction_id = %s AND r.leg = 'b2c_payout'",
            raw(id),
        )
        return int(count) == 2

    world.wait(heard, "lie and truth did not both arrive", 60)
    world.books_agree()
    assert world.status(id) == "COMPLETED"
    assert movements(world, id) == {"withdrawal": 1, "b2c": 1}


@pytest.mark.parametrize("is_told", [True, False])
def test_a_payout_whose_answer_was_lost_is_not_paid_again(world: World, is_told: bool) -> None:
    person = customer(world)
    world.arm("mpesa", call="b2c", fault="lost_answer_after_effect", count=1)
    if not is_told:  # then Transaction Status alone finds it
        world.arm("mpesa", call="b2c", fault="lost_callback", count=1)

    id = world.withdrawal(person)

    assert world.wait_for_ends([id]) == {id: "COMPLETED"}
    assert movements(world, id) == {"withdrawal": 1, "b2c": 1}
    [(attempts,)] = world.rows(
        "SELECT COUNT(*) FROM mpesa_requests WHERE transaction_id = %s AND leg = 'b2c_payout'", raw(id)
    )
    assert attempts == 1
    world.books_agree()


def test_redis_flushed_and_mariadb_killed_while_withdrawals_run_lose_none(world: World) -> None:
    people = [
        *world.people(6, balance="50.00"),
        *world.people(6, balance="50.00", platform="rest"),
    ]

    ids = [world.withdrawal(person) for person in people]
    world.flush_redis()
    world.mariadb.stop(signal.SIGKILL)
    world.mariadb.start()
    world.flush_redis()

    ends = world.wait_for_ends(ids)
    assert set(ends.values()) == {"COMPLETED"}, ends
    assert all(movements(world, id) == {"withdrawal": 1, "b2c": 1} for id in ids)
    world.books_agree()


def test_a_worker_killed_between_any_two_steps_leaves_every_withdrawal_to_its_right_end(world: World) -> None:
    people = world.people(len(POINTS), balance="50.00")
    ids, killed = [], 0
    for point, person in zip(POINTS, people, strict=True):
        if "worker0" in world.stack.processes:
            world.stack.kill("worker0")
        with_crash(world.stack, point)
        ids.append(world.withdrawal(person))
        process = world.stack.processes["worker0"]
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:  # it had fewer points to pass: it lives, and its withdrawal ends
            assert process.poll() is None
        else:
            killed += 1
            world.stack.processes.pop("worker0")
    if "worker0" in world.stack.processes:
        world.stack.kill("worker0")
    world.stack.start_worker(0)

    paying = FINAL | {"MPESA_DISBURSING"}
    world.wait(lambda: all(world.status(id) in paying for id in ids), "not all ended", 300)
    unknown = [id for id in ids if world.status(id) == "MPESA_DISBURSING" and "b2c" not in movements(world, id)]
    world.a_day_passes()
    ends = world.wait_for_ends(ids)

    assert killed > len(POINTS) // 2
    assert set(ends.values()) <= {"COMPLETED", "FAILED", "NEEDS_ATTENTION"}, ends
    shown = [id for id, status in ends.items() if status == "NEEDS_ATTENTION"]
    assert set(shown) <= set(unknown)  # "not found" is no proof: whether it left, a person finds out
    for id, status in ends.items():  # failed: only where Deriv proves that it never debited
        expected = {"COMPLETED": {"withdrawal": 1, "b2c": 1}, "NEEDS_ATTENTION": {"withdrawal": 1}, "FAILED": {}}
        assert movements(world, id) == expected[status], (id, status)
    assert "COMPLETED" in ends.values()
    world.books_agree()
