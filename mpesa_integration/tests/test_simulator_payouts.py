"""The simulated B2C, over HTTP and held against the contract's samples: what it refuses, what it pays, how it tells."""

import re
import time
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from mpesa_integration.simulator.initiator import CERTIFICATE
from mpesa_integration.tests.simulated import (
    B2C,
    BALANCE,
    PHONE,
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


def paid(mpesa):
    """The payouts in the books, without their charges."""
    return [movement for movement in mpesa.books() if movement["kind"] == "b2c"]


# --- what it answers at once ----------------------------------------------------------------------------------------


@needs_contract
def test_the_contracts_own_request_is_taken_but_for_its_credential_and_urls(mpesa):
    own = {"SecurityCredential": mpesa.credential(), **mpesa.urls("b")}

    answer = mpesa.post(B2C, sample("b2c_v3_request.json"), **own)

    assert answer.status_code == 200
    assert answer.json().keys() == sample("b2c_v3_response.json").keys()
    assert answer.json()["OriginatorConversationID"] == "ppw_01J9Z8T6Q4M2N7R5"
    assert answer.json()["ResponseCode"] == "0"
    assert re.fullmatch(r"AG_\d{8}_[0-9a-f]{20}", answer.json()["ConversationID"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"OriginatorConversationID": None}, "OriginatorConversationID"),
        ({"OriginatorConversationID": "x" * 33}, "OriginatorConversationID"),
        ({"OriginatorConversationID": "a b"}, "OriginatorConversationID"),
        ({"InitiatorName": None, "Initiator": "testapi"}, "InitiatorName"),
        ({"SecurityCredential": "EToK4lNR=="}, "SecurityCredential"),
        ({"SecurityCredential": "not base64"}, "SecurityCredential"),
        ({"CommandID": "businesspayment"}, "CommandID"),
        ({"Amount": "1500.00"}, "Amount"),
        ({"Amount": 1500.5}, "Amount"),
        ({"Amount": True}, "Amount"),
        ({"Amount": "-10"}, "Amount"),
        ({"PartyA": "174379"}, "PartyA"),
        ({"PartyA": 600992}, "PartyA"),
        ({"PartyB": "0705912645"}, "PartyB"),
        ({"PartyB": 254705912645}, "PartyB"),
        ({"Remarks": "x"}, "Remarks"),
        ({"Remarks": "a@b"}, "Remarks"),
        ({"Remarks": None}, "Remarks"),
        ({"QueueTimeOutURL": None}, "QueueTimeOutURL"),
        ({"ResultURL": "http://pay.example.co.ke/cb/b"}, "ResultURL"),
        ({"ResultURL": "https://pay.example.co.ke/mpesa/b"}, "ResultURL"),
        ({"Occassion": None, "Occasion": "PPW7K2M9QX4A"}, "Occasion"),
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_by_name_and_its_id_is_not_used_up(mpesa, wrong, named):
    refused = mpesa.pay("ppw_1", **wrong)

    assert (refused.status_code, refused.json()["errorCode"]) == (400, "400.002.02")
    assert refused.json()["errorMessage"] == f"Bad Request - Invalid {named}"
    assert mpesa.pay("ppw_1").status_code == 200


def test_b2c_v1_is_not_served(mpesa):
    assert mpesa.post("/mpesa/b2c/v1/paymentrequest", mpesa.a_payout()).json()["errorCode"] == "404.001.01"


@pytest.mark.parametrize("receives", ["ok", "unregistered", "never"])
def test_an_id_that_was_accepted_is_a_duplicate_for_ever_whatever_became_of_it(mpesa, receives):
    mpesa.control("customers", {"phone": PHONE, "receives": receives})
    mpesa.pay("ppw_1")
    until(lambda: receives == "never" or mpesa.sink.at("/cb/b"))
    mpesa.simulator.clock.advance(400 * 86_400)
    mpesa.take_token()

    again = mpesa.pay("ppw_1", Amount="20")

    assert (again.status_code, again.json()["errorCode"]) == (500, "500.002.1001")
    assert again.json()["errorMessage"] == "Duplicate OriginatorConversationID."
    time.sleep(0.1)
    assert len(paid(mpesa)) == (1 if receives == "ok" else 0)


# --- what it pays, and how it tells ---------------------------------------------------------------------------------


@needs_contract
def test_a_success_is_told_in_the_samples_shape_and_stands_in_the_books_with_its_charge(mpesa):
    mpesa.pay("ppw_1")

    result = mpesa.sink.result("/cb/b")

    told = {"Result": result}
    assert shape(told) == shape(sample("b2c_result_success_0.json"))
    listed = sample("b2c_result_success_0.json")["Result"]["ResultParameters"]["ResultParameter"]
    said = parameters(result)
    assert list(said) == [one["Key"] for one in listed]
    assert (said["TransactionAmount"], said["ReceiverPartyPublicName"]) == (1500, f"{PHONE} - JOHN DOE")
    assert re.fullmatch(r"\d\d\.\d\d\.\d{4} \d\d:\d\d:\d\d", said["TransactionCompletedDateTime"])
    assert (said["B2CUtilityAccountAvailableFunds"], said["B2CChargesPaidAccountAvailableFunds"]) == (9_998_500, -5)
    payout, charge = mpesa.books()
    assert payout["id"] == said["TransactionReceipt"] == result["TransactionID"]
    assert (payout["reference"], payout["from"], payout["to"]) == ("ppw_1", "600992/utility", PHONE)
    assert (payout["amount"], payout["currency"]) == ("1500.00", "KES")
    assert (charge["from"], charge["to"], charge["amount"]) == ("600992/charges_paid", "safaricom", "5.00")
    assert charge["reference"] == payout["id"] != charge["id"]


@needs_contract
@pytest.mark.parametrize(
    ("receives", "name"),
    [
        ("unregistered", "b2c_result_failure_2040.json"),
        ("over_wallet", "b2c_result_failure_8.json"),
        ("over_day", "b2c_result_failure_4.json"),
        ("not_on_mpesa", "b2c_result_failure_SFC_IC0003.json"),
    ],
)
def test_a_recipient_that_can_not_be_paid_fails_as_the_sample_and_moves_nothing(mpesa, receives, name):
    mpesa.control("customers", {"phone": PHONE, "receives": receives})
    mpesa.pay("ppw_1")

    result, expected = mpesa.sink.result("/cb/b"), sample(name)["Result"]

    assert shape(result) == shape(expected)
    assert (result["ResultCode"], result["ResultDesc"]) == (expected["ResultCode"], expected["ResultDesc"])
    assert re.fullmatch(r"[A-Z0-9]{10}", result["TransactionID"])  # which proves nothing
    assert mpesa.books() == []
    assert mpesa.fate(OriginalConversationID="ppw_1") == "Declined"


@pytest.mark.parametrize(("amount", "code"), [("9", 2), ("250001", 3)])
def test_an_amount_outside_of_the_limits_is_accepted_and_then_declined(mpesa, amount, code):
    assert mpesa.pay(Amount=amount).status_code == 200

    assert mpesa.sink.result("/cb/b")["ResultCode"] == code
    assert mpesa.books() == []


def test_a_float_too_low_declines_and_a_fuller_one_pays_under_a_new_id(mpesa):
    mpesa.control("settings", {"float": {"utility": "1499"}})
    mpesa.pay("ppw_1")
    assert mpesa.sink.result("/cb/b")["ResultCode"] == 1
    mpesa.control("settings", {"float": {"utility": "1500"}})

    assert mpesa.pay("ppw_1").json()["errorCode"] == "500.002.1001"
    mpesa.pay("ppw_2")

    assert mpesa.sink.result("/cb/b", 2)["ResultCode"] == 0
    assert mpesa.control("settings", {}).json()["accounts"]["600992/utility"] == "0.00"
    assert [movement["reference"] for movement in paid(mpesa)] == ["ppw_2"]


def test_the_float_ends_in_the_middle_of_a_batch(mpesa):
    mpesa.control("settings", {"float": {"utility": "3000"}})
    for _ in range(4):
        mpesa.pay()

    codes = [mpesa.sink.result("/cb/b", number)["ResultCode"] for number in (1, 2, 3, 4)]

    assert sorted(codes) == [0, 0, 1, 1]
    assert len(paid(mpesa)) == 2


def test_a_customer_gets_no_more_than_the_days_limit_until_the_next_day(mpesa):
    for amount in ("250000", "249000", "1001", "1000"):
        mpesa.pay(Amount=amount)
        until(lambda: len(mpesa.sink.at("/cb/b")) == len(mpesa.simulator.accounts.by_id))
    mpesa.simulator.clock.advance(86_400)
    mpesa.take_token()
    mpesa.pay(Amount="1001")

    assert [mpesa.sink.result("/cb/b", number)["ResultCode"] for number in range(1, 6)] == [0, 0, 4, 0, 0]


def test_a_wallet_holds_no_more_than_its_limit_and_no_limit_is_there_without_limits(mpesa):
    mpesa.control("customers", {"phone": PHONE, "balance": "498501"})
    mpesa.pay()
    assert mpesa.sink.result("/cb/b")["ResultCode"] == 8
    mpesa.control("settings", {"customer_limits": False})

    mpesa.pay()

    assert mpesa.sink.result("/cb/b", 2)["ResultCode"] == 0
    assert mpesa.simulator.customers.at(PHONE).balance == 500_001


@pytest.mark.parametrize(
    ("amount", "charge"),
    [("100", None), ("101", "5.00"), ("1500", "5.00"), ("1501", "9.00"), ("5001", "11.00"), ("20001", "13.00")],
)
def test_the_charge_follows_the_tariffs_bands(mpesa, amount, charge):
    mpesa.pay(Amount=amount)
    mpesa.sink.result("/cb/b")

    assert [movement["amount"] for movement in mpesa.books() if movement["kind"] == "fee"] == (
        [charge] if charge else []
    )


# --- the initiator --------------------------------------------------------------------------------------------------


def other_key(mpesa):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return b64encode(key.encrypt(mpesa.simulator.initiator_password.encode(), PKCS1v15())).decode()


def other_padding(mpesa):
    key = load_pem_x509_certificate(CERTIFICATE.read_bytes()).public_key()
    padding = OAEP(MGF1(SHA256()), SHA256(), None)
    return b64encode(key.encrypt(mpesa.simulator.initiator_password.encode(), padding)).decode()


@needs_contract
@pytest.mark.parametrize(
    "wrong",
    [
        lambda mpesa: {"SecurityCredential": mpesa.credential("wrong")},
        lambda mpesa: {"SecurityCredential": mpesa.credential(f"{mpesa.simulator.initiator_password}20261125")},
        lambda mpesa: {"SecurityCredential": other_key(mpesa)},
        lambda mpesa: {"SecurityCredential": other_padding(mpesa)},
        lambda mpesa: {"InitiatorName": "nobody"},
    ],
    ids=["password", "something appended", "certificate", "OAEP", "name"],
)
def test_a_wrong_credential_is_accepted_at_the_gate_and_fails_with_2001(mpesa, wrong):
    assert mpesa.pay(**wrong(mpesa)).status_code == 200

    result, expected = mpesa.sink.result("/cb/b"), sample("b2c_result_failure_2001.json")["Result"]
    assert shape(result) == shape(expected)
    assert (result["ResultCode"], result["ResultDesc"]) == (expected["ResultCode"], expected["ResultDesc"])
    assert mpesa.books() == []


def test_three_wrong_credentials_in_a_row_lock_the_initiator_for_every_call_until_a_person_unlocks_it(mpesa):
    for password in ("wrong", "wrong", None, "wrong", "wrong", "wrong"):  # a right one between begins anew
        mpesa.pay(SecurityCredential=mpesa.credential(password))
    mpesa.pay("ppw_locked")
    mpesa.post(BALANCE, mpesa.a_balance_query())

    codes = [mpesa.sink.result("/cb/b", number)["ResultCode"] for number in range(1, 8)]
    assert codes == [2001, 2001, 0, 2001, 2001, 2001, 8006]
    assert mpesa.sink.result("/cb/a")["ResultCode"] == 8006
    assert len(paid(mpesa)) == 1

    mpesa.control("settings", {"initiator_locked": False})
    mpesa.pay()
    assert mpesa.sink.result("/cb/b", 8)["ResultCode"] == 0


def test_an_initiator_without_the_role_is_refused_with_21(mpesa):
    mpesa.control("settings", {"initiator_roles": ["status"]})
    mpesa.pay()

    assert mpesa.sink.result("/cb/b")["ResultCode"] == 21


# --- as badly as M-Pesa behaves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["http_500_before", "lost_answer_before_effect", "rate_limited", "waf_page"])
def test_what_strikes_before_the_effect_leaves_no_trace_and_the_id_free(mpesa, fault):
    mpesa.arm("b2c", fault, count=1)

    if fault == "lost_answer_before_effect":
        with pytest.raises(Exception, match=r"(?i)disconnected|reset"):
            mpesa.pay("ppw_1")
    else:
        assert mpesa.pay("ppw_1").status_code >= 500

    assert mpesa.simulator.accounts.by_id == {}
    assert mpesa.pay("ppw_1").status_code == 200


@pytest.mark.parametrize("fault", ["http_500_after", "lost_answer_after_effect"])
def test_what_strikes_after_the_effect_pays_and_tells_all_the_same(mpesa, fault):
    mpesa.arm("b2c", fault, count=1)

    if fault == "lost_answer_after_effect":
        with pytest.raises(Exception, match=r"(?i)disconnected|reset"):
            mpesa.pay("ppw_1")
    else:
        assert mpesa.pay("ppw_1").json()["errorCode"] == "500.003.1001"

    assert mpesa.sink.result("/cb/b")["ResultCode"] == 0
    assert mpesa.pay("ppw_1").json()["errorCode"] == "500.002.1001"
    assert len(paid(mpesa)) == 1


def test_a_superseded_token_is_refused_and_a_new_one_serves(mpesa):
    mpesa.arm("b2c", "token_superseded", count=1)

    assert mpesa.pay("ppw_1").json()["errorCode"] in {"404.001.03", "401.002.01"}
    mpesa.take_token()
    assert mpesa.pay("ppw_1").status_code == 200


@needs_contract
@pytest.mark.parametrize("form", ["spike", "busy", "quota", "429"])
def test_a_call_that_comes_too_fast_is_refused_in_any_of_the_four_forms_and_may_go_again(mpesa, form):
    mpesa.arm("b2c", "rate_limited", count=1, form=form)
    answer = mpesa.pay("ppw_1")

    if form == "429":
        assert answer.status_code == 429
    else:
        name = {"spike": "02_spike", "busy": "02_busy", "quota": "03_quota"}[form]
        assert answer.json() | {"requestId": ""} == sample(f"gateway_error_500_003_{name}.json") | {"requestId": ""}
    assert mpesa.pay("ppw_1").status_code == 200


def test_callbacks_come_twice_late_or_never_by_the_faults(mpesa):
    mpesa.arm("b2c", "duplicate_callback", reference="ppw_twice", times=3)
    mpesa.arm("b2c", "late_callback", reference="ppw_late", after_s=0.5)
    mpesa.arm("b2c", "lost_callback", reference="ppw_lost")
    for id in ("ppw_late", "ppw_twice", "ppw_lost"):
        mpesa.pay(id)

    until(lambda: len(mpesa.sink.at("/cb/b")) == 4)

    order = [body["Result"]["OriginatorConversationID"] for body in mpesa.sink.at("/cb/b")]
    assert order == ["ppw_twice"] * 3 + ["ppw_late"]
    assert len(paid(mpesa)) == 3
    assert mpesa.fate(OriginalConversationID="ppw_lost") == "Completed"


def test_a_callback_can_come_before_the_answer(mpesa):
    mpesa.arm("b2c", "callback_before_answer", count=1)

    answer = mpesa.pay("ppw_1")

    [told] = mpesa.sink.at("/cb/b")
    assert told["Result"]["ConversationID"] == answer.json()["ConversationID"]


def test_out_of_order_is_a_time_out_notice_before_a_result_that_the_next_one_overtakes(mpesa):
    mpesa.arm("b2c", "out_of_order", count=1)
    mpesa.pay("ppw_1")
    until(lambda: mpesa.sink.at("/cb/bt"))
    mpesa.pay("ppw_2")

    until(lambda: len(mpesa.sink.at("/cb/b")) == 2)

    assert [body["Result"]["OriginatorConversationID"] for body in mpesa.sink.at("/cb/b")] == ["ppw_2", "ppw_1"]


def test_a_time_out_notice_can_be_followed_by_the_payment(mpesa):
    mpesa.arm("b2c", "timeout_then_success", count=1, after_s=0.3)
    mpesa.pay("ppw_1")
    until(lambda: mpesa.sink.at("/cb/bt"))
    assert (mpesa.books(), mpesa.sink.at("/cb/b")) == ([], [])

    assert mpesa.sink.result("/cb/b")["ResultCode"] == 0
    assert len(paid(mpesa)) == 1


@pytest.mark.parametrize(("fate", "payouts"), [(None, 0), ("Completed", 1)])
def test_a_time_out_notice_can_be_all_that_is_ever_told(mpesa, fate, payouts):
    mpesa.arm("b2c", "queue_timeout", count=1, **({"fate": fate} if fate else {}))
    mpesa.pay("ppw_1")
    until(lambda: mpesa.sink.at("/cb/bt"))

    assert mpesa.fate(OriginalConversationID="ppw_1") == (fate or "Expired")
    assert (len(paid(mpesa)), mpesa.sink.at("/cb/b")) == (payouts, [])


@needs_contract
def test_the_time_out_notice_has_both_assumed_shapes(mpesa):
    for _ in range(2):
        mpesa.arm("b2c", "queue_timeout", count=1)
        mpesa.pay()
    until(lambda: len(mpesa.sink.at("/cb/bt")) == 2)

    flat, enveloped = sorted(mpesa.sink.at("/cb/bt"), key=len, reverse=True)

    assert shape(flat) == shape(sample("b2c_queue_timeout_flat.json"))
    assert shape(enveloped) == shape(sample("b2c_queue_timeout_enveloped.json"))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_forged_failure_stands_beside_the_true_success_with_the_same_ids(mpesa, when):
    mpesa.arm("b2c", "forged_failure", count=1, when=when)
    answer = mpesa.pay("ppw_1").json()

    time.sleep(0.4)

    results = [body["Result"] for body in mpesa.sink.at("/cb/b")]
    codes = [result["ResultCode"] for result in results]
    assert codes == [0, 2040] if when == "after" else sorted(codes) == [0, 2040]  # `before` is a race, as it is there
    assert {result["ConversationID"] for result in results} == {answer["ConversationID"]}
    assert mpesa.fate(OriginalConversationID="ppw_1") == "Completed"
    assert len(paid(mpesa)) == 1


def test_a_forged_success_hides_a_payment_that_was_declined(mpesa):
    mpesa.arm("b2c", "forged_success", count=1)
    mpesa.pay("ppw_1")

    until(lambda: len(mpesa.sink.at("/cb/b")) == 2)

    codes = {body["Result"]["ResultCode"] for body in mpesa.sink.at("/cb/b")}
    assert (codes, mpesa.books()) == ({0, 2040}, [])
    assert mpesa.fate(OriginalConversationID="ppw_1") == "Declined"


@pytest.mark.parametrize("fate", ["Authorized", "Declined"])
def test_a_failure_can_be_followed_by_a_late_success_even_when_status_had_denied_it(mpesa, fate):
    mpesa.arm("b2c", "failure_then_late_success", count=1, after_s=0.5, fate=fate, code=2040)
    mpesa.pay("ppw_1")
    assert mpesa.sink.result("/cb/b")["ResultCode"] == 2040
    assert mpesa.fate(OriginalConversationID="ppw_1") == fate
    assert mpesa.books() == []

    assert mpesa.sink.result("/cb/b", 2)["ResultCode"] == 0
    assert mpesa.fate(OriginalConversationID="ppw_1") == "Completed"
    assert len(paid(mpesa)) == 1


def test_a_cached_payment_is_told_as_a_failure_and_paid_all_the_same(mpesa):
    mpesa.control("customers", {"phone": PHONE, "receives": "cached", "delay_s": 0.2})
    mpesa.pay("ppw_1")

    assert mpesa.sink.result("/cb/b")["ResultCode"] == 100000000
    assert mpesa.sink.result("/cb/b", 2)["ResultCode"] == 0


def test_pending_long_holds_the_payment_back(mpesa):
    mpesa.arm("b2c", "pending_long", count=1, after_s=0.5)
    mpesa.pay("ppw_1")

    assert mpesa.fate(OriginalConversationID="ppw_1") == "Initiated"
    assert mpesa.sink.result("/cb/b")["ResultCode"] == 0


@pytest.mark.parametrize(("in_books", "moved"), [(False, "1500.00"), (True, "1400.00")])
def test_a_wrong_amount_is_told_and_with_in_books_also_paid(mpesa, in_books, moved):
    mpesa.arm("b2c", "wrong_amount", count=1, amount=1400, in_books=in_books)
    mpesa.pay("ppw_1")

    assert parameters(mpesa.sink.result("/cb/b"))["TransactionAmount"] == 1400
    assert [movement["amount"] for movement in paid(mpesa)] == [moved]


@pytest.mark.parametrize("code", [17, 26, 15, "X1234"])
def test_any_result_can_be_wanted_with_any_fate(mpesa, code):
    mpesa.arm("b2c", "result_with", count=1, code=code, text="Forced.", fate="Authorized")
    mpesa.pay("ppw_1")

    assert mpesa.sink.result("/cb/b")["ResultCode"] == code
    assert mpesa.fate(OriginalConversationID="ppw_1") == "Authorized"


@pytest.mark.parametrize(
    ("receives", "fate", "code"),
    [
        ("cancelled", "Cancelled", 17),
        ("internal_error", "Declined", 17),
        ("expires", "Expired", None),
        ("never", "Initiated", None),
        ("never_authorized", "Pending Authorized", None),
    ],
)
def test_every_fate_can_be_had_with_or_without_a_result(mpesa, receives, fate, code):
    mpesa.control("customers", {"phone": PHONE, "receives": receives})
    mpesa.pay("ppw_1")
    time.sleep(0.1)

    assert mpesa.fate(OriginalConversationID="ppw_1") == fate
    assert [body["Result"]["ResultCode"] for body in mpesa.sink.at("/cb/b")] == ([code] if code else [])
    assert mpesa.books() == []


def test_a_reset_forgets_what_was_under_way(mpesa):
    mpesa.arm("b2c", "pending_long", after_s=0.2)
    mpesa.pay("ppw_1")
    mpesa.control("reset", None)
    time.sleep(0.4)

    assert (mpesa.books(), mpesa.sink.heard, mpesa.simulator.accounts.by_id) == ([], [], {})


def test_the_rate_is_limited_across_all_products(mpesa):
    mpesa.simulator.rate_per_s = 3

    answers = [mpesa.pay() for _ in range(8)]

    refused = [answer.json()["errorCode"] for answer in answers if answer.status_code != 200]
    assert refused
    assert set(refused) == {"500.003.02"}
