"""The simulated Transaction Status, Account Balance and Reversal, over HTTP and held against the contract's samples."""

import pytest

from mpesa_integration.tests.simulated import (
    BALANCE,
    PHONE,
    REVERSAL,
    STATUS,
    calling,
    needs_contract,
    parameters,
    sample,
    shape,
    until,
)


@pytest.fixture
def mpesa(mpesa_simulator):
    with calling(mpesa_simulator) as caller:
        yield caller


def paid(mpesa, id="ppw_1"):
    """A payout that was made: its receipt."""
    mpesa.pay(id).raise_for_status()
    return until(lambda: mpesa.books())[0]["id"]


# --- Transaction Status ---------------------------------------------------------------------------------------------


@needs_contract
@pytest.mark.parametrize("name", ["by_originator_id", "by_receipt"])
def test_the_contracts_own_status_queries_are_taken_but_for_credential_and_urls(mpesa, name):
    own = {"SecurityCredential": mpesa.credential(), **mpesa.urls("t")}

    answer = mpesa.post(STATUS, sample(f"transaction_status_request_{name}.json"), **own)

    assert answer.status_code == 200
    assert answer.json().keys() == sample("transaction_status_response.json").keys()


@needs_contract
@pytest.mark.parametrize("by", ["OriginalConversationID", "TransactionID"])
def test_a_payouts_status_has_the_samples_shape_and_ids_of_its_own(mpesa, by):
    receipt = paid(mpesa)

    accepted = mpesa.ask(**{by: {"OriginalConversationID": "ppw_1", "TransactionID": receipt}[by]}).json()

    result, expected = mpesa.sink.result("/cb/t"), sample("transaction_status_result_completed.json")["Result"]
    said, listed = parameters(result), expected["ResultParameters"]["ResultParameter"]
    assert shape(result) == shape(expected)
    assert list(said) == [one["Key"] for one in listed]
    assert (said["TransactionStatus"], said["ReceiptNo"], said["Amount"]) == ("Completed", receipt, "1500")
    assert said["DebitPartyCharges"] == "Fee For B2C Payment|KES|5.00"
    assert (said["DebitPartyName"], said["CreditPartyName"]) == ("600992 - PenPay", f"{PHONE} - JOHN DOE")
    assert said["OriginatorConversationID"] == "ppw_1" != accepted["OriginatorConversationID"]
    assert result["OriginatorConversationID"] == accepted["OriginatorConversationID"]
    assert result["ConversationID"] == accepted["ConversationID"] != said["ConversationID"]


@needs_contract
def test_an_unknown_id_is_not_found_and_so_is_another_shortcodes_payment(mpesa):
    receipt = paid(mpesa)

    mpesa.ask(OriginalConversationID="ppw_2")
    result = mpesa.sink.result("/cb/t")
    mpesa.ask(TransactionID=receipt, PartyA=mpesa.simulator.shortcode)

    expected = sample("transaction_status_result_not_found.json")["Result"]
    assert shape(result) == shape(expected)
    assert (result["ResultCode"], result["ResultDesc"]) == (expected["ResultCode"], expected["ResultDesc"])
    assert mpesa.sink.result("/cb/t", 2)["ResultDesc"] == expected["ResultDesc"]


@needs_contract
def test_a_wrong_credential_fails_the_question_and_says_nothing_of_the_payment(mpesa):
    paid(mpesa)
    mpesa.ask(OriginalConversationID="ppw_1", SecurityCredential=mpesa.credential("wrong"))

    result = mpesa.sink.result("/cb/t")

    assert shape(result) == shape(sample("transaction_status_result_query_failed_2001.json")["Result"])
    assert result["ResultCode"] == 2001


def test_a_deposits_status_is_asked_by_its_receipt_and_has_the_parties_the_other_way_round(mpesa):
    receipt = mpesa.deposit()

    mpesa.ask(TransactionID=receipt, PartyA=mpesa.simulator.shortcode)

    said = parameters(mpesa.sink.result("/cb/t"))
    assert (said["TransactionStatus"], said["ReceiptNo"], said["Amount"]) == ("Completed", receipt, "1500")
    assert (said["DebitPartyName"], said["CreditPartyName"]) == (f"{PHONE} - JOHN DOE", "174379 - PenPay")


