"""Reading results, time-out notices and confirmations: the contract's tables row by row, its samples, its drift."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mpesa_integration.domain import answers, codes
from mpesa_integration.domain.answers import Answer
from mpesa_integration.domain.callback import Attempt, CallbackKind as K, Claim, Verdict, judge
from mpesa_integration.domain.results import fee_of, read
from mpesa_integration.tests.factories import kes
from mpesa_integration.tests.test_codes import needs_contract, rows, sample
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, NotSent, Refused, Unknown
from shared_kernel.domain.requests import Blame, Leg, MpesaClaim

OURS = "ppw_01J9Z8T6Q4M2N7R5"
STOPS = {"2001", "18", "20", "21", "22", "8006", "11", "2006", "2028"}  # the contract's section 10
TABLES = {Leg.B2C_PAYOUT: ("b2c_result", codes.B2C_RESULTS), Leg.REVERSAL: ("reversal_result", codes.REVERSAL_RESULTS)}


@needs_contract
@pytest.mark.parametrize(
    ("leg", "row"),
    [(leg, row) for leg, (space, _) in TABLES.items() for row in rows(space)],
    ids=lambda value: value["code"] if isinstance(value, dict) else str(value),
)
def test_every_result_has_the_contracts_class_and_an_owner_where_it_failed(leg, row):
    kind, blame = codes.result_of(leg, row["code"])

    assert kind == row["class"]
    names_nobody = row["class"] != "final-failure" or row["code"] == "R000001"
    assert (blame is Blame.NONE) == names_nobody
    assert (blame is Blame.CREDENTIAL) == (row["code"] in STOPS)


@needs_contract
@pytest.mark.parametrize("leg", TABLES)
def test_no_table_names_a_code_that_the_contract_does_not(leg):
    space, table = TABLES[leg]

    assert table.keys() == {row["code"] for row in rows(space)} - {"*"}


def test_a_payouts_failure_is_the_recipients_only_by_the_contracts_six_codes():
    recipients = {code for code, (_, blame) in codes.B2C_RESULTS.items() if blame is Blame.RECIPIENT}

    assert recipients == {"2", "3", "4", "8", "2040", "SFC_IC0003"}


@pytest.mark.parametrize("code", ["", "3", "17", "999", "SFC_IC0004"])
@pytest.mark.parametrize("leg", [Leg.REVERSAL, Leg.STATUS_QUERY, Leg.ACCOUNT_BALANCE])
def test_a_number_of_another_product_says_nothing_here(leg, code):
    assert codes.result_of(leg, code) == (codes.Kind.UNKNOWN, Blame.NONE)


@pytest.mark.parametrize("code", sorted(STOPS))
def test_an_error_of_the_credential_is_one_on_every_call_in_the_initiators_name_and_on_no_other(code):
    assert all(codes.is_initiator_error(leg, code) for leg in codes.IN_INITIATORS_NAME)
    assert not codes.is_initiator_error(Leg.STK_PUSH, code)  # 2001 is a wrong PIN there


@needs_contract
@pytest.mark.parametrize("row", rows("status_value"), ids=lambda row: row["code"])
def test_every_status_word_has_the_contracts_class(row):
    """`Failed` is no word of the portal's: final only after a second look, hence not taken for an end."""
    claim = MpesaClaim("0", datetime(2026, 1, 2, tzinfo=UTC), fate=row["code"])

    assert claim.is_done == (row["class"] == "final-success")
    assert claim.is_dead == (row["class"] == "final-failure" and row["code"] != "Failed")


@needs_contract
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("b2c_v3_response.json", Accepted),
        ("b2c_v3_error_duplicate.json", Unknown),
        ("b2c_v3_error_invalid_initiator.json", Refused),
        ("gateway_error_500_003_02_busy.json", NotSent),
        ("gateway_error_500_003_03_quota.json", NotSent),
        ("gateway_error_500_003_1001.json", Unknown),
        ("gateway_error_401_002_01.json", NotSent),
        ("transaction_status_response.json", Unknown),  # about another id than ours
    ],
)
def test_the_samples_of_payout_answers_are_read(name, expected):
    status = 500 if "error" in name else 200

    assert isinstance(answers.queued_outcome(Answer.of(status, sample(name)), OURS), expected)


@needs_contract
@pytest.mark.parametrize("name", ["transaction_status", "reversal", "account_balance"])
def test_the_samples_of_other_answers_carry_their_conversation_id(name):
    text = sample(f"{name}_response.json")

    outcome = answers.queued_outcome(Answer.of(200, text))

    assert isinstance(outcome, Accepted)
    assert outcome.references == {"ConversationID": json.loads(text)["ConversationID"]}


