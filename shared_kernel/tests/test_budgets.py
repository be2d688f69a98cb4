"""Budgets on a real Redis: what all workers together may call in a minute, and what becomes of it when things break.

Minutes pass on a virtual clock that the script is given in place of the server's time; nothing here measures speed.
"""

import multiprocessing
import random
from collections import Counter, deque

import pytest
import redis
from _bootstrap import program
from _servers import Redis, free_port

from shared_kernel.domain.budgets import MPESA_LANE, Permits, deriv_lane
from shared_kernel.infrastructure import budget_buckets
from shared_kernel.infrastructure.budget_buckets import RedisBuckets
from shared_kernel.infrastructure.budgets import GOOD_FOR_S, SharedBudgets

pytestmark = pytest.mark.skipif(not program("redis-server"), reason="needs redis-server")
START = 1_790_000_000.0
LANE = MPESA_LANE
AGENT = deriv_lane("CR1")
PLENTY = (1000, 1000)


class Clock:
    def __init__(self, at=START):
        self.at = at

    def __call__(self):
        return self.at


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis of this module's own: it is flushed and killed."""
    server = Redis(tmp_path_factory.mktemp("budgets") / "redis", free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    if server.pid is None:
        server.start()
    with redis.Redis.from_url(server.url(0)) as client:
        client.flushdb()
        yield client


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shared(client, clock):
    """Budgets as one worker has them, by lane and rate; its Redis lives in virtual time, and all share one."""

    def worker(rates):
        limited = {lane: rate for lane, rate in rates.items() if rate is not None}
        buckets = RedisBuckets(limited, client, clock=clock)
        return SharedBudgets(rates, "", monotonic=clock, buckets=buckets)

    return worker


def granted(hand, lane=LANE):
    return Permits(hand.left(lane), hand.left(lane, reads=True))


def used(client):
    """How many permits of the last minute the budget counts."""
    return float(client.hget(f"penpay:budget:{{{LANE}}}:state", "used"))


def warm(budgets, clock, lanes=(LANE,)):
    """After the first minutes of its life, with nothing called."""
    budgets.hand(dict.fromkeys(lanes, (1, 0))).give_back()
    clock.at += 120


def most_in_a_minute(grants):
    """The largest number that any 60 seconds saw, of (time, permits) in whatever order."""
    inside = most = 0
    window: deque[tuple[float, int]] = deque()
    for at, permits in sorted(grants):
        window.append((at, permits))
        inside += permits
        while window[0][0] <= at - 60:
            inside -= window.popleft()[1]
        most = max(most, inside)
    return most


# --- the minute ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 2, 7, 60, 180, 300, 6000])
@pytest.mark.parametrize("pause", [0.1, 1.0, 2.5])
def test_a_backlog_uses_the_rate_in_every_minute_and_never_more(shared, clock, rate, pause):
    budgets, grants = shared({LANE: rate}), []
    warm(budgets, clock)
    begun = clock.at

    minutes = 4 if rate > 1000 else 10
    while clock.at < begun + minutes * 60:
        grants.append((clock.at, sum(granted(budgets.hand({LANE: PLENTY})))))
        clock.at += pause

    assert most_in_a_minute(grants) <= rate
    assert sum(permits for _, permits in grants) >= 0.95 * rate * minutes - 1  # the one that the end cut off


def test_workers_that_come_and_go_at_random_never_exceed_the_rate_even_if_they_call_late(shared, clock):
    chance = random.Random(1)
    workers = [shared({LANE: 300}) for _ in range(5)]
    calls: list[tuple[float, int]] = []
    warm(workers[0], clock)

    for _ in range(4000):
        with chance.choice(workers).hand({LANE: (chance.randrange(40), chance.randrange(10))}) as hand:
            for reads in (False, True):
                while chance.random() < 0.9 and hand.take(LANE, reads=reads):
                    calls.append((clock.at + chance.random() * GOOD_FOR_S, 1))
        clock.at += chance.choice([0.01, 0.1, 0.5, 0.5, 12.0 if chance.random() < 0.01 else 0.1])

    assert len(calls) > 2000
    assert most_in_a_minute(calls) <= 300


def work(url, minutes, seed, told):
    """One worker process. It says when Redis granted what it then used."""
    chance, grants = random.Random(seed), []
    with redis.Redis.from_url(url) as client:
        buckets = RedisBuckets({LANE: 300}, client)
        while float(client.get("calls") or 0) * EACH_S < minutes * 60:
            hand = f"{chance.getrandbits(64):x}"
            got = buckets.take(hand, {LANE: (chance.randrange(1, 30), chance.randrange(10))})[LANE]
            if sum(got):
                at = client.zscore(f"penpay:budget:{{{LANE}}}:grants", f"{hand}:{sum(got)}")
                unused = Permits(chance.randint(0, got.money), chance.randint(0, got.reads))
                if chance.random() < 0.3 and any(unused):
                    buckets.give_back(hand, {LANE: got}, {LANE: unused})
                    got = Permits(got.money - unused.money, got.reads - unused.reads)
                grants.append((at, sum(got)))
    told.put(grants)


EACH_S = 0.05  # virtual seconds that a call of the script takes


def test_processes_at_once_share_one_budget_of_which_they_use_all_but_a_little(server, client, monkeypatch):
    real = "(clock[1] + clock[2] / 1000000)"
    assert real in budget_buckets.SCRIPT
    counted = f"{START} + redis.call('INCR', 'calls') * {EACH_S}"  # so that it is one time for all of them
    monkeypatch.setattr(budget_buckets, "SCRIPT", budget_buckets.SCRIPT.replace(real, counted))

    per_worker = in_processes(6, work, server.url(0), 10)

    grants = [grant for grants in per_worker for grant in grants]
    assert all(per_worker)
    assert most_in_a_minute(grants) <= 300
    assert sum(permits for at, permits in grants if at >= START + 60) >= 0.95 * 300 * 9


def grab(url, at, seed, told):
    with redis.Redis.from_url(url) as client:
        buckets = RedisBuckets({LANE: 6000}, client, clock=lambda: at)
        told.put(sum(sum(buckets.take(f"{seed:x}{n:02x}", {LANE: (7, 2)})[LANE]) for n in range(60)))


def in_processes(number, do, *given):
    """What `number` processes tell that run `do` at once."""
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    processes = [fork.Process(target=do, args=(*given, seed, told)) for seed in range(number)]
    for process in processes:
        process.start()
    try:
        return [told.get(timeout=120) for _ in processes]
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()


def test_processes_at_one_instant_get_what_the_bucket_holds_and_no_permit_twice(server, shared, clock):
    warm(shared({LANE: 6000}), clock)

    taken = in_processes(8, grab, server.url(0), clock.at)

    assert sum(taken) == 301  # a twentieth of the rate, and one


# --- reads and money -------------------------------------------------------------------------------------------------


def test_reads_get_a_quarter_while_money_wants_everything_and_money_the_rest(shared, clock):
    budgets = shared({LANE: 300})
    got: Counter[str] = Counter()
    warm(budgets, clock)

    for _ in range(600):
        money, reads = granted(budgets.hand({LANE: PLENTY}))
        got.update(money=money, reads=reads)
        clock.at += 1

    assert got["reads"] == pytest.approx(got.total() / 4, rel=0.02)


def test_a_flood_of_reads_leaves_payouts_their_three_quarters_at_once(shared, clock):
    budgets, money, reads = shared({LANE: 300}), [], []
    warm(budgets, clock)
    for _ in range(1200):
        budgets.hand({LANE: (0, 1000)})
        clock.at += 0.1

    for _ in range(1200):
        reads.append((clock.at, granted(budgets.hand({LANE: (0, 1000)})).reads))
        money.append((clock.at, granted(budgets.hand({LANE: (1000, 0)})).money))
        clock.at += 0.1

    assert money[0][1] >= 5  # half of the bucket was kept for it
    assert sum(permits for _, permits in money) >= 0.7 * 300 * 2
    assert most_in_a_minute(money + reads) <= 300


def test_reads_use_what_money_leaves(shared, clock):
    budgets, reads = shared({LANE: 300}), []
    warm(budgets, clock)

    for _ in range(1200):
        reads.append(granted(budgets.hand({LANE: (0, 1000)})).reads)
        clock.at += 0.25

    assert sum(reads) >= 0.9 * 300 * 5  # but for what is kept ready for money


def test_lanes_are_asked_together_and_do_not_touch_each_other(shared, clock, client):
    budgets = shared({LANE: 300, AGENT: 60, "deriv:CR2": None})
    warm(budgets, clock, [LANE, AGENT])
    asked = client.info("commandstats")["cmdstat_evalsha"]["calls"]

    hand = budgets.hand({LANE: (100, 0), AGENT: (1, 1), "deriv:CR2": (5, 5)})

    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == asked + 1
    assert (granted(hand), granted(hand, AGENT)) == ((16, 0), (1, 1))
    assert granted(budgets.hand({AGENT: (1, 0)}), AGENT).money == 1


def test_a_lane_without_limit_asks_nobody(client):
    budgets = SharedBudgets({AGENT: None}, "redis://127.0.0.1:1/0")  # where nobody listens
    before = client.info("stats")["total_commands_processed"]

    hand = budgets.hand({AGENT: (1, 1)})
    budgets.penalise(AGENT, 5)
    budgets.queue(AGENT, True)

    assert all(hand.take(AGENT, reads=reads) for reads in (False, True) for _ in range(1000))
    assert budgets.wait_s(AGENT, 10_000) == 0
    assert budgets._reach.away is False
    assert client.info("stats")["total_commands_processed"] == before + 1  # the first question of this test


def test_a_lane_that_no_setting_names_has_the_smallest_rate(shared, clock):
    budgets = shared({LANE: 300})
    grants = []

    for _ in range(600):
        grants.append((clock.at, sum(granted(budgets.hand({"deriv:gone": PLENTY}), "deriv:gone"))))
        clock.at += 1

    assert 7 <= sum(permits for _, permits in grants) <= 9
    assert most_in_a_minute(grants) == 1


# --- hands -----------------------------------------------------------------------------------------------------------


def test_a_hand_gives_what_it_has_once_and_another_gets_what_was_given_back(shared, clock):
    one, other = shared({LANE: 60}), shared({LANE: 60})
    warm(one, clock)

    with one.hand({LANE: PLENTY}) as hand:
        assert granted(hand) == (3, 1)
        assert [hand.take(LANE) for _ in range(4)] == [True, True, True, False]
        assert granted(other.hand({LANE: PLENTY})) == (0, 0)
        hand.put_back(LANE)  # its intent was rolled back

    assert not hand.take(LANE)
    assert not hand.take(LANE, reads=True)
    assert sum(granted(other.hand({LANE: PLENTY}))) == 2
    hand.give_back()
    assert sum(granted(other.hand({LANE: PLENTY}))) == 0


def test_a_permit_that_was_not_taken_cannot_be_put_back(shared, clock):
    budgets = shared({LANE: 60})
    warm(budgets, clock)
    hand = budgets.hand({LANE: (1, 0)})

    for lane, reads in ((LANE, False), (LANE, True), (AGENT, False)):
        with pytest.raises(ValueError, match="was taken"):
            hand.put_back(lane, reads=reads)


def test_a_hand_that_a_worker_held_too_long_lets_nothing_out_but_can_be_given_back(shared, clock):
    budgets = shared({LANE: 60})
    warm(budgets, clock)
    hand = budgets.hand({LANE: (4, 0)})
    clock.at += GOOD_FOR_S

    assert hand.left(LANE) == 0
    assert not hand.take(LANE)

    hand.give_back()
    assert granted(budgets.hand({LANE: (4, 0)})).money == 4


def test_a_worker_that_dies_loses_what_it_had_in_hand_for_a_minute_and_no_more(shared, clock):
    budgets, grants = shared({LANE: 60}), []
    warm(budgets, clock)
    lost = sum(granted(budgets.hand({LANE: PLENTY})))  # and never heard of again
    begun = clock.at

    while clock.at < begun + 180:
        clock.at += 0.5
        grants.append((clock.at, sum(granted(budgets.hand({LANE: PLENTY})))))

    assert lost == 4
    assert sum(n for at, n in grants if at < begun + 60) >= 0.95 * 60 - lost
    assert sum(n for at, n in grants if at > begun + 64) >= 0.95 * 60 * (116 / 60) - 1


def test_what_is_given_back_after_a_flush_is_not_added_to_the_new_budget(shared, clock, client):
    budgets = shared({LANE: 300})
    warm(budgets, clock)
    hand = budgets.hand({LANE: (16, 0)})
    client.flushdb()
    budgets.hand({LANE: (1, 0)})

    hand.give_back()

    assert used(client) == 0
    assert budgets.wait_s(LANE, 0) > 3


# --- refusals, queues, waits -----------------------------------------------------------------------------------------


def per_minute(budgets, clock, minutes=1):
    total, end = 0, clock.at + minutes * 60
    while clock.at < end:
        clock.at += 0.5
        total += sum(granted(budgets.hand({LANE: PLENTY})))
    return total / minutes


def test_after_a_refusal_nobody_calls_for_a_while_then_half_and_slowly_all_again(shared, clock):
    one, other = shared({LANE: 300}), shared({LANE: 300})
    warm(one, clock)
    per_minute(one, clock)

    one.penalise(LANE, 20)
    clock.at += 19
    assert sum(granted(other.hand({LANE: PLENTY}))) == 0
    clock.at += 1
    first = per_minute(other, clock)
    rising = [per_minute(other, clock) for _ in range(12)]

    assert first == pytest.approx(150 * 60 / 62, rel=0.05)
    assert rising == sorted(rising)
    assert rising[4] < 250
    assert rising[-1] >= 0.95 * 300


def test_refusals_of_calls_that_were_on_their_way_together_are_one_and_later_ones_halve_again(shared, clock):
    workers = [shared({LANE: 300}) for _ in range(8)]
    warm(workers[0], clock)

    for worker in workers:
        worker.penalise(LANE, 1)
        clock.at += 0.5
    clock.at += 1
    assert per_minute(workers[0], clock) == pytest.approx(145, rel=0.1)

    for _ in range(9):
        workers[0].penalise(LANE, 1)
        clock.at += 10
    assert per_minute(workers[0], clock) == pytest.approx(300 / 8, rel=0.1)  # and not nothing


def test_a_refusal_that_asks_for_a_day_stops_a_lane_for_a_quarter_of_an_hour(shared, clock):
    budgets = shared({LANE: 300})
    warm(budgets, clock)

    budgets.penalise(LANE, 86_400)

    clock.at += 899
    assert sum(granted(budgets.hand({LANE: PLENTY}))) == 0
    clock.at += 10
    assert sum(granted(budgets.hand({LANE: PLENTY}))) > 0


def test_wakes_do_not_overtake_a_queue_and_its_mark_goes_by_itself(shared, clock):
    sweeper, worker = shared({LANE: 300, AGENT: 60}), shared({LANE: 300, AGENT: 60})
    warm(sweeper, clock, [LANE, AGENT])

    sweeper.queue(LANE, True)

    woken = worker.hand({LANE: (5, 5), AGENT: (1, 0)})
    assert (sum(granted(woken)), granted(woken, AGENT).money) == (0, 1)
    assert sum(granted(sweeper.hand({LANE: (2, 1)}, from_queue=True))) == 3

    sweeper.queue(LANE, False)
    assert sum(granted(worker.hand({LANE: (2, 1)}))) == 3

    sweeper.queue(LANE, True)
    clock.at += 6  # the sweeper died
    assert sum(granted(worker.hand({LANE: (2, 1)}))) == 3


@pytest.mark.parametrize("also_reads", [0, 1000])
def test_the_wait_that_is_told_is_kept_and_no_more_than_twice_too_long(shared, clock, also_reads):
    budgets = shared({LANE: 300})
    warm(budgets, clock)
    per_minute(budgets, clock)
    told = {ahead: clock.at + budgets.wait_s(LANE, ahead) for ahead in (0, 9, 99, 999)}
    begun, gone, went = clock.at, 0, {}

    while gone <= 999:
        clock.at += 0.25
        for _ in range(granted(budgets.hand({LANE: (1000, also_reads)})).money):
            went[gone], gone = clock.at, gone + 1

    for ahead, promised in told.items():
        assert went[ahead] <= promised + 3  # by as much the minute may be short of a burst
        assert promised - begun <= 2 * (went[ahead] - begun) + 3


def test_the_wait_counts_a_pause_and_a_lowered_rate(shared, clock):
    budgets = shared({LANE: 300})
    warm(budgets, clock)
    before = budgets.wait_s(LANE, 100)

    budgets.penalise(LANE, 30)

    assert budgets.wait_s(LANE, 100) > 30 + 2 * before


# --- Redis goes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [0.0, 3.0, 20.0])
def test_a_flushed_redis_begins_without_a_burst_and_the_minute_around_it_is_kept(shared, clock, client, idle):
    budgets, grants = shared({LANE: 300}), []
    warm(budgets, clock)
    clock.at += 60

    for _ in range(3):
        for _ in range(int(90 / 0.25)):
            clock.at += 0.25
            grants.append((clock.at, sum(granted(budgets.hand({LANE: PLENTY})))))
        client.flushall()
        clock.at += idle

    assert most_in_a_minute(grants) <= 300
    assert sum(permits for _, permits in grants) > 0.85 * 300 * 4.5


def test_a_clock_that_another_server_has_an_hour_behind_stops_nobody_for_that_hour(shared, clock):
    budgets = shared({LANE: 300})
    warm(budgets, clock)
    per_minute(budgets, clock)

    clock.at -= 3600

    assert sum(granted(budgets.hand({LANE: PLENTY}))) == 0
    assert per_minute(budgets, clock, minutes=2) > 0.85 * 300