@pytest.mark.parametrize(
    "wrong",
    [
        {"OriginalConversationID": None},
        {"CommandID": "TransactionStatus"},
        {"IdentifierType": "1"},
        {"IdentifierType": 4},
        {"PartyA": "600000"},
        {"Initiator": None, "InitiatorName": "testapi"},
        {"Occasion": None, "Occassion": "OK"},
        {"TransactionID": "short"},
        {"ResultURL": "https://pay.example.co.ke/query"},
        {"Remarks": "x" * 101},
    ],
    ids=str,
)
def test_a_wrong_field_of_a_status_query_is_refused(mpesa, wrong):
    answer = mpesa.ask(**({"OriginalConversationID": "ppw_1"} | wrong))

    assert (answer.status_code, answer.json()["errorCode"]) == (400, "400.002.02")


def test_the_spellings_and_types_of_results_drift_as_they_are_told_to(mpesa):
    paid(mpesa)
    said = {}
    for number, drift in enumerate(("none", "old_keys", "repeated_key", "texts"), 1):
        mpesa.control("settings", {"drift": drift}).raise_for_status()
        mpesa.ask(OriginalConversationID="ppw_1")
        said[drift] = mpesa.sink.result("/cb/t", number)

    keys = {drift: [one["Key"] for one in r["ResultParameters"]["ResultParameter"]] for drift, r in said.items()}
    assert {"FinalizedTime", "Conversation ID", "Originator Conversation ID"} <= set(keys["old_keys"])
    assert isinstance(parameters(said["old_keys"])["Amount"], int)
    assert keys["repeated_key"].count("DebitPartyName") == 2
    assert "CreditPartyName" not in keys["repeated_key"]
    assert (said["none"]["ResultCode"], said["texts"]["ResultCode"]) == (0, "0")
    assert isinstance(said["texts"]["ReferenceData"]["ReferenceItem"], list)


def test_mixed_drift_is_the_same_for_the_same_seed(mpesa):
    def kinds():
        mpesa.control("reset", None)
        mpesa.take_token()
        mpesa.control("settings", {"drift": "mixed"})
        before = len(mpesa.sink.at("/cb/t"))
        for number in range(8):
            mpesa.ask(OriginalConversationID="ppw_1")
            mpesa.sink.result("/cb/t", before + number + 1)
        return [type(body["Result"]["ResultCode"]) for body in mpesa.sink.at("/cb/t")[before:]]

    first = kinds()

    assert first == kinds()
    assert set(first) == {int, str}


@pytest.mark.parametrize(("fault", "lie"), [("forged_failure", "Declined"), ("forged_success", "Completed")])
def test_a_forged_status_comes_to_the_right_url_without_the_questions_ids(mpesa, fault, lie):
    paid(mpesa)
    mpesa.arm("status", fault, count=1)
    accepted = mpesa.ask(OriginalConversationID="ppw_1").json()

    until(lambda: len(mpesa.sink.at("/cb/t")) == 2)

    by_ids = {body["Result"]["ConversationID"]: body["Result"] for body in mpesa.sink.at("/cb/t")}
    true = by_ids.pop(accepted["ConversationID"])
    [forged] = by_ids.values()
    assert parameters(true)["TransactionStatus"] == "Completed"
    assert parameters(forged)["TransactionStatus"] == lie


def test_status_can_say_pending_and_a_wrong_amount(mpesa):
    paid(mpesa)
    mpesa.arm("status", "pending_long", count=1)
    assert mpesa.fate(OriginalConversationID="ppw_1") == "Pending Authorized"
    mpesa.arm("status", "wrong_amount", count=1)

    mpesa.ask(OriginalConversationID="ppw_1")

    assert parameters(mpesa.sink.result("/cb/t", 2))["Amount"] == "1501"


