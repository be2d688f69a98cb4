"""What a process does about its budgets while Redis is gone: less, never without limit; and how it comes back."""

import os
import signal
import socket

import pytest
import redis
from _bootstrap import program
from _servers import Redis, free_port

from shared_kernel.domain.budgets import MPESA_LANE
from shared_kernel.infrastructure.budget_buckets import RedisBuckets, connect
from shared_kernel.infrastructure.budget_share import OwnShare
from shared_kernel.infrastructure.budgets import SharedBudgets
from shared_kernel.infrastructure.reach import REST_S
from shared_kernel.tests.test_budgets import PLENTY, Clock, granted, most_in_a_minute, used

LANE = MPESA_LANE
SERVER = pytest.mark.skipif(not program("redis-server"), reason="needs redis-server")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def server(tmp_path):
    server = Redis(tmp_path / "redis", free_port())
    server.start()
    yield server
    server.stop()


def lines(caplog):
    return [record.message.partition(":")[0] for record in caplog.records if record.name.endswith("budgets")]


def taken(budgets, wanted=PLENTY):
    return sum(granted(budgets.hand({LANE: wanted})))


# --- a share by itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "a_share"), [(300, 37), (180, 22), (60, 7), (8, 1), (3, 1), (6000, 750)])
@pytest.mark.parametrize("pause", [0.1, 1.0, 20.0])
def test_a_process_by_itself_calls_no_more_than_its_share_in_any_minute(clock, rate, a_share, pause):
    share, grants = OwnShare({LANE: rate}, 8, clock=clock), []

    while clock.at < Clock().at + 1200:
        grants.append((clock.at, sum(share.take({LANE: PLENTY}, from_queue=False)[LANE])))
        clock.at += pause

    assert most_in_a_minute(grants) <= a_share
    if pause < 20:
        assert sum(permits for _, permits in grants) >= 0.75 * a_share * 19


def test_a_share_keeps_three_quarters_for_money(clock):
    share, got = OwnShare({LANE: 800}, 8, clock=clock), []

    for _ in range(1200):
        clock.at += 1
        got.append(share.take({LANE: PLENTY}, from_queue=False)[LANE])

    assert sum(reads for _, reads in got) == pytest.approx(sum(sum(both) for both in got) / 4, rel=0.05)


def test_a_share_gives_back_pauses_queues_and_tells_a_wait_as_the_shared_budget_does(clock):
    budgets = SharedBudgets({LANE: 300}, "", shares=1, monotonic=clock)

    with budgets.hand({LANE: (10, 0)}):
        assert taken(budgets, (300, 0)) == 5
    assert taken(budgets, (300, 0)) == 10

    clock.at += 60
    budgets.queue(LANE, True)
    assert taken(budgets) == 0
    assert sum(granted(budgets.hand({LANE: (1, 0)}, from_queue=True))) == 1
    clock.at += 6
    assert taken(budgets, (1, 0)) == 1

    before = budgets.wait_s(LANE, 100)
    budgets.penalise(LANE, 30)
    clock.at += 29
    assert taken(budgets) == 0
    assert budgets.wait_s(LANE, 100) == pytest.approx(2 * before + 1, rel=0.2)


def test_without_any_redis_a_process_begins_with_what_its_bucket_holds(clock):
    """Demo and development: nobody has called before."""
    assert taken(SharedBudgets({LANE: 300}, "", shares=1, monotonic=clock), (300, 0)) == 15


# --- Redis is gone ---------------------------------------------------------------------------------------------------


def test_with_nobody_listening_eight_processes_together_keep_to_the_rate_and_say_so_once(clock, caplog):
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    processes, grants = [SharedBudgets({LANE: 300}, url, monotonic=clock) for _ in range(8)], []

    assert [taken(process) for process in processes] == [0] * 8  # what was called before is not known
    while clock.at < Clock().at + 200:
        clock.at += 0.5
        grants += [(clock.at, taken(process)) for process in processes]

    assert most_in_a_minute(grants) <= 300
    assert sum(permits for _, permits in grants) > 0.75 * 300 * 3
    assert lines(caplog) == ["budgets_on_own_share"] * 8
    assert "secret" not in caplog.text + repr(processes[0])