@needs_contract
@pytest.mark.parametrize(
    "row",
    [row for row in rows("gateway_error") if row["code"][0].isdigit()],
    ids=lambda row: f"{row['code']} {row.get('match_message', '')}".strip(),
)
def test_every_gateway_error_has_the_contracts_class_for_a_payout(row):
    body = {"errorCode": row["code"], "errorMessage": row.get("match_message", "Something else")}
    outcome = answers.queued_outcome(Answer.of(int(row.get("http_status", 500)), json.dumps(body)), OURS)

    expected = {"final-failure": Refused, "retriable": NotSent, "unknown": Unknown, "pending": Unknown}
    assert type(outcome) is expected[row["class"]]


@needs_contract
@pytest.mark.parametrize(
    ("name", "blame"),
    [
        ("1", Blame.FLOAT),
        ("2", Blame.RECIPIENT),
        ("4", Blame.RECIPIENT),
        ("8", Blame.RECIPIENT),
        ("2040", Blame.RECIPIENT),
        ("SFC_IC0003", Blame.RECIPIENT),
        ("21", Blame.CREDENTIAL),
        ("2001", Blame.CREDENTIAL),
        ("8006", Blame.CREDENTIAL),
        ("15_duplicate", Blame.NONE),
    ],
)
def test_the_samples_of_failed_payouts_are_read(name, blame):
    claim = read(K.B2C, sample(f"b2c_result_failure_{name}.json").encode())

    assert (claim.result_code, claim.blame) == (name.split("_d")[0], blame)
    assert (claim.amount, claim.receipt) == (None, "")  # a TransactionID proves nothing
    assert claim.originator_conversation_id == OURS


@needs_contract
def test_the_sample_of_a_payout_is_read():
    claim = read(K.B2C, sample("b2c_result_success_0.json").encode())

    assert (claim.result_code, claim.amount, claim.receipt) == ("0", kes(1500), "SG632NMUAB")
    assert claim.receiver == Phone("254705912645")


@needs_contract
@pytest.mark.parametrize("form", ["flat", "enveloped"])
def test_both_forms_of_a_time_out_notice_are_no_failure(form):
    claim = read(K.B2C_TIMEOUT, sample(f"b2c_queue_timeout_{form}.json").encode())

    assert (claim.result_code, claim.originator_conversation_id, claim.blame) == ("timeout", OURS, Blame.NONE)


@needs_contract
@pytest.mark.parametrize(
    ("name", "fate", "amount", "fee", "about"),
    [
        ("completed", "Completed", kes(1500), kes(5), {OURS, "SG632NMUAB"}),
        ("completed_old_keys", "Completed", kes(10), kes(33), {"19455-773836-1", "LGR919G2AV"}),
        ("declined", "Declined", kes(1500), kes(5), {OURS, "SG632NMUAB"}),
    ],
)
def test_the_samples_of_states_are_read(name, fate, amount, fee, about):
    claim = read(K.STATUS, sample(f"transaction_status_result_{name}.json").encode())

    assert (claim.result_code, claim.fate, claim.amount, claim.fee, claim.about) == ("0", fate, amount, fee, about)


@needs_contract
@pytest.mark.parametrize(
    ("name", "code", "blame"), [("not_found", "1", Blame.NONE), ("query_failed_2001", "2001", Blame.CREDENTIAL)]
)
def test_a_question_that_was_not_answered_has_no_fate(name, code, blame):
    claim = read(K.STATUS, sample(f"transaction_status_result_{name}.json").encode())

    assert (claim.result_code, claim.fate, claim.blame) == (code, "", blame)


@needs_contract
def test_the_samples_of_reversals_are_read():
    done = read(K.REVERSAL, sample("reversal_result_success_0.json").encode())

    assert (done.amount, done.receipt, done.about, done.fee) == (kes(200), "SKE52PAWR9", {"SKC82PACB8"}, kes(0))
    for code, blame in (("R000001", Blame.NONE), ("R000002", Blame.OURS)):
        failed = read(K.REVERSAL, sample(f"reversal_result_failure_{code}.json").encode())
        assert (failed.result_code, failed.blame) == (code, blame)


@needs_contract
def test_the_samples_of_balances_are_read():
    claim = read(K.BALANCE, sample("account_balance_result_success_0.json").encode())

    assert {balance.account: balance.available for balance in claim.balances} == {
        "Working Account": kes(700_000),
        "Float Account": kes(0),
        "Utility Account": kes(228_037),
        "Charges Paid Account": kes(-1540),
        "Organization Settlement Account": kes(0),
    }
    failed = read(K.BALANCE, sample("account_balance_result_failure_2001_single_object.json").encode())
    assert (failed.result_code, failed.blame, failed.balances) == ("2001", Blame.CREDENTIAL, ())


@needs_contract
@pytest.mark.parametrize("name", ["", "_v1_hashed"])
def test_the_samples_of_confirmations_are_read(name):
    claim = read(K.CONFIRMATION, sample(f"c2b_confirmation_callback{name}.json").encode())

    assert (claim.amount, claim.receipt, claim.reference, claim.shortcode) == (
        kes(1500),
        "RKL51ZDR4F",
        "PPD7K2M9QX4A",
        "600966",
    )


