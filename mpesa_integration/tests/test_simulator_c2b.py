"""The simulated paybill: registered URLs, confirmations of every payment, validation, direct payments, Pull, masking;
and what the control side sets. Over HTTP and held against the contract's samples.
"""

import time
from datetime import timedelta

import pytest

from mpesa_integration.tests.simulated import (
    PHONE,
    PULL,
    REGISTER,
    SIMULATE,
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


def direct(mpesa, reference="a friend", amount="700"):
    """A customer pays the paybill from the phone's menu."""
    mpesa.control("payments", {"phone": PHONE, "amount": amount, "reference": reference}).raise_for_status()


def pulled(mpesa):
    """Pull's rows of the last day: (receipt, reference, amount)."""
    now = mpesa.simulator.clock()
    window = {"StartDate": f"{now - timedelta(days=1):%Y-%m-%d %H:%M:%S}", "OffSetValue": "0"}
    window |= {"EndDate": f"{now + timedelta(hours=1):%Y-%m-%d %H:%M:%S}", "ShortCode": mpesa.simulator.shortcode}
    [rows] = mpesa.post(PULL, window).json()["Response"]
    return [(row["transactionId"], row["billreference"], row["amount"]) for row in rows]


# --- registering ----------------------------------------------------------------------------------------------------


@needs_contract
def test_urls_are_registered_once_until_they_are_deleted_by_hand(mpesa):
    answer, again = mpesa.register(), mpesa.register()

    assert shape(answer.json()) == shape(sample("c2b_register_response.json"))
    assert (again.status_code, again.json()["errorCode"]) == (500, "500.003.1001")
    assert again.json()["errorMessage"] == sample("c2b_register_error_already.json")["errorMessage"]
    mpesa.control("c2b_urls", None)
    assert mpesa.register().status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"ResponseType": "completed"},
        {"ShortCode": "600000"},
        {"ConfirmationURL": "http://pay.example.co.ke/cb/c"},
        {"ConfirmationURL": "https://pay.example.co.ke/safaricom/c"},
        {"ValidationURL": None},
    ],
    ids=str,
)
def test_a_wrong_registration_is_refused(mpesa, wrong):
    assert mpesa.register(**wrong).json()["errorCode"] == "400.002.02"
    assert mpesa.register().status_code == 200


# --- confirmations --------------------------------------------------------------------------------------------------


@needs_contract
@pytest.mark.parametrize(
    ("version", "name"),
    [("v2", "c2b_confirmation_callback.json"), ("v1", "c2b_confirmation_callback_v1_hashed.json")],
)
def test_every_stk_payment_is_confirmed_with_the_same_receipt_and_a_hidden_number(mpesa, version, name):
    mpesa.register(REGISTER.replace("v2", version))
    receipt = mpesa.deposit()

    [told] = until(lambda: mpesa.sink.at("/cb/c"))

    assert shape(told) == shape(sample(name))
    assert (told["TransID"], told["BillRefNumber"], told["TransAmount"]) == (receipt, "PPD7K2M9QX4A", "1500.00")
    assert told["OrgAccountBalance"] == "1500.00"
    assert len(told["MSISDN"]) == len(sample(name)["MSISDN"])
    assert PHONE not in str(told)


def test_without_registered_urls_nothing_is_confirmed_and_payments_count_all_the_same(mpesa):
    receipt = mpesa.deposit()
    until(lambda: mpesa.sink.at("/cb/s"))

    assert mpesa.sink.at("/cb/c") == []
    assert [row[0] for row in pulled(mpesa)] == [receipt]


def test_a_customer_can_pay_directly_with_any_reference_and_pull_shows_it_beside_the_prompts(mpesa):
    mpesa.register()
    deposit = mpesa.deposit()
    direct(mpesa, "a friend")
    until(lambda: len(mpesa.sink.at("/cb/c")) == 2)
    mpesa.pay()
    mpesa.sink.result("/cb/b")
    mpesa.reverse(deposit)
    mpesa.sink.result("/cb/r")

    told = {body["BillRefNumber"]: body["TransID"] for body in mpesa.sink.at("/cb/c")}
    assert pulled(mpesa) == [(deposit, "PPD7K2M9QX4A", "1500.00"), (told["a friend"], "a friend", "700.00")]
    assert [movement["kind"] for movement in mpesa.books()] == ["stk", "c2b", "b2c", "fee", "reversal"]