def test_nothing_is_raised_whatever_is_asked(clock):
    budgets = SharedBudgets({LANE: 300}, f"redis://127.0.0.1:{free_port()}/0", monotonic=clock)
    for asked in (
        lambda: budgets.penalise(LANE, 5),
        lambda: budgets.queue(LANE, True),
        lambda: budgets.wait_s(LANE, 5),
        lambda: budgets.hand({LANE: PLENTY}).give_back(),
    ):
        clock.at += REST_S  # so that each of them is the one that finds it out
        asked()


def test_a_redis_that_takes_connections_and_never_answers_is_asked_once_in_a_while(clock):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        budgets = SharedBudgets({LANE: 300}, f"redis://127.0.0.1:{silent.getsockname()[1]}/0", monotonic=clock)

        for _ in range(100):
            taken(budgets)
            clock.at += REST_S / 50  # two rests

        connections = 0
        while connections < 100:
            try:
                silent.accept()[0].close()
            except BlockingIOError:
                break
            connections += 1
    assert 1 <= connections <= 3


@SERVER
def test_a_redis_that_is_killed_and_started_again_is_left_and_found_without_a_burst(server, clock, caplog):
    with redis.Redis.from_url(server.url(0)) as client:
        workers = [
            SharedBudgets(
                {LANE: 300}, "", monotonic=clock, buckets=RedisBuckets({LANE: 300}, client, clock=clock)
            )
            for _ in range(8)
        ]  # fmt: skip
        grants: list[tuple[float, int]] = []

        def run(seconds):
            end = clock.at + seconds
            while clock.at < end:
                clock.at += 0.5
                grants.extend((clock.at, taken(worker)) for worker in workers)

        taken(workers[0])
        run(90)
        assert sum(permits for _, permits in grants) > 300
        server.stop(signal.SIGKILL)
        run(90)
        server.start()
        run(90)

    assert most_in_a_minute(grants) <= 300
    assert sum(permits for at, permits in grants if at > clock.at - 60) >= 0.9 * 300
    assert lines(caplog) == ["budgets_on_own_share"] * 8 + ["budgets_shared_again"] * 8


@SERVER
def test_what_a_process_took_by_itself_counts_once_it_is_back(server, clock):
    own = RedisBuckets({LANE: 60}, connect(server.url(0)), clock=clock)
    own.take("a", {LANE: PLENTY})
    clock.at += 120

    own.rejoin({LANE: [(1.0, 20), (50.0, 30)]})

    clock.at += 8  # out of its debt again
    assert sum(sum(own.take(f"{n:x}", {LANE: PLENTY})[LANE]) for n in range(9)) <= 10
    assert 50 < used(own.client) <= 60
    clock.at += 6  # the thirty are a minute old
    own.take("b", {LANE: (0, 0)})
    assert used(own.client) <= 30


@SERVER
def test_a_connection_that_died_while_it_was_kept_costs_no_share(server, clock, caplog):
    budgets = SharedBudgets({LANE: 300}, server.url(0), monotonic=clock)
    budgets.hand({LANE: (1, 0)})
    with redis.Redis.from_url(server.url(0)) as client:
        client.client_kill_filter(_type="normal", skipme=True)

    budgets.hand({LANE: (1, 0)})

    assert lines(caplog) == []


@SERVER
def test_a_script_that_redis_forgot_is_sent_again(server, clock, caplog):
    budgets = SharedBudgets({LANE: 300}, server.url(0), monotonic=clock)
    budgets.hand({LANE: (1, 0)})
    with redis.Redis.from_url(server.url(0)) as client:
        client.script_flush()

    budgets.hand({LANE: (1, 0)})

    assert lines(caplog) == []


@SERVER
def test_a_redis_that_answers_and_refuses_to_write_is_gone_until_it_writes(server, clock, caplog):
    budgets, got = SharedBudgets({LANE: 300}, server.url(0), monotonic=clock), 0
    budgets.hand({LANE: (1, 0)})
    with redis.Redis.from_url(server.url(0)) as client:
        client.config_set("maxmemory", 1)
        for _ in range(300):
            clock.at += 1
            got += taken(budgets)
        assert lines(caplog) == ["budgets_on_own_share"]
        assert got == pytest.approx(5 * 37, rel=0.1)
        client.config_set("maxmemory", 0)
        clock.at += REST_S
        taken(budgets)

    assert lines(caplog) == ["budgets_on_own_share", "budgets_shared_again"]


def test_a_forked_child_waits_for_no_lock_of_its_parents_threads(clock):
    budgets = SharedBudgets({LANE: 300}, "", monotonic=clock)
    with budgets._reach._lock, budgets._share._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if taken(budgets) > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
