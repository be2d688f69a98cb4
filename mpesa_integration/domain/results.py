"""Reading what callbacks say. None for what can't be read: another shape, a key twice, no ids, no code.

Source: the contract, sections 2 and 4 to 9. Spellings drift (`FinalisedTime`, `FinalizedTime`; `Conversation ID`), so
that names are compared without blanks and capitals; a parameter that is named twice with two values says nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mpesa_integration.domain import codes, wire
from mpesa_integration.domain.callback import TIMED_OUT, Balance, CallbackKind, Claim
from shared_kernel.domain.identifiers import InvalidPhone, Phone
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import Leg

RECEIPT = re.compile(r"[A-Z0-9]{10}")
FATE = re.compile(r"[A-Za-z][A-Za-z ]{0,31}")
MOST_ACCOUNTS = 20
LEG_OF = {
    CallbackKind.B2C: Leg.B2C_PAYOUT,
    CallbackKind.REVERSAL: Leg.REVERSAL,
    CallbackKind.STATUS: Leg.STATUS_QUERY,
    CallbackKind.BALANCE: Leg.ACCOUNT_BALANCE,
}


def read(kind: CallbackKind, body: bytes) -> Claim | None:
    """What came to a URL of this kind. A validation claims nothing."""
    if kind.is_timeout:
        return _read_timeout(body)
    match kind:
        case CallbackKind.STK:
            return read_stk(body)
        case CallbackKind.CONFIRMATION:
            return _read_confirmation(body)
        case CallbackKind.VALIDATION:
            return None
        case _:
            return _read_result(kind, body)


def read_stk(body: bytes) -> Claim | None:
    """`Body.stkCallback`; its items only on success."""
    envelope = (wire.read_object(body) or {}).get("Body")
    callback = envelope.get("stkCallback") if isinstance(envelope, dict) else None
    if not isinstance(callback, dict):
        return None
    merchant, checkout = wire.id_of(callback.get("MerchantRequestID")), wire.id_of(callback.get("CheckoutRequestID"))
    code = wire.code_of(callback.get("ResultCode"))
    if not code or not checkout:
        return None
    claim = Claim(result_code=code, merchant_request_id=merchant, checkout_request_id=checkout)
    if code != "0":
        return claim
    metadata = callback.get("CallbackMetadata")
    items = {
        item["Name"]: item.get("Value")
        for item in wire.items_of(metadata.get("Item") if isinstance(metadata, dict) else None)
        if isinstance(item.get("Name"), str)
    }
    amount, receipt = wire.kes_of(items.get("Amount")), _receipt(items.get("MpesaReceiptNumber"))
    return replace(claim, amount=amount, receipt=receipt)


def _read_result(kind: CallbackKind, body: bytes) -> Claim | None:
    """A `Result` envelope; its parameters only on success, and by what the call was."""
    found = list(wire.items_of((wire.read_object(body) or {}).get("Result")))
    result = _named(found[0].items()) if len(found) == 1 else {}
    claim = _envelope(result, wire.code_of(result.get("resultcode")))
    if not claim.result_code or not (claim.originator_conversation_id or claim.conversation_id):
        return None
    more_follows = wire.code_of(result.get("resulttype")) == "1"
    if claim.result_code != "0" or more_follows:
        blame = codes.result_of(LEG_OF[kind], claim.result_code)[1]
        return replace(claim, blame=blame, more_follows=more_follows)
    said = _parameters(result.get("resultparameters"))
    match kind:
        case CallbackKind.B2C:
            return _paid_out(claim, said)
        case CallbackKind.STATUS:
            return _told(claim, said)
        case CallbackKind.REVERSAL:
            return _reversed(claim, said, _receipt(result.get("transactionid")))
        case _:
            balances = _balances(said.get("accountbalance"))
            return replace(claim, balances=balances) if balances else None


def _paid_out(claim: Claim, said: dict[str, Any]) -> Claim:
    return replace(
        claim,
        amount=wire.kes_of(said.get("transactionamount")),
        receipt=_receipt(said.get("transactionreceipt")),
        receiver=_number(said.get("receiverpartypublicname")),
        fee=fee_of(said.get("debitpartycharges")),
    )


def _told(claim: Claim, said: dict[str, Any]) -> Claim:
    """What became of the payment that a status query asked about; its OriginatorConversationID is ours."""
    receipt, payment = _receipt(said.get("receiptno")), wire.id_of(said.get("originatorconversationid"))
    return replace(
        claim,
        amount=wire.kes_of(said.get("amount")),
        receipt=receipt,
        about=frozenset({receipt, payment} - {""}),
        fate=_fate(said.get("transactionstatus")),
        fee=fee_of(said.get("debitpartycharges")),
    )


def _reversed(claim: Claim, said: dict[str, Any], receipt: str) -> Claim:
    return replace(
        claim,
        amount=wire.kes_of(said.get("amount")),
        receipt=receipt,
        about=frozenset({wire.id_of(said.get("originaltransactionid"))} - {""}),
        fee=_charge(said.get("charge")),
    )


def _read_timeout(body: bytes) -> Claim | None:
    """A time-out notice: its form is undocumented, so that any object is one; ids count where they are given."""
    whole = wire.read_object(body)
    if whole is None:
        return None
    inner = whole.get("Result")
    notice = _named((inner if isinstance(inner, dict) else whole).items())
    return _envelope(notice, TIMED_OUT)


def _read_confirmation(body: bytes) -> Claim | None:
    """A C2B confirmation: what was paid to a shortcode, and under which reference."""
    paid = _named((wire.read_object(body) or {}).items())
    amount, receipt = wire.kes_of(paid.get("transamount")), _receipt(paid.get("transid"))
    if amount is None or amount.amount <= 0 or not receipt:
        return None
    return Claim(
        result_code="0",
        amount=amount,
        receipt=receipt,
        reference=wire.text_of(paid.get("billrefnumber")).strip().upper()[:32],
        shortcode=wire.code_of(paid.get("businessshortcode")),
    )


def fee_of(value: Any) -> Money | None:
    """`Fee For B2C Payment|KES|5.00`, several joined by `&`: their sum; None when nothing readable is charged."""
    parts = [part.split("|") for part in wire.text_of(value).split("&") if part.strip()]
    amounts = [wire.kes_of(part[2]) if len(part) >= 3 and part[1].strip() == "KES" else None for part in parts]
    known = [amount.amount for amount in amounts if amount is not None and amount.amount >= 0]
    return Money(sum(known), Currency.KES) if known and len(known) == len(amounts) else None


def _charge(value: Any) -> Money | None:
    amount = wire.kes_of(value)
    return amount if amount is not None and amount.amount >= 0 else None


def _balances(value: Any) -> tuple[Balance, ...]:
    """`name|KES|available|…` records joined by `&`; empty when one of them can't be read."""
    found = []
    for record in wire.text_of(value).split("&"):
        name, *rest = (part.strip() for part in record.split("|"))
        available = wire.kes_of(rest[1]) if len(rest) > 1 and rest[0] == "KES" else None
        if available is None or not re.fullmatch(r"[A-Za-z][A-Za-z0-9 -]{0,63}", name):
            return ()
        found.append(Balance(name, available))
    return tuple(found) if len({b.account for b in found}) == len(found) <= MOST_ACCOUNTS else ()


