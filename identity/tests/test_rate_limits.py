"""The doors that stand open to all, under somebody who tries: guessing, flooding, hiding, and Redis gone meanwhile."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from _bootstrap import program
from _servers import Redis, free_port
from django.db import OperationalError, connections

from identity.domain.credentials import SignInBusy
from identity.infrastructure import tokens
from identity.infrastructure.tokens import Argon2idHasher, Turns
from identity.tests.clients import HOME, a_browser, refused
from identity.tests.factories import PASSWORD, a_customer, a_phone
from shared_kernel.facade import limiter
from shared_kernel.infrastructure.budget_buckets import connect
from shared_kernel.infrastructure.persistence import now
from shared_kernel.infrastructure.rate_limit_stores import DatabaseStore, RedisStore
from shared_kernel.infrastructure.reach import Reach
from shared_kernel.models import AuditLog, RateLimitCounter

pytestmark = pytest.mark.django_db
WRONG = "not the password at all"


@pytest.fixture
def hashes(monkeypatch):
    """A list that grows by one with each password hash that is computed."""
    computed, verify = [], Argon2idHasher.verify

    def counted(self, password, encoded):
        computed.append(1)
        return verify(self, password, encoded)

    monkeypatch.setattr(Argon2idHasher, "verify", counted)
    return computed


def outcome(answer):
    """Everything that an answer tells but its number."""
    return answer.status_code, {k: v for k, v in answer.json().items() if k != "request_id"}


# --- signing in ------------------------------------------------------------------------------------------------------


def test_one_customer_is_guessed_at_five_times_from_however_many_addresses(customer, hashes):
    for number in range(5):
        assert a_browser(f"41.90.0.{number}").sign_in(customer.email, WRONG).status_code == 401
    failed = AuditLog.objects.filter(action="user.login_failed").count()
    for number in range(5, 12):
        answer = a_browser(f"41.90.0.{number}").sign_in(customer.email, PASSWORD)
        assert refused(answer)
        assert 840 < int(answer["Retry-After"]) <= 976

    assert (len(hashes), failed) == (5, 5), "what is refused costs no hash"
    assert AuditLog.objects.filter(action="user.login_failed").count() == 5, "and no audit row"
    told = AuditLog.objects.filter(action="rate_limit.reached")
    assert [(row.target_id, row.address) for row in told] == [("login.identifier", "41.90.0.5")]


def test_somebody_and_nobody_are_answered_alike_try_by_try(customer, hashes):
    def tries(identifier):
        return [outcome(a_browser().sign_in(identifier, WRONG)) for _ in range(8)]

    somebody, nobody = tries(customer.email), tries("nobody@example.org")
    for one, other in zip(somebody, nobody, strict=True):
        assert (one[0], one[1]["code"]) == (other[0], other[1]["code"])
    assert len(hashes) == 10


def test_many_customers_are_guessed_at_from_one_address_as_often_as_the_limit_says(limits, hashes):
    limits(login_address=8)
    for number in range(8):
        assert a_browser().sign_in(f"someone{number}@example.org", WRONG).status_code == 401
    assert refused(a_browser().sign_in("another@example.org", WRONG))

    assert a_browser("41.90.0.1").sign_in("another@example.org", WRONG).status_code == 401
    assert len(hashes) == 9


def test_one_network_of_ipv6_is_one_address(limits):
    limits(login_address=2)
    for number in range(2):
        a_browser(f"2c0f:fe38:2240:1234::{number}").sign_in(f"someone{number}@example.org", WRONG)

    assert refused(a_browser("2c0f:fe38:2240:1234:ffff::9").sign_in("another@example.org", WRONG))
    assert a_browser("2c0f:fe38:2240:1235::9").sign_in("another@example.org", WRONG).status_code == 401


def test_whoever_has_a_48_of_ipv6_is_no_more_than_sixteen_addresses(limits):
    limits(login_address=1)
    answers = [
        a_browser(f"2001:470:1f0a:{number:x}::1").sign_in(f"someone{number}@example.org", WRONG).status_code
        for number in range(18)
    ]
    assert answers == [401] * 16 + [429] * 2
    assert a_browser("2001:470:1f0b::1").sign_in("another@example.org", WRONG).status_code == 401


@pytest.mark.parametrize(("proxies", "seen"), [(0, ""), (1, f", {HOME}"), (2, f", {HOME}, 10.0.0.1")])
def test_an_invented_x_forwarded_for_is_no_fresh_address(limits, settings, proxies, seen):
    settings.TRUSTED_PROXY_COUNT = proxies
    limits(login_address=3)

    def tries(number):
        browser = a_browser(HOME if not proxies else "10.0.0.2")
        browser.http.defaults["HTTP_X_FORWARDED_FOR"] = f"9.9.9.{number}{seen}"
        return browser.sign_in(f"someone{number}@example.org", WRONG)

    assert [tries(number).status_code for number in range(5)] == [401, 401, 401, 429, 429]


def test_a_known_device_signs_in_while_strangers_flood_its_customer_and_everything(customer, limits):
    own = a_browser()
    assert own.sign_in(customer.email).status_code == 200
    limits(login_all=6, login_address=6)
    for number in range(8):
        a_browser().sign_in(customer.email, WRONG)
        a_browser(f"41.90.0.{number}").sign_in(f"someone{number}@example.org", WRONG)
    assert refused(a_browser("41.90.1.1").sign_in(customer.email))
    assert refused(a_browser("41.90.1.1").sign_in("somebody.else@example.org", WRONG))

    assert own.sign_in(customer.email).status_code == 200
    assert own.sign_in(customer.phone.number).status_code == 200


def test_a_known_device_guesses_five_times_and_locks_nobody_else_out(customer):
    own = a_browser()
    own.sign_in(customer.email)
    for _ in range(5):
        assert own.sign_in(customer.email, WRONG).status_code == 401
    assert refused(own.sign_in(customer.email))

    assert a_browser().sign_in(customer.email, WRONG).status_code == 401


def test_right_passwords_are_hashed_as_often_as_the_limit_says_and_a_neighbours_as_before(customer, hashes):
    own, neighbour = a_browser(), a_browser()
    own.sign_in(customer.email)
    answers = [own.sign_in(customer.email) for _ in range(40)]
    assert [answer.status_code for answer in answers] == [200] * 30 + [429] * 10
    assert refused(answers[-1])
    assert len(hashes) == 31

    assert neighbour.sign_in(a_customer(password=PASSWORD).email).status_code == 200


def test_right_passwords_on_new_devices_have_their_end_too_and_the_known_device_goes_on(limits, hashes):
    customer = a_customer(password=PASSWORD, phone_verified_at=None)
    own = a_browser()
    own.sign_in(customer.email)
    limits(login_identifier_all=6)
    answers = [a_browser(f"41.90.0.{n}").sign_in(customer.email, device="the-same").status_code for n in range(8)]
    assert answers == [200] * 5 + [429] * 3

    assert own.sign_in(customer.email).status_code == 200


@pytest.mark.parametrize("lost", ["forget", "give_back"])
def test_the_answer_stands_where_a_counter_cannot_be_cleared(customer, monkeypatch, limits, lost, caplog):
    own = a_browser()
    own.sign_in(customer.email)
    limits(api_address=1)

    def locked(self, asked):
        raise OperationalError(1205, "Lock wait timeout exceeded")

    monkeypatch.setattr(limiter, "redis", None)
    monkeypatch.setattr(DatabaseStore, lost, locked)
    del own.cookies["penpay_access"]
    a_browser().get("me")
    assert own.sign_in(customer.email).status_code == 200
    assert "rate_limit_not_changed" in caplog.text


@pytest.mark.parametrize("cookie", ["another's", "altered", "no id", "revoked"])
def test_a_cookie_that_is_not_of_a_device_of_this_customer_is_a_strangers(customer, cookie):
    other = a_customer(password=PASSWORD)
    thief = a_browser()
    thief.sign_in(customer.email if cookie == "revoked" else other.email, device="thief")
    if cookie == "revoked":
        thief.delete("me/devices/thief")
    elif cookie == "altered":
        thief.cookies["penpay_device"] = thief.cookies["penpay_device"].value[:-4] + "AAAA"
    elif cookie == "no id":
        thief.cookies["penpay_device"] = "nonsense"
    for _ in range(5):
        thief.sign_in(customer.email, WRONG)

    assert refused(a_browser("41.90.0.1").sign_in(customer.email))


def test_the_right_password_clears_its_customers_tries_and_not_the_addresses(limits):
    customer = a_customer(password=PASSWORD, phone_verified_at=None)
    limits(login_address=11)
    for _ in range(2):
        for _ in range(4):
            a_browser().sign_in(customer.email, WRONG)
        assert a_browser().sign_in(customer.email, device="the-same").status_code == 200
    assert a_browser().sign_in(customer.email, WRONG).status_code == 401

    assert refused(a_browser().sign_in(customer.email, WRONG))
    assert a_browser("41.90.0.1").sign_in(customer.email, WRONG).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_of_fifty_guesses_at_once_five_are_hashed(customer, hashes, everybody_may_try, limits):
    limits(login_identifier=5)
    gate = threading.Barrier(25)

    def guesses(number):
        try:
            browser = a_browser(f"41.90.0.{number}")
            gate.wait(20)
            return [browser.sign_in(customer.email, WRONG).status_code for _ in range(2)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(25) as threads:
        answers = [status for pair in threads.map(guesses, range(25)) for status in pair]

    assert (answers.count(401), answers.count(429), len(hashes)) == (5, 45, 5)


# --- hashing ---------------------------------------------------------------------------------------------------------


def test_few_wait_for_a_turn_to_hash_and_a_known_device_waits_where_strangers_are_refused_at_once(monkeypatch):
    turns, inside, go_on, done = Turns(1, strangers=2, known=3), threading.Event(), threading.Event(), []

    def hashes(known=False):
        with turns.turn(known=known):
            inside.set()
            go_on.wait(5)
            done.append(known)

    threads = [threading.Thread(target=hashes) for _ in range(3)]
    threads[0].start()
    assert inside.wait(5)
    for thread in threads[1:]:
        thread.start()
    while turns._waiting < 2:
        pass
    with pytest.raises(SignInBusy) as refusal, turns.turn():
        pass
    assert refusal.value.extra == {"retry_after": 1}
    threads.append(threading.Thread(target=hashes, args=(True,)))
    threads[-1].start()
    while turns._waiting < 3:
        pass
    with pytest.raises(SignInBusy), turns.turn(known=True):
        pass
    go_on.set()
    for thread in threads:
        thread.join(5)

    assert sorted(done) == [False, False, False, True]
    with turns.turn():
        pass


def test_who_waits_for_a_hash_in_vain_is_told_when_to_come_again(customer, monkeypatch):
    monkeypatch.setattr(tokens, "HASHING_WAIT_S", 0.05)
    monkeypatch.setattr(tokens, "turns", Turns(1))
    with tokens.turns.turn():
        answer = a_browser().sign_in(customer.email)

    assert (answer.status_code, answer.json()["code"], answer["Retry-After"]) == (429, "sign_in_busy", "2")
    assert a_browser().sign_in(customer.email).status_code == 200


# --- registering, resetting, messages --------------------------------------------------------------------------------


def registering(browser, number=0):
    body = {"phone": a_phone(), "email": f"new{number}@example.org", "password": PASSWORD, "full_name": "Amina Otieno"}
    return browser.post("auth/register", body)


def test_numbers_are_tried_at_registration_as_often_as_the_limit_says(customer, limits):
    limits(registration_address=3)
    taken = {"phone": customer.phone.number, "email": "x@example.org", "password": PASSWORD, "full_name": "Amina O"}
    for _ in range(3):
        assert a_browser().post("auth/register", taken).status_code == 409

    assert refused(a_browser().post("auth/register", taken))
    assert refused(registering(a_browser()))
    assert registering(a_browser("41.90.0.1")).status_code == 201


def test_registrations_from_everywhere_have_a_ceiling(limits):
    limits(registration_all=2)
    assert [registering(a_browser(f"41.90.0.{n}"), n).status_code for n in range(3)] == [201, 201, 429]


def test_a_weak_password_at_registration_is_no_try(limits):
    limits(registration_address=1)
    weak = {"phone": a_phone(), "email": "x@example.org", "password": "password12", "full_name": "Amina Otieno"}
    for _ in range(3):
        assert a_browser().post("auth/register", weak).status_code == 422
    assert registering(a_browser()).status_code == 201


@pytest.mark.parametrize("named", ["somebody", "nobody"])
def test_resets_are_asked_for_as_often_as_the_limit_says_and_the_customers_own_device_goes_on(customer, named):
    identifier = customer.email if named == "somebody" else "nobody@example.org"
    own = a_browser()
    own.sign_in(customer.email)
    for number in range(5):
        assert a_browser(f"41.90.0.{number}").post("auth/password-reset", {"identifier": identifier}).status_code == 202
    assert refused(a_browser("41.90.0.9").post("auth/password-reset", {"identifier": identifier}))
    assert AuditLog.objects.filter(action="user.password_reset_asked").count() == 5

    assert own.post("auth/password-reset", {"identifier": customer.email}).status_code == 202


@pytest.mark.parametrize("named", ["somebody", "nobody"])
def test_reset_codes_are_guessed_as_often_as_the_limit_says(customer, named, monkeypatch):
    hashed, encode = [], Argon2idHasher.encode

    def counted(*given):
        hashed.append(1)
        return encode(*given)

    monkeypatch.setattr(Argon2idHasher, "encode", counted)
    identifier = customer.email if named == "somebody" else "nobody@example.org"
    body = {"identifier": identifier, "code": "000000", "password": "nine herons over Lamu"}
    answers = [a_browser(f"41.90.0.{n}").post("auth/password-reset/confirm", body).status_code for n in range(12)]

    assert answers == [422] * 10 + [429] * 2
    assert len(hashed) == 10


# --- what asks Deriv -------------------------------------------------------------------------------------------------


def test_deriv_is_asked_for_one_customer_as_often_as_the_limit_says(signed_in, deriv):
    signed_in.steps_up()
    rows = AuditLog.objects.count()
    tries = [
        ("post", {"platform": "ws_v3", "token": "guess"}),
        ("post", {"platform": "rest", "code": "guess"}),
        ("get", None),
    ]
    statuses = [send(signed_in, *tries[number % 3]).status_code for number in range(40)]

    assert statuses.count(429) == 30
    assert 429 not in statuses[:10]
    assert AuditLog.objects.count() - rows <= 11
    assert signed_in.get("me/deriv-login").status_code != 429, "what asks nobody goes on"


def send(browser, method, body):
    return browser.get("me/deriv-login/authorize") if method == "get" else browser.post("me/deriv-login", body)


# --- Redis gone ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not program("redis-server"), reason="needs redis-server")
def test_guessing_has_its_limit_while_redis_is_killed_and_when_it_is_back(customer, monkeypatch, tmp_path):
    """Each of the two begins anew: five guesses here, five there, and no sixth anywhere."""
    server, clock = Redis(tmp_path / "redis", free_port()), [1000.0]
    server.start()
    monkeypatch.setattr(limiter, "redis", RedisStore(connect(server.url(0))))
    monkeypatch.setattr(limiter, "reach", Reach(monotonic=lambda: clock[0]))

    def guesses(most):
        return [a_browser().sign_in(customer.email, WRONG).status_code for _ in range(most)]

    try:
        assert guesses(3) == [401] * 3
        server.stop(signal.SIGKILL)
        assert guesses(7) == [401] * 5 + [429] * 2
        stored = repr(list(RateLimitCounter.objects.values()))
        assert HOME not in stored
        assert customer.email not in stored
        server.start()
        assert guesses(1) == [429], "nobody has asked Redis yet"
        clock[0] += 3
        assert guesses(6) == [401] * 5 + [429], "it came back empty"
    finally:
        server.stop()
    assert not limiter.reach.away


def test_the_day_ends_what_the_quarter_hour_lets_through(customer, limits):
    limits(login_identifier_day=7, login_identifier=100)
    assert [a_browser().sign_in(customer.email, WRONG).status_code for _ in range(8)] == [401] * 7 + [429]


def test_of_an_account_without_a_phone_the_limits_are_the_same():
    customer = a_customer(password=PASSWORD, email_verified_at=now(), phone_verified_at=None)
    assert [a_browser().sign_in(customer.email, WRONG).status_code for _ in range(6)] == [401] * 5 + [429]