@pytest.mark.parametrize(
    ("fault", "results", "notices"),
    [("lost_callback", 0, 0), ("queue_timeout", 0, 1), ("duplicate_callback", 2, 0), ("timeout_then_success", 1, 1)],
)
def test_a_status_answer_can_be_lost_doubled_or_timed_out(mpesa, fault, results, notices):
    paid(mpesa)
    mpesa.arm("status", fault, count=1, **({"after_s": 0.1} if fault == "timeout_then_success" else {}))
    mpesa.ask(OriginalConversationID="ppw_1")
    until(lambda: len(mpesa.sink.at("/cb/t")) == results and len(mpesa.sink.at("/cb/tt")) == notices)

    assert mpesa.fate(OriginalConversationID="ppw_1") == "Completed"


# --- Account Balance ------------------------------------------------------------------------------------------------


@needs_contract
def test_the_balance_tells_every_account_in_the_samples_form(mpesa):
    paid(mpesa)
    own = {"SecurityCredential": mpesa.credential(), **mpesa.urls("a")}
    answer = mpesa.post(BALANCE, sample("account_balance_request.json"), **own)
    assert answer.json().keys() == sample("account_balance_response.json").keys()

    result, expected = mpesa.sink.result("/cb/a"), sample("account_balance_result_success_0.json")["Result"]

    assert shape(result) == shape(expected)
    mine, theirs = (
        [record.split("|") for record in parameters(one)["AccountBalance"].split("&")] for one in (result, expected)
    )
    assert [record[0] for record in mine] == [record[0] for record in theirs]
    assert {len(record) for record in mine} == {len(record) for record in theirs}
    held = {record[0]: record[2] for record in mine}
    assert held["Utility Account"] == "9998500.00"
    assert held["Charges Paid Account"] == "-5.00"
    assert held["Working Account"] == "1000000.00"


@needs_contract
def test_a_balance_query_that_fails_has_one_parameter_as_a_bare_object(mpesa):
    mpesa.post(BALANCE, mpesa.a_balance_query(), SecurityCredential=mpesa.credential("wrong"))

    result = mpesa.sink.result("/cb/a")

    assert shape(result) == shape(sample("account_balance_result_failure_2001_single_object.json")["Result"])
    assert result["ResultCode"] == 2001


# --- Reversal -------------------------------------------------------------------------------------------------------


@needs_contract
def test_a_deposit_goes_back_once_and_the_second_time_is_r000001(mpesa):
    mpesa.control("customers", {"phone": PHONE, "balance": "2000"})
    receipt = mpesa.deposit()
    accepted = mpesa.reverse(receipt)
    assert accepted.json().keys() == sample("reversal_response.json").keys()
    result, expected = mpesa.sink.result("/cb/r"), sample("reversal_result_success_0.json")["Result"]
    mpesa.reverse(receipt)
    again = mpesa.sink.result("/cb/r", 2)

    assert shape(result) == shape(expected)
    assert list(parameters(result)) == list(parameters(expected))
    assert parameters(result)["OriginalTransactionID"] == receipt != result["TransactionID"]
    assert shape(again) == shape(sample("reversal_result_failure_R000001.json")["Result"])
    assert again["ResultCode"] == "R000001"
    deposit, back = mpesa.books()
    assert (deposit["from"], deposit["to"]) == (back["to"], back["from"]) == (PHONE, "174379/utility")
    assert (back["id"], back["reference"], back["amount"]) == (result["TransactionID"], receipt, "1500.00")
    assert mpesa.simulator.customers.at(PHONE).balance == 2000
    assert mpesa.simulator.accounts.of("174379", "utility") == 0


@needs_contract
def test_what_is_no_deposit_of_ours_can_not_be_reversed(mpesa):
    payout = paid(mpesa)
    deposit = mpesa.deposit()
    mpesa.reverse("SKC82PACB8")
    result = mpesa.sink.result("/cb/r")
    mpesa.reverse(payout, ReceiverParty=mpesa.simulator.b2c_shortcode)  # a B2C payment
    mpesa.reverse(deposit, ReceiverParty=mpesa.simulator.b2c_shortcode)  # came to another shortcode
    mpesa.reverse(deposit, Amount="1499")

    assert shape(result) == shape(sample("reversal_result_failure_R000002.json")["Result"])
    assert {mpesa.sink.result("/cb/r", number)["ResultCode"] for number in (1, 2, 3, 4)} == {"R000002"}
    assert [movement["kind"] for movement in mpesa.books()] == ["b2c", "fee", "stk"]


