"""The limiter on a real Redis and on the database: what it lets through, what it says, and what it leaves behind."""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from _bootstrap import program
from _servers import Redis, free_port
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from shared_kernel.domain.errors import TooManyRequests
from shared_kernel.domain.rate_limits import SLICES, Counter, RateLimit, counters_of_address
from shared_kernel.infrastructure import budget_buckets
from shared_kernel.infrastructure.persistence import unit_of_work
from shared_kernel.infrastructure.rate_limit_stores import Asked, DatabaseStore, RedisStore
from shared_kernel.infrastructure.rate_limits import SharedLimiter
from shared_kernel.infrastructure.reach import Reach
from shared_kernel.models import AuditLog, RateLimitCounter

pytestmark = [pytest.mark.skipif(not program("redis-server"), reason="needs redis-server"), pytest.mark.django_db]
START = 1_790_000_000.0
LIMITS = {
    "login.phone": RateLimit(5, 900),
    "login.all": RateLimit(7, 60),
    "audit.all": RateLimit(3, 3600),
    "many": RateLimit(50, 60),
}
AMINA = Counter("login.phone", "254712345678")
ALL = Counter("login.all")


class Clock:
    def __init__(self):
        self.at = START

    def __call__(self):
        return self.at


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis of this module's own: it is flushed, stopped and killed."""
    server = Redis(tmp_path_factory.mktemp("limits") / "redis", free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    if server.pid is None:
        server.start()
    client = budget_buckets.connect(server.url(0))
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["redis", "database"])
def limiter(request, client, clock):
    """On either of them, in virtual time."""
    on_redis = request.param == "redis"
    return SharedLimiter(
        LIMITS,
        "",
        redis=RedisStore(client, clock=clock) if on_redis else None,
        database=DatabaseStore(clock),
    )


def allowed(limiter, *counters):
    try:
        limiter.take(*counters)
    except TooManyRequests:
        return False
    return True


def retry_after(limiter, *counters):
    with pytest.raises(TooManyRequests) as refused:
        limiter.take(*counters)
    return refused.value.extra["retry_after"]


# --- what it lets through --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_no_window_wherever_it_begins_sees_more_than_the_limit_and_retry_after_is_honest(limiter, clock, seed):
    chance, let_through = random.Random(seed), []
    most, per_s = LIMITS["login.all"].most, LIMITS["login.all"].per_s
    for _ in range(150):
        try:
            limiter.take(ALL)
            let_through.append(clock.at)
        except TooManyRequests as refused:
            wait = refused.extra["retry_after"]
            assert 1 <= wait <= per_s * (1 + 1 / SLICES) + 1
            if chance.random() < 0.3:  # who waits as they were told is let in
                clock.at += wait
                limiter.take(ALL)
                let_through.append(clock.at)
        clock.at += chance.choice([0.0, 0.1, 3.0, 11.0])

    assert all(len([at for at in let_through if one <= at < one + per_s]) <= most for one in let_through)
    assert len(let_through) > most


@pytest.mark.parametrize("seed", range(5))
def test_redis_and_the_database_judge_alike(client, clock, seed):
    in_redis, in_database = RedisStore(client, clock=clock), DatabaseStore(clock)
    chance = random.Random(seed)
    asked = [Asked.of(AMINA, LIMITS["login.phone"]), Asked.of(ALL, LIMITS["login.all"])]
    for _ in range(120):
        some = chance.choice([asked, asked[:1], asked[1:]])
        deed = chance.choices(["take", "give_back", "forget"], [20, 3, 1])[0]
        one, other = getattr(in_redis, deed)(some), getattr(in_database, deed)(some)
        if deed == "take":
            assert one.wait_s == pytest.approx(other.wait_s, abs=0.001)
            assert one.news == other.news
        clock.at += chance.choice([0.0, 1.0, 40.0, 200.0])


def test_of_several_counters_all_count_a_try_or_none(limiter):
    for number in range(5):
        limiter.take(AMINA, ALL, Counter("many", str(number)))
    for _ in range(10):
        assert not allowed(limiter, AMINA, ALL)

    assert [allowed(limiter, ALL) for _ in range(3)] == [True, True, False]


def test_one_counter_named_twice_counts_once(limiter):
    for _ in range(5):
        limiter.take(AMINA, AMINA)

    assert not allowed(limiter, AMINA)


def test_what_is_forgotten_begins_anew_and_nothing_else(limiter):
    for _ in range(5):
        limiter.take(AMINA, ALL)
    limiter.forget(AMINA)

    assert allowed(limiter, AMINA)
    assert [allowed(limiter, ALL) for _ in range(3)] == [True, True, False]


def test_what_is_given_back_was_no_try_and_no_more_than_that(limiter):
    limiter.give_back(AMINA)  # nothing was taken
    for _ in range(20):
        limiter.take(AMINA)
        limiter.give_back(AMINA)

    assert [allowed(limiter, AMINA) for _ in range(6)] == [True] * 5 + [False]


def test_a_refused_try_does_not_prolong_the_wait(limiter, clock):
    for _ in range(5):
        limiter.take(AMINA)
    first = retry_after(limiter, AMINA)
    clock.at += 100
    for _ in range(50):
        assert retry_after(limiter, AMINA) == pytest.approx(first - 100, abs=1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["redis", "database"])