def test_simulate_is_a_direct_payment_and_as_strict(mpesa):
    body = {"ShortCode": mpesa.simulator.shortcode, "CommandID": "CustomerPayBillOnline", "Amount": "10"}
    body |= {"Msisdn": PHONE, "BillRefNumber": "PPD7K2M9QX4A"}

    assert mpesa.post(SIMULATE, body, Amount="10.5").status_code == 400
    assert mpesa.post(SIMULATE, body, Msisdn="0705912645").status_code == 400
    assert mpesa.post(SIMULATE, body).json()["ResponseCode"] == "0"

    until(mpesa.books)
    assert [row[1:] for row in pulled(mpesa)] == [("PPD7K2M9QX4A", "10.00")]


def test_a_confirmation_can_be_lost_doubled_forged_and_wrong(mpesa):
    mpesa.register()
    for fault in ("lost_callback", "duplicate_callback", "forged_success", "wrong_amount"):
        mpesa.arm("c2b", fault, reference=fault.replace("_", " "))
        direct(mpesa, fault.replace("_", " "))
    until(lambda: len(mpesa.sink.at("/cb/c")) == 5 and len(mpesa.books()) == 4)

    told = mpesa.sink.at("/cb/c")
    real = {movement["id"]: movement["amount"] for movement in mpesa.books()}
    by_reference: dict[str, list[dict[str, str]]] = {}
    for body in told:
        by_reference.setdefault(body["BillRefNumber"], []).append(body)
    assert "lost callback" not in by_reference
    assert len({body["TransID"] for body in by_reference["duplicate callback"]}) == 1
    assert sorted(body["TransID"] in real for body in by_reference["forged success"]) == [False, True]
    [wrong] = by_reference["wrong amount"]
    assert (wrong["TransAmount"], real[wrong["TransID"]]) == ("701.00", "700.00")


@pytest.mark.parametrize("fault", ["http_500_before", "waf_page", "rate_limited"])
def test_registering_can_fail_before_it_took_effect(mpesa, fault):
    mpesa.arm("c2b", fault, count=1)

    assert mpesa.register().status_code >= 500
    assert mpesa.register().status_code == 200


def test_m_pesa_can_take_a_direct_payment_back(mpesa):
    mpesa.arm("c2b", "reverted_later", after_s=0.1)
    direct(mpesa)

    until(lambda: len(mpesa.books()) == 2)
    assert mpesa.simulator.accounts.of(mpesa.simulator.shortcode, "utility") == 0


# --- validation -----------------------------------------------------------------------------------------------------


@needs_contract
def test_a_payment_is_made_only_if_the_validation_url_accepts_it(mpesa):
    mpesa.control("settings", {"validation": True})
    mpesa.register()
    mpesa.sink.says["/cb/v"] = sample("c2b_validation_reject.json")
    direct(mpesa)
    [asked] = until(lambda: mpesa.sink.at("/cb/v"))
    time.sleep(0.1)
    assert shape(asked) == shape(sample("c2b_validation_callback.json"))
    assert mpesa.books() == []

    mpesa.sink.says["/cb/v"] = sample("c2b_validation_accept.json")
    direct(mpesa)

    until(mpesa.books)


@pytest.mark.parametrize(("otherwise", "payments"), [("Completed", 1), ("Cancelled", 0)])
def test_when_validation_can_not_be_reached_what_was_registered_decides(mpesa, otherwise, payments):
    mpesa.control("settings", {"validation": True, "validation_s": 0.2})
    mpesa.register(ResponseType=otherwise, ValidationURL="http://127.0.0.1:9/cb/v")
    direct(mpesa)
    time.sleep(0.5)

    assert len(mpesa.books()) == payments


# --- Pull, masking, the control side --------------------------------------------------------------------------------


@needs_contract
def test_pull_is_registered_in_the_samples_form(mpesa):
    body = sample("pull_register_request.json") | {"ShortCode": mpesa.simulator.shortcode}

    answer = mpesa.post("/pulltransactions/v1/register", body)

    assert shape(answer.json()) == shape(sample("pull_register_response.json"))
    assert answer.json()["ResponseStatus"] == "1000"
    assert mpesa.post("/pulltransactions/v1/register", body, RequestType="pull").status_code == 400