def test_a_reversal_needs_the_money_to_be_there(mpesa):
    receipt = mpesa.deposit()
    mpesa.simulator.accounts.balances["174379/utility"] -= 1
    mpesa.reverse(receipt)

    assert mpesa.sink.result("/cb/r")["ResultCode"] == 1
    assert len(mpesa.books()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"RecieverIdentifierType": None, "ReceiverIdentifierType": "11"},
        {"RecieverIdentifierType": "4"},
        {"CommandID": "Reversal"},
        {"TransactionID": "skc82pacb8"},
        {"Amount": "0"},
        {"ReceiverParty": "600000"},
        {"Remarks": "x"},
    ],
    ids=str,
)
def test_a_wrong_field_of_a_reversal_is_refused(mpesa, wrong):
    answer = mpesa.post(REVERSAL, mpesa.a_reversal("SKC82PACB8"), **wrong)

    assert (answer.status_code, answer.json()["errorCode"]) == (400, "400.002.02")


@pytest.mark.parametrize("word", ["Reversed", "Completed"])
def test_status_tells_a_reversed_deposit_by_the_word_that_is_set_and_pull_shows_it_still(mpesa, word):
    mpesa.control("settings", {"reversed_fate": word})
    receipt = mpesa.deposit()
    accepted = mpesa.reverse(receipt).json()
    mpesa.sink.result("/cb/r")

    assert mpesa.fate(TransactionID=receipt, PartyA=mpesa.simulator.shortcode) == word
    reversal = {"OriginalConversationID": accepted["OriginatorConversationID"], "PartyA": mpesa.simulator.shortcode}
    assert mpesa.fate(**reversal) == "Completed"
    assert [payment.receipt for _, _, payment in mpesa.simulator.paid] == [receipt]


@pytest.mark.parametrize(
    ("fault", "codes", "movements"),
    [
        ("forged_failure", {0, "R000002"}, 2),
        ("forged_success", {0, 1}, 1),
        ("duplicate_callback", {0}, 2),
        ("result_with", {17}, 1),
    ],
)
def test_a_reversals_result_can_be_forged_doubled_or_wanted(mpesa, fault, codes, movements):
    receipt = mpesa.deposit()
    mpesa.arm("reversal", fault, count=1)
    mpesa.reverse(receipt)
    until(lambda: len(mpesa.sink.at("/cb/r")) == (1 if fault == "result_with" else 2))

    assert {body["Result"]["ResultCode"] for body in mpesa.sink.at("/cb/r")} == codes
    assert len(mpesa.books()) == movements


@pytest.mark.parametrize("fault", ["lost_answer_after_effect", "lost_callback", "queue_timeout"])
def test_a_reversal_whose_end_is_not_told_is_shown_by_the_second_one(mpesa, fault):
    receipt = mpesa.deposit()
    mpesa.arm("reversal", fault, count=1)
    if fault == "lost_answer_after_effect":
        with pytest.raises(Exception, match=r"(?i)disconnected|reset"):
            mpesa.reverse(receipt)
    else:
        mpesa.reverse(receipt)
    until(lambda: len(mpesa.books()) == 2)
    before = len(mpesa.sink.at("/cb/r"))

    mpesa.reverse(receipt)

    codes = until(lambda: [b["Result"]["ResultCode"] for b in mpesa.sink.at("/cb/r")][before:])
    assert "R000001" in codes or mpesa.sink.result("/cb/r", before + 2)["ResultCode"] == "R000001"
    assert len(mpesa.books()) == 2


def test_m_pesa_can_reverse_a_deposit_later_without_a_word(mpesa):
    mpesa.arm("stk_push", "reverted_later", count=1, after_s=0.2)
    receipt = mpesa.deposit()
    until(lambda: len(mpesa.books()) == 2)

    deposit, back = mpesa.books()

    assert (back["kind"], back["reference"], back["to"]) == ("reversal", receipt, deposit["from"])
    assert len(mpesa.sink.heard) == 1  # the deposit's own callback
    assert mpesa.fate(TransactionID=receipt, PartyA=mpesa.simulator.shortcode) == "Reversed"
    mpesa.reverse(receipt)
    assert mpesa.sink.result("/cb/r")["ResultCode"] == "R000001"
