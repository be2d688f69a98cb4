"""What an evidence file shows of personal data: its ends, unless it was asked for in clear; secrets never, either way.

Providers' messages are shown by a closed list of their names: whatever a provider adds tomorrow is hidden until
somebody has looked at it. Source of the names: the contracts (Daraja; Deriv v3 and REST), 2026-11-22.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shared_kernel.domain.errors import ILLEGIBLE

HIDDEN, NEVER, NO_JSON = "***", "[never shown]", "[not JSON: not shown]"
SECRET = re.compile(
    r"passw|secret|token|authori[sz]|cookie|credential|passkey|private|apikey|signature|session|^pin$|otp"
    r"|verificationcode"
)
SECRET_TEXTS = (
    re.compile(r"\b(?:Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"),
    re.compile(r"\ba1-\w{16,}"),  # Deriv's
    re.compile(r"(?<=/cb/)\w{1,2}/[\w-]+"),  # the secret in a callback's address
    re.compile(
        r"\b(?:password|secret|token|api_?key|pin|otp|verification_code)['\"]?\s*[=:]\s*['\"]?[^\s'\",}&]+", re.I
    ),
)
PHONE_TEXT = re.compile(r"(?<![\w.-])\+?(?:254|0)[ -]?([17])\d{2}[ -]?\d{3}[ -]?\d{3}(?!\w)")
EMAIL_TEXT = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
CHECKOUT_TEXT = re.compile(r"\b(ws_CO_\w*?)\d{9}\b")  # it ends in the subscriber's number
PHONES = {"phonenumber", "msisdn", "partya", "partyb"}
_MPESA = """
    resultcode resultdesc resulttype responsecode responsedescription customermessage errorcode errormessage
    requestid merchantrequestid checkoutrequestid conversationid originatorconversationid transactionid
    originaltransactionid receiptno mpesareceiptnumber transactionreceipt transactionamount amount transactiondate
    initiatedtime transactioncompleteddatetime finalisedtime finalizedtime transactionstatus transactionreason
    reasontype debitpartycharges debitaccounttype charge balance b2cutilityaccountavailablefunds
    b2cworkingaccountavailablefunds b2cchargespaidaccountavailablefunds b2crecipientisregisteredcustomer
    transactiontype transid transtime transamount businessshortcode
"""
_DERIV = """
    msgtype reqid code message status paymentagenttransfer paymentagentwithdraw paymentagentloginid description
    dryrun currency endpoint method timing clientisagent timestamp category channel transactiontime
"""
_HEADERS = "contenttype contentlength useragent accept acceptencoding host xrequestid"
SHOWN = frozenset(f"{_MPESA} {_DERIV} {_HEADERS}".split())


@dataclass(frozen=True)
class Masker:
    """`known` are this customer's own texts (phone, name, address, accounts), hidden wherever they stand.

    `fingerprint` tells messages apart. Of a hidden text it must be keyed: a bare hash of a message in which only four
    digits are hidden gives them away to whoever tries them all.
    """

    in_clear: bool
    fingerprint: Callable[[str], str]
    known: Collection[str] = field(default=(), repr=False)

    def phone(self, number: str) -> str:
        """`2547XXXXXXXX` as `+2547****5678`."""
        digits = number.removeprefix("+")
        if self.in_clear or not digits.isdigit():
            return f"+{digits}" if digits.isdigit() else self._own(number)
        return f"+{digits[:4]}****{digits[-4:]}" if len(digits) >= 11 else HIDDEN

    def account(self, text: str) -> str:
        """`CR100001` as `CR***01`."""
        return self._own(text, f"{text[:2]}***{text[-2:]}" if len(text) >= 6 else HIDDEN)

    def name(self, text: str) -> str:
        """`Jane Wanjiku` as `J*** W***`."""
        return self._own(text, " ".join(f"{word[:1]}***" for word in text.split()))

    def email(self, text: str) -> str:
        """`jane@example.com` as `j***@example.com`."""
        local, at, host = text.partition("@")
        return self._own(text, f"{local[:1]}***{at}{host}" if at else HIDDEN)

    def _own(self, text: str, instead: str = HIDDEN) -> str:
        return text if self.in_clear or text in {"", ILLEGIBLE} else instead

    def text(self, text: str) -> str:
        """Free text, without secrets, and without what is personal in it."""
        for secret in SECRET_TEXTS:
            text = secret.sub(NEVER, text)
        if self.in_clear:
            return text
        text = CHECKOUT_TEXT.sub(rf"\1{HIDDEN}", text)
        text = PHONE_TEXT.sub(rf"+254\1{HIDDEN}", text)
        text = EMAIL_TEXT.sub(HIDDEN, text)
        return self._known.sub(HIDDEN, text) if self.known else text

    @property
    def _known(self) -> re.Pattern[str]:
        """Phones also where they stand within a longer number; words only as words."""
        parts = []
        for known in sorted({one for text in self.known for one in (text, *text.split())}, key=len, reverse=True):
            if known.isdigit() and len(known) >= 9:
                parts.append(re.escape(known[-9:]))
            elif len(known) >= 3:
                parts.append(rf"(?<!\w){re.escape(known)}(?!\w)")
        return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)

    def plain(self, value: Any) -> Any:
        """Our own JSON (an event's payload, an audit row's details): every text in it as `text`, secrets by name."""
        match value:
            case Mapping():
                return {key: NEVER if SECRET.search(_name(key)) else self.plain(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.plain(inner) for inner in value]
            case str():
                return self.text(value)
            case _:
                return value

    def message(self, raw: str) -> Any:
        """A provider's message, as a JSON value. Of what is no JSON nobody knows what is secret: it is not shown."""
        if raw in {"", ILLEGIBLE}:
            return raw
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            return NO_JSON
        return self._shown("", said)

    def headers(self, raw: str) -> Any:
        """Of a request that came: by the closed list always, for any header may be somebody's credential."""
        return replace(self, in_clear=False).message(raw)

    def _shown(self, name: str, value: Any) -> Any:
        match value:
            case _ if SECRET.search(name):
                return NEVER
            case dict():
                item = _item(value)
                named = {key: _name(item) if key == "Value" and item else _name(key) for key in value}
                return {
                    key: inner if item and key in {"Name", "Key"} else self._shown(named[key], inner)
                    for key, inner in value.items()
                }
            case list():
                return [self._shown(name, inner) for inner in value]
            case None | bool():
                return value
            case _ if self.in_clear:
                return self.text(value) if isinstance(value, str) else value
            case _ if name in PHONES and str(value).isdigit():
                return self.phone(str(value))
            case _ if name not in SHOWN:
                return HIDDEN
            case _:
                told = self.text(str(value))
                return value if told == str(value) else told


def _item(value: Mapping[str, Any]) -> str:
    """The name in M-Pesa's `{"Name": ..., "Value": ...}` and `{"Key": ..., "Value": ...}`; of other objects none."""
    name = value.get("Name", value.get("Key"))
    return name if isinstance(name, str) and len(name) < 64 and set(value) <= {"Name", "Key", "Value"} else ""


def _name(name: str) -> str:
    """As names are compared: spellings drift in capitals, blanks and dashes."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