@needs_contract
def test_masked_numbers_are_text_in_the_callback_and_hidden_in_results(mpesa):
    mpesa.control("settings", {"masked": True})
    mpesa.deposit()
    mpesa.pay()

    [callback] = until(lambda: mpesa.sink.at("/cb/s"))
    items = {item["Name"]: item.get("Value") for item in callback["Body"]["stkCallback"]["CallbackMetadata"]["Item"]}
    listed = sample("stk_callback_success_0_masked_phone.json")["Body"]["stkCallback"]["CallbackMetadata"]["Item"]
    expected = next(item["Value"] for item in listed if item["Name"] == "PhoneNumber")
    assert (items["PhoneNumber"], len(items["PhoneNumber"])) == ("2547 ***** 645", len(expected))
    assert parameters(mpesa.sink.result("/cb/b"))["ReceiverPartyPublicName"] == "2547 ***** 645 - JOHN DOE"


@pytest.mark.parametrize(
    "order",
    [
        {"nonsense": 1},
        {"latency_s": "0.1"},
        {"latency_s": -1},
        {"masked": 1},
        {"drift": "wild"},
        {"rate_per_s": 0},
        {"float": {"cash": "1"}},
        {"float": {"utility": "much"}},
        {"initiator_locked": "no"},
        {"initiator_roles": ["pope"]},
        {"consumer_secret": "x"},
        {"masked": True, "nonsense": 1},
    ],
    ids=str,
)
def test_settings_are_checked_before_any_of_them_is_changed(mpesa, order):
    before = mpesa.control("settings", {}).json()

    assert mpesa.control("settings", order).status_code == 400
    assert mpesa.control("settings", {}).json() == before


def test_settings_change_what_they_name_and_show_no_secret(mpesa):
    answer = mpesa.control("settings", {"latency_s": 0.2, "float": {"utility": "77"}, "initiator_locked": True}).json()

    assert (answer["latency_s"], answer["accounts"]["600992/utility"]) == (0.2, "77.00")
    assert answer["initiator_locked"] is True
    assert mpesa.simulator.initiator_password not in str(answer)
    assert mpesa.books() == []  # as if the account had always held it
    started = time.monotonic()
    mpesa.pay()
    assert time.monotonic() - started > 0.2
    assert mpesa.sink.result("/cb/b")["ResultCode"] == 8006


@pytest.mark.parametrize(
    "customer",
    [{"receives": "nothing"}, {"behaviour": "dance"}, {"wealth": 1}, {"received": {}}, {"phone": "0705912645"}],
    ids=str,
)
def test_a_customer_that_is_not_understood_is_refused(mpesa, customer):
    assert mpesa.control("customers", {"phone": PHONE} | customer).status_code == 400


def test_a_name_is_what_results_and_confirmations_show(mpesa):
    mpesa.register()
    mpesa.control("customers", {"phone": PHONE, "name": "JANE WANJIKU"})
    mpesa.deposit()
    mpesa.pay()

    assert parameters(mpesa.sink.result("/cb/b"))["ReceiverPartyPublicName"] == f"{PHONE} - JANE WANJIKU"
    assert until(lambda: mpesa.sink.at("/cb/c"))[0]["FirstName"] == "JANE"


def test_every_balance_is_its_opening_and_the_movements(mpesa):
    opening = {"600992/utility": 10_000_000.0, "600992/working": 1_000_000.0}
    deposit = mpesa.deposit()
    direct(mpesa)
    for amount in ("1500", "20000", "50"):
        mpesa.pay(Amount=amount)
    mpesa.reverse(deposit)
    until(lambda: len(mpesa.books()) == 8)

    sums = dict(opening)
    for movement in mpesa.books():
        for account, sign in ((movement["from"], -1), (movement["to"], 1)):
            sums[account] = sums.get(account, 0) + sign * float(movement["amount"])
    held = mpesa.control("settings", {}).json()["accounts"]

    assert {name: float(amount) for name, amount in held.items()} == {n: s for n, s in sums.items() if "/" in n}
    assert len({movement["id"] for movement in mpesa.books()}) == 8
