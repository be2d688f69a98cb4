"""The error table, row by row as the contract's section 2.5 has it, and what counts as a success."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from deriv_integration.infrastructure.ws_v3.answers import (
    WITHDRAW_ERROR,
    WITHDRAWAL_RULES,
    checked,
    failure,
    says_moved,
    transferred,
    withdrawn,
)
from deriv_integration.infrastructure.ws_v3.link import decode, encode
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Refused, Unknown

CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "deriv" / "README.md"
ERROR = "PaymentAgentTransferError"

# code, text, what it means for a transfer
ROWS: list[tuple[str, str, type]] = [
    ("InputValidationFailed", "Input validation failed: transfer_to", Refused),
    ("RateLimit", "You have reached the rate limit for paymentagent_transfer.", NotSent),
    ("AuthorizationRequired", "Please log in.", NotSent),
    ("PermissionDenied", "Permission denied, requires payments scope(s).", NotSent),
    ("InvalidAppID", "Your app_id is invalid.", NotSent),
    ("UnrecognisedRequest", "Unrecognised request.", NotSent),
    ("InvalidToken", "The token is invalid.", NotSent),
    ("DisabledClient", "This account is unavailable.", NotSent),
    ("AccountDisabled", "This account is unavailable.", NotSent),
    ("ASK_FIX_DETAILS", "Please complete your profile.", NotSent),
    ("WrongResponse", "Sorry, an error occurred while processing your request.", Unknown),
    ("RequestTimeout", "Request was timed out.", Unknown),
    ("CallError", "Sorry, an error occurred while processing your request.", Unknown),
    ("OutputValidationFailed", "Output validation failed", Unknown),
    ("InternalServerError", "Sorry, an error occurred.", Unknown),
    (ERROR, "Your account balance is insufficient for this transaction.", NotSent),
    (ERROR, "Request too frequent. Please try again later.", Unknown),
    (ERROR, "Invalid amount. Minimum is 10.00, maximum is 2000.00.", Refused),
    (ERROR, "You have exceeded the maximum allowable transfer amount for today.", NotSent),
    (ERROR, "You have exceeded the maximum allowable transactions for today.", NotSent),
    (ERROR, "Login ID (CR100001) does not exist.", Refused),
    (ERROR, "You cannot perform this action, as USD is not the default account currency for CR1.", Refused),
    (ERROR, "You cannot transfer to account CR1, as their cashier is locked.", Refused),
    (ERROR, "You cannot transfer to account CR1, as their account is disabled.", Refused),
    (ERROR, "You cannot transfer to account CR1, as their verification documents have expired.", Refused),
    (ERROR, "You cannot transfer to account CR1, as their profile is incomplete.", Refused),
    (ERROR, "You are not authorized for transfers via payment agents.", NotSent),
    (ERROR, "Payment agent transfers are not allowed for the specified accounts.", Refused),
    (ERROR, "You cannot transfer to a client in a different resident country.", Refused),
    (ERROR, "You cannot transfer to a client in a different country of residence.", Refused),
    (ERROR, "Payment agent transfers are temporarily disabled.", NotSent),
    (ERROR, "This is temporarily unavailable.", NotSent),
    (ERROR, "You have reached the maximum withdrawal limit.", NotSent),
    (ERROR, "Sorry, an error occurred whilst processing your request.", Unknown),
    (ERROR, "Your account is disabled.", NotSent),  # ours, not the customer's
    (ERROR, "Your cashier is locked.", NotSent),
    (ERROR, "Something that nobody has seen before.", Unknown),
    (ERROR, "", Unknown),
    # codes of other calls say nothing about a transfer
    ("PaymentAgentWithdrawError", "Your account balance is insufficient.", Unknown),
    ("InvalidEmail", "", Unknown),
    ("PaymentAgentJustification", "", Unknown),
    ("PaymentAgentJustificationAdded", "", Unknown),
    ("PaymentAgentWithdrawSameMethod", "", Unknown),
    ("PaymentAgentUseOtherMethod", "", Unknown),
    ("PaymentAgentZeroDeposits", "", Unknown),
    ("PaymentAgentVirtualClient", "", Unknown),
    ("SelfExclusion", "", Unknown),
    ("FinancialAssessmentRequired", "", Unknown),
    ("ASK_AUTHENTICATE", "", Unknown),
    ("ASK_SOMETHING", "", Unknown),
    ("JustificationAlreadySubmitted", "", Unknown),
    ("BrandNewCode", "does not exist", Unknown),
    ("", "", Unknown),
]


@pytest.mark.parametrize(("code", "text", "meaning"), ROWS)
def test_each_error_means_what_the_contract_says(code, text, meaning):
    outcome = failure(code, text, "raw")

    assert type(outcome) is meaning
    assert outcome.answer == "raw"


def test_every_code_and_text_of_the_contract_is_held():
    if not CONTRACT.exists():
        pytest.skip("the contract is not here")
    section = CONTRACT.read_text().split("### 2.5")[1].split("### 2.6")[0]
    table, texts = section.split("Texts under the two generic codes")
    codes = {
        code for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for code in re.findall(r"`([A-Za-z_]+)`", row)
    }
    fragments = re.findall(r'"([^"]+)"', texts)

    held_codes, held_texts = {row[0] for row in ROWS}, " | ".join(row[1].lower() for row in ROWS)
    assert codes - {"ASK_"} <= held_codes
    for fragment in fragments:
        for part in re.split(r"\.\.\.", fragment):
            assert part.strip().lower().strip(" ,.") in held_texts, fragment


def test_what_waits_says_when_to_try_again_and_our_own_trouble_alarms():
    low_float = failure(ERROR, "Your account balance is insufficient for this transaction.", "")
    rate = failure("RateLimit", "", "")
    token = failure("InvalidToken", "", "")

    assert low_float == NotSent(f"{ERROR}: balance is insufficient", 300, alert=True)
    assert rate.retry_after_s > 0
    assert not rate.alert
    assert token.alert


def test_a_text_with_an_open_and_a_closing_fragment_stays_open():
    outcome = failure(ERROR, "An error occurred whilst processing: account is disabled, not allowed", "")

    assert isinstance(outcome, Unknown)


def test_a_code_of_ours_never_repeats_names_from_the_provider():
    outcome = failure(ERROR, "You cannot transfer to account CR100001 (JANE DOE), as their cashier is locked.", "")

    assert isinstance(outcome, Refused)
    assert "CR100001" not in repr(outcome)
    assert "JANE" not in repr(outcome)


DONE = {
    "msg_type": "paymentagent_transfer",
    "paymentagent_transfer": 1,
    "transaction_id": 5,
    "client_to_loginid": "CR1",
}


def test_only_one_and_an_id_is_a_success():
    assert transferred(DONE, "cr1", "raw") == Done("5", "raw")


@pytest.mark.parametrize(
    "change",
    [
        {"paymentagent_transfer": 2},
        {"paymentagent_transfer": True},
        {"paymentagent_transfer": "1"},
        {"paymentagent_transfer": Decimal("1.0")},
        {"paymentagent_transfer": None},
        {"transaction_id": None},
        {"transaction_id": 0},
        {"transaction_id": "5"},
        {"transaction_id": True},
        {"client_to_loginid": "CR2"},
        {"error": {"code": "RequestTimeout", "message": ""}},
        {"error": "a text"},
        {"error": {}},
        {"error": {"code": 1, "message": []}},
    ],
)
def test_anything_else_leaves_the_outcome_unknown(change):
    assert isinstance(transferred({**DONE, **change}, "CR1", ""), Unknown)


def test_a_dry_run_tells_the_name_and_anything_else_tells_nothing():
    answer = {"paymentagent_transfer": 2, "client_to_full_name": "JANE DOE", "client_to_loginid": "CR1"}

    assert checked(answer, "CR1", "") == Done("JANE DOE")
    assert isinstance(checked({**answer, "paymentagent_transfer": 1}, "CR1", ""), Unknown)
    assert isinstance(checked({**answer, "transaction_id": 5}, "CR1", ""), Unknown)
    assert isinstance(checked({**answer, "client_to_loginid": "CR2"}, "CR1", ""), Unknown)
    assert isinstance(checked({"paymentagent_transfer": 2}, "CR1", ""), Unknown)


def test_an_amount_is_written_and_read_as_an_exact_number():
    assert encode({"amount": Decimal("1000000.10"), "a": "x"}) == '{"amount":1000000.10,"a":"x"}'
    assert encode({"amount": Decimal(100).scaleb(-2)}) == '{"amount":1.00}'
    assert decode('{"amount": 0.1}') == {"amount": Decimal("0.1")}


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"a": NaN}', '{"a":' * 20_000, "\x00"])
def test_what_is_no_json_object_is_no_answer(text):
    with pytest.raises(ValueError):  # noqa: PT011 (any of its kind)
        decode(text)


# --- a customer's withdrawal ------------------------------------------------------------------------------------------

WITHDRAWALS: list[tuple[str, str, type]] = [
    ("InvalidToken", "Your token has expired or is invalid.", Refused),
    ("InvalidEmail", "", Refused),
    ("DisabledClient", "This account is unavailable.", Refused),
    ("AccountDisabled", "", Refused),
    ("ASK_FIX_DETAILS", "", Refused),
    ("ASK_AUTHENTICATE", "", Refused),
    ("ASK_SOMETHING_NEW", "", Refused),
    ("PaymentAgentJustification", "", Refused),
    ("PaymentAgentJustificationAdded", "", Refused),
    ("PaymentAgentWithdrawSameMethod", "", Refused),
    ("PaymentAgentUseOtherMethod", "", Refused),
    ("PaymentAgentZeroDeposits", "", Refused),
    ("PaymentAgentVirtualClient", "", Refused),
    ("SelfExclusion", "", Refused),
    ("FinancialAssessmentRequired", "", Refused),
    ("InputValidationFailed", "", Refused),
    ("PermissionDenied", "", Refused),
    ("AuthorizationRequired", "", Refused),
    ("RateLimit", "", NotSent),
    ("InvalidAppID", "", NotSent),
    ("UnrecognisedRequest", "", NotSent),
    ("WrongResponse", "", Unknown),
    ("RequestTimeout", "", Unknown),
    ("CallError", "", Unknown),
    ("OutputValidationFailed", "", Unknown),
    ("InternalServerError", "", Unknown),
    (WITHDRAW_ERROR, "Your account balance is insufficient for this transaction.", Refused),
    (WITHDRAW_ERROR, "Invalid amount. Minimum is 10.00, maximum is 2000.00.", Refused),
    (WITHDRAW_ERROR, "You have exceeded the maximum allowable transactions for today.", Refused),
    (WITHDRAW_ERROR, "You have reached the maximum withdrawal limit.", Refused),
    (WITHDRAW_ERROR, "Your cashier is locked.", Refused),
    (WITHDRAW_ERROR, "Payment agent withdrawals are not allowed for your account.", Refused),
    (WITHDRAW_ERROR, "Payment agent facilities are temporarily disabled.", Refused),
    (WITHDRAW_ERROR, "Request too frequent. Please try again later.", Unknown),
    (WITHDRAW_ERROR, "Sorry, an error occurred whilst processing your request.", Unknown),
    (WITHDRAW_ERROR, "Something that nobody has seen before.", Unknown),
    (ERROR, "Your account balance is insufficient for this transaction.", Unknown),  # another call's code
    ("askew", "", Unknown),
    ("", "", Unknown),
]


@pytest.mark.parametrize(("code", "text", "kind"), WITHDRAWALS)
def test_each_error_of_a_withdrawal_means_what_the_contract_says(code, text, kind):
    outcome = failure(code, text, "raw", WITHDRAWAL_RULES)

    assert isinstance(outcome, kind)
    assert outcome.answer == "raw"
    assert kind is not Refused or outcome.reason


def test_no_business_rule_lets_a_withdrawal_wait_for_its_code_is_used_up():
    waiting = {rule.code for rule in WITHDRAWAL_RULES if rule.verdict.value == "waits"}

    assert waiting == {"RateLimit", "InvalidAppID", "UnrecognisedRequest"}  # the gateway's: before the call ran


@pytest.mark.parametrize("value", [None, 0, 2, 1.0, "1", True, [1]])
def test_a_withdrawal_is_accepted_with_exactly_one(value):
    assert isinstance(withdrawn({"paymentagent_withdraw": value, "transaction_id": 5}, ""), Unknown)


def test_a_withdrawal_is_never_done_and_its_id_is_the_customers():
    assert withdrawn({"paymentagent_withdraw": 1, "transaction_id": 5}, "") == Accepted(
        {"customer_transaction_id": "5"}
    )
    assert withdrawn({"paymentagent_withdraw": 1}, "") == Accepted()


def test_only_deriv_saying_so_makes_a_customer_moved():
    assert says_moved("AccountMigrated", "")
    assert says_moved("DisabledClient", "This account has been moved to our new platform.")
    assert not says_moved("DisabledClient", "This account is unavailable.")


def test_amounts_inside_of_an_object_are_exact_numbers_too():
    assert encode({"url_parameters": {"pa_amount": Decimal("10.10")}}) == '{"url_parameters":{"pa_amount":10.10}}'


@pytest.mark.parametrize("text", ['{"a": 1e99999999999999999999}', '{"a": -Infinity}'])
def test_a_number_out_of_range_is_no_message(text):
    with pytest.raises(ValueError, match=r"number|Infinity"):
        decode(text)