@pytest.mark.parametrize(
    ("text", "fee"),
    [
        ("Fee For B2C Payment|KES|5.00", kes(5)),
        ("Fee For B2C Payment|KES|5.50", Money(550, Currency.KES)),
        ("Fee For B2C Payment|KES|5.00&Excise Duty|KES|1.00", kes(6)),
        ("", None),
        (None, None),
        ("Fee For B2C Payment|USD|5.00", None),
        ("Fee For B2C Payment|KES|-5.00", None),
        ("Fee For B2C Payment|KES|5.00&Another|KES|some", None),
        ("5.00", None),
        (5, None),
        ("|KES|1E+999999999", None),
    ],
)
def test_a_fee_is_read_in_full_or_not_at_all(text, fee):
    assert fee_of(text) == fee


# --- what a claim is held against ------------------------------------------------------------------------------------

ATTEMPT = Attempt(
    id=None,  # type: ignore[arg-type]  # of no matter here
    transaction_id=None,
    leg=Leg.B2C_PAYOUT,
    reference="ours",
    about="",
    amount=kes(1500),
    shortcode="600992",
    phone=Phone("254708374149"),
    merchant_request_id="",
    checkout_request_id="",
    conversation_id="AG_1",
    receipt="",
    receipt_taken=False,
    seen=False,
)
PAID = Claim(
    result_code="0",
    amount=kes(1500),
    receipt="SG632NMUAB",
    originator_conversation_id="ours",
    conversation_id="AG_1",
    receiver=Phone("254708374149"),
)
TOLD = replace(PAID, originator_conversation_id="theirs", about=frozenset({"ours"}), fate="Completed", receiver=None)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, Verdict.AGREES),
        ({"receiver": None}, Verdict.AGREES),
        ({"conversation_id": ""}, Verdict.AGREES),
        ({"conversation_id": "AG_2"}, Verdict.DISAGREES),
        ({"originator_conversation_id": "another"}, Verdict.DISAGREES),
        ({"amount": kes(1501)}, Verdict.DISAGREES),
        ({"amount": None}, Verdict.DISAGREES),
        ({"receipt": ""}, Verdict.DISAGREES),
        ({"receiver": Phone("254708374140")}, Verdict.DISAGREES),
        ({"more_follows": True}, Verdict.NOT_FINAL),
        ({"result_code": "2040", "amount": None, "receipt": ""}, Verdict.AGREES),
        ({"result_code": "2040", "originator_conversation_id": "another"}, Verdict.DISAGREES),
    ],
    ids=str,
)
def test_a_payouts_claim_agrees_by_ids_amount_receipt_and_receiver(changed, verdict):
    assert judge(K.B2C, replace(PAID, **changed), ATTEMPT) is verdict
    assert judge(K.B2C, PAID, replace(ATTEMPT, receipt_taken=True)) is Verdict.DISAGREES


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, Verdict.AGREES),
        ({"about": frozenset({"another"})}, Verdict.DISAGREES),
        ({"about": frozenset()}, Verdict.DISAGREES),
        ({"amount": kes(1501)}, Verdict.AGREES),
        ({"amount": kes(1501), "fate": "Declined", "receipt": ""}, Verdict.DISAGREES),
        ({"amount": None}, Verdict.DISAGREES),
        ({"fate": ""}, Verdict.DISAGREES),
        ({"receipt": ""}, Verdict.DISAGREES),
        ({"fate": "Declined", "receipt": ""}, Verdict.AGREES),
        ({"conversation_id": "AG_2"}, Verdict.DISAGREES),
        ({"result_code": "1", "about": frozenset(), "amount": None, "fate": ""}, Verdict.AGREES),
    ],
    ids=str,
)
def test_an_answer_agrees_only_if_it_is_about_the_payment_asked_about(changed, verdict):
    question = replace(ATTEMPT, leg=Leg.STATUS_QUERY, reference="own", about="ours", phone=None)

    assert judge(K.STATUS, replace(TOLD, **changed), question) is verdict


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, Verdict.AGREES),
        ({"about": frozenset()}, Verdict.AGREES),
        ({"amount": None}, Verdict.AGREES),
        ({"about": frozenset({"UKV7RT61SX"})}, Verdict.DISAGREES),
        ({"amount": kes(1)}, Verdict.DISAGREES),
        ({"conversation_id": "AG_2"}, Verdict.DISAGREES),
        ({"result_code": "R000001"}, Verdict.AGREES),
    ],
    ids=str,
)
def test_a_reversals_result_agrees_as_far_as_its_ids_say(changed, verdict):
    attempt = replace(ATTEMPT, leg=Leg.REVERSAL, about="UKV7RT61SV", phone=None)
    claim = replace(PAID, originator_conversation_id="theirs", about=frozenset({"UKV7RT61SV"}), receiver=None)

    assert judge(K.REVERSAL, replace(claim, **changed), attempt) is verdict