def test_of_fifty_at_once_no_more_than_the_limit_come_through(client, where):
    limiter = SharedLimiter(LIMITS, "", redis=RedisStore(client) if where == "redis" else None)
    at_once = threading.Barrier(25)

    def tries(_):
        try:
            at_once.wait(10)
            return [allowed(limiter, AMINA, ALL) for _ in range(2)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(25) as threads:
        came_through = [one for pair in threads.map(tries, range(25)) for one in pair]

    assert (len(came_through), came_through.count(True)) == (50, 5)


# --- Redis gone and back ---------------------------------------------------------------------------------------------


def test_a_redis_that_is_killed_and_comes_back_lets_nobody_beyond_the_limit_of_each(server, client, clock):
    """The database begins anew when Redis goes; what Redis counted before, if it kept it, counts again after."""
    limiter = SharedLimiter(LIMITS, "", redis=RedisStore(client), reach=Reach(monotonic=clock))
    for _ in range(5):
        limiter.take(AMINA)
    assert not allowed(limiter, AMINA)

    server.stop(signal.SIGKILL)
    assert [allowed(limiter, AMINA) for _ in range(7)] == [True] * 5 + [False] * 2
    assert RateLimitCounter.objects.count() == 2  # theirs, and that of the audit rows

    server.start()
    assert not allowed(limiter, AMINA)  # it rests: nobody has asked Redis yet
    clock.at += 3
    assert [allowed(limiter, AMINA) for _ in range(6)] == [True] * 5 + [False]  # this Redis keeps nothing on disk
    with CaptureQueriesContext(
        connection,
    ) as queries:
        limiter.take(Counter("many", "somebody"))
    assert not queries.captured_queries


def test_a_redis_that_hangs_costs_one_request_a_short_wait_and_the_next_ones_none(server, client):
    limiter = SharedLimiter(LIMITS, "", redis=RedisStore(client))
    limiter.take(ALL)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        limiter.take(Counter("many"))
        first = time.monotonic() - began
        began = time.monotonic()
        for _ in range(20):
            limiter.take(Counter("many"))
        others = time.monotonic() - began
    finally:
        os.kill(server.pid, signal.SIGCONT)

    assert budget_buckets.TIMEOUT_S <= first < 0.5
    assert others < 20 * 0.05, "these never asked Redis"


def test_a_redis_that_refuses_to_write_is_gone_too(client):
    limiter = SharedLimiter(LIMITS, "", redis=RedisStore(client))
    client.config_set("maxmemory", 1)
    try:
        assert [allowed(limiter, AMINA) for _ in range(6)] == [True] * 5 + [False]
    finally:
        client.config_set("maxmemory", 0)


def test_no_query_while_redis_is_there_and_one_round_trip_for_all_counters(client):
    limiter = SharedLimiter(LIMITS, "", redis=RedisStore(client))
    limiter.take(AMINA)
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    with CaptureQueriesContext(connection) as queries:
        limiter.take(AMINA, ALL, Counter("many"))

    assert not queries.captured_queries
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1


# --- what it leaves behind -------------------------------------------------------------------------------------------


def test_nothing_stands_in_clear_in_redis_or_in_the_table(client):
    somebody = ("254712345678", "amina@example.org", "197.232.61.7")
    for store in (RedisStore(client), None):
        limiter = SharedLimiter(LIMITS, "", redis=store)
        for of in somebody:
            for _ in range(6):
                allowed(limiter, Counter("login.phone", of))
    stored = repr([(key, client.hgetall(key)) for key in client.scan_iter()])
    stored += repr(list(RateLimitCounter.objects.values())) + repr(list(AuditLog.objects.values()))

    assert stored.count("login.phone") >= 3
    assert not [of for of in somebody if of in stored]
    assert "712345678" not in stored


def test_keys_in_redis_run_out_by_themselves(client):
    limiter = SharedLimiter(LIMITS, "", redis=RedisStore(client))
    limiter.take(AMINA)
    [key] = client.scan_iter()

    assert 900 < client.ttl(key) <= 1100


def test_a_flood_is_told_of_once_a_counter_and_while_and_has_an_end(limiter, clock):
    for _ in range(5):
        limiter.take(AMINA)
    for _ in range(40):
        assert not allowed(limiter, AMINA)
    [row] = AuditLog.objects.filter(action="rate_limit.reached")
    assert (row.target_type, row.target_id, row.details) == ("rate_limit", "login.phone", {"most": 5, "per_s": 900})

    for number in range(20):
        for _ in range(6):
            allowed(limiter, Counter("login.phone", str(number)))
    assert AuditLog.objects.filter(action="rate_limit.reached").count() == LIMITS["audit.all"].most

    clock.at += 4000
    for _ in range(6):
        allowed(limiter, AMINA)
    assert AuditLog.objects.filter(action="rate_limit.reached").count() == LIMITS["audit.all"].most + 1


def test_it_is_not_for_inside_a_unit_of_work(limiter):
    with pytest.raises(RuntimeError, match="outside"), unit_of_work():
        limiter.take(AMINA)


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("197.232.61.7", [("197.232.61.7", 1)]),
        ("2c0f:fe38:2240:1234::1", [("2c0f:fe38:2240:1234::/64", 1), ("2c0f:fe38:2240::/48", 16)]),
        ("2c0f:fe38:2240:1234:ffff::9", [("2c0f:fe38:2240:1234::/64", 1), ("2c0f:fe38:2240::/48", 16)]),
        ("", [("", 1)]),
    ],
)
def test_an_ipv6_address_counts_as_its_networks(address, counts_as):
    counters = counters_of_address("login.address", address)
    assert [(counter.of, counter.times) for counter in counters] == counts_as


def test_one_connection_serves_many_calls(server, client):
    limiter = SharedLimiter(LIMITS, server.url(0))
    with redis.Redis.from_url(server.url(0)) as watching:
        limiter.take(Counter("many"))
        before = watching.info("stats")["total_connections_received"]
        for _ in range(20):
            limiter.take(Counter("many"))
        assert watching.info("stats")["total_connections_received"] == before