def _envelope(result: dict[str, Any], code: str) -> Claim:
    return Claim(
        result_code=code,
        originator_conversation_id=wire.id_of(result.get("originatorconversationid")),
        conversation_id=wire.id_of(result.get("conversationid")),
    )


def _parameters(value: Any) -> dict[str, Any]:
    """`ResultParameter`: a list of `{Key, Value}`, or one bare object."""
    inner = value.get("ResultParameter") if isinstance(value, dict) else value
    pairs = ((item.get("Key"), item.get("Value")) for item in wire.items_of(inner))
    return _named((key, value) for key, value in pairs if isinstance(key, str))


def _named(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """By name without blanks and capitals; what stands twice with two values is left out."""
    found: dict[str, Any] = {}
    twice: set[str] = set()
    for key, value in pairs:
        name = key.replace(" ", "").lower()
        if name in found and found[name] != value:
            twice.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in twice}


def _receipt(value: Any) -> str:
    receipt = wire.id_of(value)
    return receipt if RECEIPT.fullmatch(receipt) else ""


def _fate(value: Any) -> str:
    fate = wire.text_of(value).strip()
    return fate if FATE.fullmatch(fate) else ""


def _number(value: Any) -> Phone | None:
    """The number before ` - NAME`; None when it is masked, hashed or none."""
    try:
        return Phone.parse(wire.text_of(value).partition(" - ")[0])
    except InvalidPhone:
        return None
