"""How much anybody may send, whatever it is: nobody's session is held up by neighbours, strangers or dead tokens."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from identity.facade import queries
from identity.tests.clients import HOME, a_browser, refused
from identity.tests.factories import PASSWORD, a_customer
from shared_kernel.facade import limiter
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db


def test_a_session_has_a_rate_of_its_own_that_no_neighbour_uses_up(customer, limits):
    own, neighbour = a_browser(), a_browser()
    own.sign_in(customer.email)
    neighbour.sign_in(a_customer(password=PASSWORD).email)
    limits(api_session=4, api_address=2)
    for _ in range(9):
        neighbour.get("me")
        stranger = a_browser().get("me")

    assert refused(stranger)
    assert [own.get("me").status_code for _ in range(5)] == [200] * 4 + [429]
    row = AuditLog.objects.filter(action="rate_limit.reached", target_id="api.session").order_by("-seq")[0]
    assert row.actor.startswith("user:")
    assert a_browser("41.90.0.1").get("me").status_code == 401


def test_a_known_device_refreshes_its_session_whatever_its_neighbours_behind_one_address_send(customer, limits):
    own, thief = a_browser(), a_browser()
    own.sign_in(customer.email)
    limits(api_address=2, api_device=5)
    for _ in range(4):
        stranger = a_browser().get("me")
    assert refused(stranger)
    del own.cookies["penpay_access"]

    assert own.post("auth/refresh").status_code == 204
    own.cookies["penpay_access"] = ""
    assert own.sign_in(customer.email).status_code == 200
    thief.cookies["penpay_device"] = own.cookies["penpay_device"].value[:-4] + "AAAA"
    assert refused(thief.post("auth/refresh"))
    own.cookies["penpay_access"] = ""
    assert [own.post("auth/logout-all").status_code for _ in range(4)] == [401] * 3 + [429]


def test_neighbours_who_are_signed_in_keep_no_live_session_out_however_much_they_send(customer, limits):
    own, neighbour = a_browser(), a_browser()
    own.sign_in(customer.email)
    neighbour.sign_in(a_customer(password=PASSWORD).email)
    limits(api_address_signed_in=3, api_session=6)
    assert [neighbour.get("me").status_code for _ in range(8)] == [200] * 6 + [429] * 2
    assert [own.get("me").status_code for _ in range(7)] == [200] * 6 + [429]


def test_where_all_who_are_signed_in_send_too_much_a_dead_session_counts_as_its_address(customer, limits):
    own, dead = a_browser(), a_browser("41.90.0.1")
    own.sign_in(customer.email)
    dead.sign_in(a_customer(password=PASSWORD).email)
    token = dead.cookies["penpay_access"].value
    dead.post("auth/logout")
    limits(api_address_signed_in=1, api_address=3)
    own.get("me")

    thief = a_browser()
    thief.cookies["penpay_access"] = token
    assert [thief.http.get("/api/v1/nothing").status_code for _ in range(3)] == [404, 404, 429]
    assert own.get("me").status_code == 200


def test_a_dead_token_uses_up_its_address_and_nothing_of_its_owners(customer, limits):
    own = a_browser()
    own.sign_in(customer.email)
    thief, thief_address = own.twin(), "41.90.0.66"
    thief.http.defaults["REMOTE_ADDR"] = thief_address
    own.post("auth/logout-all")
    assert own.sign_in(customer.email).status_code == 200
    limits(api_session=5, api_address=3, api_device=1)
    del thief.cookies["penpay_device"]

    assert [thief.get("me").status_code for _ in range(5)] == [401] * 3 + [429] * 2
    for _ in range(9):
        thief.http.get("/api/v1/auth/csrf")
    assert refused(a_browser(thief_address).get("me"))
    assert [own.get("me").status_code for _ in range(5)] == [200] * 5


def test_forged_cookies_of_devices_are_looked_for_as_often_as_the_limit_says(customer, limits):
    own, thief = a_browser(), a_browser()
    own.sign_in(customer.email)
    del own.cookies["penpay_access"]
    thief.cookies["penpay_device"] = "01a2288c-3f01-726a-8c39-42f4f35a0e7a.forged"
    limits(api_address=1, api_device=60, api_address_unknown=4)
    for _ in range(8):
        own.post("auth/refresh")
        del own.cookies["penpay_access"]
    with CaptureQueriesContext(connection) as asked:
        for _ in range(20):
            assert refused(thief.http.get("/api/v1/auth/nothing"))
    assert len([query for query in asked.captured_queries if "devices" in query["sql"]]) == 4


@pytest.mark.parametrize("token", ["", "nonsense", "eyJhbGciOiJub25lIn0.e30."])
def test_a_token_that_is_not_ours_is_counted_by_its_address(limits, token):
    limits(api_address=3)
    stranger = a_browser()
    stranger.cookies["penpay_access"] = token
    assert [stranger.get("me").status_code for _ in range(4)] == [401] * 3 + [429]
    assert refused(stranger.get("there/is/no/such/page"))


def test_callbacks_and_probes_are_never_refused(limits):
    limits(api_address=1)
    http = Client(REMOTE_ADDR=HOME)
    http.get("/api/v1/me")
    assert http.get("/api/v1/me").status_code == 429
    for _ in range(20):
        assert http.post("/cb/s/some-token", "{}", "application/json").status_code == 404  # no token of ours
        assert http.get("/health/live").status_code == 200


def test_an_authenticated_request_costs_one_round_trip_and_one_query_more(signed_in, django_assert_num_queries):
    if limiter.redis is None:
        pytest.skip("needs Redis")
    somebody = a_customer()
    with django_assert_num_queries(1):  # what the page itself asks
        list(queries.devices_of(somebody.id))
    before = limiter.redis.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    with django_assert_num_queries(2):
        assert signed_in.get("me/devices").status_code == 200
    assert limiter.redis.client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1


def test_where_no_code_is_open_a_session_fills_no_audit_log():
    browser = a_browser()
    browser.sign_in(a_customer(password=PASSWORD, phone_verified_at=None).email)
    browser.steps_up()
    rows = AuditLog.objects.count()
    for path in ("auth/step-up", "me/phone-verification/confirm", "me/email-verification/confirm", "me/phone/confirm"):
        for _ in range(3):
            assert browser.post(path, {"code": "000000"}).json()["code"] == "no_open_code"
    assert AuditLog.objects.count() == rows
