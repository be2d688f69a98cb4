"""M-Pesa's callbacks as they come over the wire."""

import json
from typing import TYPE_CHECKING, Any

from shared_kernel.domain.money import Money
from shared_kernel.domain.requests import MpesaRequest

if TYPE_CHECKING:
    from tests.simulation.mpesa import Payout, Prompt


def shillings(minor: int) -> float | int:
    return minor // 100 if minor % 100 == 0 else minor / 100


def stk(prompt: "Prompt", code: str) -> bytes:
    """`stkCallback`; its items only on success."""
    callback: dict[str, Any] = {
        "MerchantRequestID": prompt.merchant_request_id,
        "CheckoutRequestID": prompt.checkout_request_id,
        "ResultCode": int(code),
        "ResultDesc": "",
    }
    if code == "0":
        callback["CallbackMetadata"] = {
            "Item": [
                {"Name": "Amount", "Value": shillings(prompt.request.amount.amount)},
                {"Name": "MpesaReceiptNumber", "Value": prompt.receipt},
                {"Name": "PhoneNumber", "Value": int(prompt.request.phone.number)},
            ]
        }
    return json.dumps({"Body": {"stkCallback": callback}}).encode()


def confirmation(receipt: str, amount: Money, reference: str, shortcode: str) -> bytes:
    """C2B: something was paid to the shortcode."""
    body = {"TransID": receipt, "TransAmount": str(amount.decimal), "BillRefNumber": reference}
    return json.dumps(body | {"BusinessShortCode": shortcode, "TransactionType": "Pay Bill"}).encode()


def payout(payout: "Payout", code: str, *, fee: int = 13_00) -> bytes:
    """A B2C result."""
    said: dict[str, Any] = {}
    if code == "0":
        said = {
            "TransactionAmount": shillings(payout.amount),
            "TransactionReceipt": payout.receipt,
            "ReceiverPartyPublicName": f"{payout.request.phone.number} - JANE DOE",
        }
        if fee:
            said["DebitPartyCharges"] = charges(fee)
    return _result(code, payout.request.reference, payout.conversation_id, payout.receipt, said)


def status(payout: "Payout | None", query: MpesaRequest, conversation: str, fee: int) -> bytes:
    """What a Transaction Status query is answered."""
    if payout is None:
        return _result("2032", f"gw-{conversation}", conversation, "", {})
    said: dict[str, Any] = {
        "OriginatorConversationID": query.about,
        "TransactionStatus": payout.status,
        "Amount": shillings(payout.amount or payout.request.amount.amount),
    }
    if payout.status == "Completed":
        said |= {"ReceiptNo": payout.receipt, "DebitPartyCharges": charges(fee)}
    return _result("0", f"gw-{conversation}", conversation, "", said)


def reversal(request: MpesaRequest, receipt: str, conversation: str, code: str) -> bytes:
    """A reversal's result."""
    said: dict[str, Any] = {}
    if code == "0":
        said = {"Amount": shillings(request.amount.amount), "OriginalTransactionID": request.about, "Charge": 0}
    return _result(code, f"gw-{conversation}", conversation, receipt, said)


def timeout(conversation: str) -> bytes:
    """A notice that the queue gave up, which decides nothing."""
    return json.dumps({"Result": {"ConversationID": conversation, "ResultDesc": "timed out"}}).encode()


def charges(fee: int) -> str:
    return f"Fee For B2C Payment|KES|{fee / 100:.2f}"


def _result(code: str, originator: str, conversation: str, receipt: str, said: dict[str, Any]) -> bytes:
    result: dict[str, Any] = {
        "ResultType": 0,
        "ResultCode": int(code) if code.isdigit() else code,
        "ResultDesc": "",
        "OriginatorConversationID": originator,
        "ConversationID": conversation,
        "TransactionID": receipt,
    }
    if said:
        result["ResultParameters"] = {"ResultParameter": [{"Key": k, "Value": v} for k, v in said.items()]}
    return json.dumps({"Result": result}).encode()
