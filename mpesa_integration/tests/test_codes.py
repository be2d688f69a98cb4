"""The code tables against the contract, row by row, and the parser against its samples."""

import json
from pathlib import Path

import pytest

from mpesa_integration.domain import answers, codes, wire
from mpesa_integration.domain.answers import Answer, Failure
from mpesa_integration.domain.codes import Kind
from mpesa_integration.domain.results import read_stk
from mpesa_integration.tests.factories import kes
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Refused, Unknown

CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "mpesa"
SAMPLES = CONTRACT / "samples"
CHECKOUT = "ws_CO_28062021092409117708374149"
needs_contract = pytest.mark.skipif(not CONTRACT.exists(), reason="the contract is not beside this checkout")


def rows(space: str) -> list[dict[str, str]]:
    if not CONTRACT.exists():
        return []
    return [row for row in json.loads((CONTRACT / "codes.json").read_text())["rows"] if row["space"] == space]


def sample(name: str) -> str:
    return (SAMPLES / name).read_text()


@needs_contract
@pytest.mark.parametrize("row", rows("stk_result"), ids=lambda row: row["code"])
def test_every_stk_result_has_the_contracts_class(row):
    meaning = codes.STK_RESULTS.get(row["code"], codes.UNRECOGNISED)

    assert meaning.kind == row["class"]
    assert bool(meaning.reason) == (meaning.kind in {Kind.FAILURE, Kind.RETRIABLE})


@needs_contract
def test_the_table_of_results_names_no_code_that_the_contract_does_not():
    assert codes.STK_RESULTS.keys() == {row["code"] for row in rows("stk_result")} - {"*"}


@needs_contract
@pytest.mark.parametrize(
    "row",
    [row for row in rows("gateway_error") if row["code"] != "HTTP 400 empty"],  # an answer to the token call alone
    ids=lambda row: f"{row['code']} {row.get('match_message', '')}".strip(),
)
def test_every_gateway_error_has_the_contracts_class_for_a_push(row):
    special = {
        "HTTP 429": Answer.of(429, ""),
        "HTTP 503 HTML": Answer.of(503, "<html></html>"),
        "no connection": Answer(0, failure=Failure.NOT_CONNECTED),
        "no answer": Answer(0, failure=Failure.NO_ANSWER),
    }
    body = {"errorCode": row["code"], "errorMessage": row.get("match_message", "Something else")}
    answer = special.get(row["code"]) or Answer.of(int(row.get("http_status", 500)), json.dumps(body))

    expected = {
        "final-failure": Refused,
        "retriable": NotSent,
        "unknown": Unknown,
        "pending": Unknown,  # an answer to queries; to a push it says nothing
    }[row["class"]]
    assert isinstance(answers.push_outcome(answer), expected)


@needs_contract
def test_the_table_of_gateway_errors_names_no_code_that_the_contract_does_not():
    assert {code for code, _, _ in codes.GATEWAY} <= {row["code"] for row in rows("gateway_error")}


@needs_contract
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stk_query_response_success.json", Done("")),
        ("stk_query_response_pending_4999.json", Accepted()),
        ("stk_query_error_pending.json", Accepted()),
        ("stk_query_response_cancelled.json", Refused("1032", codes.STK_RESULTS["1032"].reason)),
        ("stk_query_response_timeout.json", Refused("1037", codes.STK_RESULTS["1037"].reason)),
    ],
)
def test_the_samples_of_query_answers_are_read(name, expected):
    status, text = (500 if "error" in name else 200), sample(name)

    outcome = answers.query_outcome(Answer.of(status, text), CHECKOUT, "2654-4b64-97ff-b827b542881d3130")

    assert outcome == type(expected)(
        **{f: getattr(expected, f) for f in expected.__slots__ if f != "answer"}, answer=text
    )


@needs_contract
def test_the_samples_of_push_answers_are_read():
    accepted = answers.push_outcome(Answer.of(200, sample("stk_push_response.json")))
    locked = answers.push_outcome(Answer.of(500, sample("stk_push_error_subscriber_locked.json")))

    assert isinstance(accepted, Accepted)
    assert accepted.references["CheckoutRequestID"] == CHECKOUT
    assert isinstance(locked, Refused)
    for name in ("stk_push_error_wrong_credentials.json", "stk_push_error_invalid_callback.json"):
        assert isinstance(answers.push_outcome(Answer.of(500, sample(name))), Refused)


@needs_contract
def test_the_samples_of_pull_are_read():
    page = answers.pull_rows(Answer.of(200, sample("pull_query_response.json")))

    assert isinstance(page, list)
    assert [row["billreference"] for row in page] == ["PPD7K2M9QX4A"]
    assert answers.pull_rows(Answer.of(200, sample("pull_query_response_empty.json"))) == []


@needs_contract
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("stk_callback_*.json")), ids=lambda path: path.stem)
def test_the_samples_of_callbacks_are_read(path):
    claim = read_stk(path.read_bytes())

    assert claim is not None
    assert claim.checkout_request_id == CHECKOUT
    success = "success" in path.stem
    assert claim.result_code == path.stem.split("_", 3)[3].split("_masked")[0].split("_with")[0]
    assert (claim.amount, claim.receipt) == ((kes(1500), "PFS7RT61SV") if success else (None, ""))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        ("0", "0"),
        (" 0 ", "0"),
        ("SFC_IC0003", "SFC_IC0003"),
        (2001, "2001"),
        (True, ""),
        (False, ""),
        (None, ""),
        (-1, ""),
        ([], ""),
        ("", ""),
        ("0\x00", ""),
        ("\ud800", ""),
        (10**300, ""),
        ("x" * 65, ""),
    ],
)
def test_what_is_no_code_is_never_zero(value, expected):
    assert wire.code_of(value) == expected


@pytest.mark.parametrize(
    "text",
    ["1E+999999999", "NaN", "Infinity", "-Infinity", "1500.001", "", "abc", "9" * 4000, "1e-400", None, True, [], {}],
)
def test_what_is_no_amount_of_shillings_is_none_and_takes_no_time(text):
    assert wire.kes_of(text) is None


def test_amounts_are_exact_as_numbers_and_as_text():
    body = wire.read_object(b'{"a": 8959269.60, "b": "1500.00", "c": 1500}')

    assert body is not None
    assert [wire.kes_of(body[key]) for key in "abc"] == [
        kes(895926960).__class__(895926960, kes(1).currency),
        kes(1500),
        kes(1500),
    ]
