"""Log lines: JSON, who is acting, and nothing that a thief of logs could use."""

import io
import json
import logging

import pytest

from shared_kernel.domain.ports import Context
from shared_kernel.infrastructure.logs import formatter, redact
from shared_kernel.infrastructure.persistence import acting_as


@pytest.fixture
def logged():
    """Logs one line and returns it, parsed."""

    def log(message, *args, level=logging.INFO, **kwargs):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter())
        logger = logging.getLogger("tests.logs")
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        logger.log(level, message, *args, **kwargs)
        logger.removeHandler(handler)
        (line,) = stream.getvalue().splitlines()
        return json.loads(line)

    return log


def test_a_line_is_one_json_object_with_who_is_acting(logged):
    with acting_as(Context("user:1", request_id="r-1")):
        line = logged("deposit_created", extra={"transaction_id": "t-1"})

    assert line["event"] == "deposit_created"
    assert (line["actor"], line["request_id"], line["transaction_id"]) == ("user:1", "r-1", "t-1")
    assert (line["level"], line["logger"]) == ("info", "tests.logs")
    assert line["at"].endswith("Z")


def test_in_a_group_a_line_about_one_transaction_names_the_request_that_it_came_from(logged):
    with acting_as(Context("system:delivery"), {"t-1": Context("user:1", request_id="r-1"), "t-2": Context("user:2")}):
        assert logged("step_failed", extra={"transaction_id": "t-1"})["request_id"] == "r-1"
        assert logged("group_redone")["actor"] == "system:delivery"
    with acting_as(Context("user:1"), {"t-1": Context("user:1")}):
        assert logged("step_done")["aggregate_id"] == "t-1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("password", "hunter2"),
        ("access_token", "abc"),
        ("Authorization", "Bearer abc"),
        ("phone", "0712345678"),
        ("msisdn", 254712345678),
        ("PartyA", "254712345678"),
        ("full_name", "Wanjiku Kamau"),
        ("verification_code", "123456"),
        ("loginid", "CR900001"),
        ("SecurityCredential", "x=="),
        ("passkey", "y"),
    ],
)
def test_what_stands_under_a_telling_key_is_hidden_however_deep(logged, key, value):
    line = logged("asked", extra={key: value, "inner": {"list": [{key: value}]}})

    assert line[key] == line["inner"]["list"][0][key] == "[hidden]"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("called +254712345678 twice", "712345678"),
        ("called 0712 345 678", "345"),
        ("msisdn 254112345678, amount 5", "254112345678"),
        ("mail to wanjiku.k+x@example.co.ke bounced", "wanjiku"),
        ("Authorization: Bearer abcdefgh12345", "abcdefgh"),
        ("jwt eyJhbGciOi.eyJzdWIiOiI.c2ln here", "eyJ"),
        ("POST /cb/s/3f9aXk-_0 404", "3f9aXk"),
        ("mysql://penpay:s3cret@db/penpay", "s3cret"),
        ("(1062, \"Duplicate entry 'Wanjiku' for key 'x'\")", "Wanjiku"),
        ('{"password": "hunter2"}', "hunter2"),
        ("token=abc123&x=1", "abc123"),
        ("deriv a1-AbCdEfGhIjKlMnOpQrSt", "AbCdEf"),
    ],
)
def test_what_looks_like_personal_data_or_a_secret_is_taken_out_of_text(logged, text, secret):
    assert secret not in redact(text)
    assert secret not in logged("said %s", text)["event"]
    assert secret not in logged("said", extra={"detail": text})["detail"]


@pytest.mark.parametrize(
    "text",
    [
        "0192f000-0000-7000-8000-254712345678",
        "1300.00 KES at 129.50",
        "2026-03-01T12:00:00Z",
        "ws_CO_191220191020363925",
        "130000",
    ],
)
def test_ids_amounts_and_times_stay(text):
    assert redact(text) == text


def test_a_traceback_is_redacted_too(logged):
    try:
        raise ValueError("cannot call +254712345678")
    except ValueError:
        line = logged("failed", level=logging.ERROR, exc_info=True)

    assert "ValueError: cannot call [phone]" in line["exception"]
    assert "712345678" not in json.dumps(line)


def test_a_kra_pin_is_taken_out_of_any_text():
    assert redact("the PIN A123456789B is another's") == "the PIN [kra_pin] is another's"
    assert redact("CRA123456789B") == "CRA123456789B"  # a part of something longer


@pytest.mark.parametrize(
    "text",
    [
        "<WSGIRequest: GET '/oauth/deriv/return?code=ory_ac_s3cret.s3cret&state=s3cret'>",
        'GET /oauth/deriv/return?state=s3cret&code=s3cret%20 HTTP/1.1" 200',
        "https://api.example.com/oauth/deriv/return?state=s3cret&error=s3cret",
        "deriv said ory_at_s3cret-s3cret and ory_rt_s3cret_s3cret",
    ],
)
def test_what_deriv_s_redirect_carries_is_taken_out(text):
    assert "s3cret" not in redact(text)
