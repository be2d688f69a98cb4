"""Deriv's REST API as a payment agent uses it: each attempt has its own `request_id`, which Deriv carries out once.

Source: Deriv contract, sections 1, 3.1, 3.3 and 6.1.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from deriv_integration.domain.transfer import (
    CodeTooSoon,
    DerivAccount,
    DerivTokenRefused,
    DerivUnavailable,
    InsideTransaction,
    WithdrawalRefused,
)
from deriv_integration.infrastructure.rest_v1.answers import checked, meaning_of, moved, said, seconds_of
from deriv_integration.infrastructure.rest_v1.client import AgentCredential, Answer, RestClient
from deriv_integration.infrastructure.rest_v1.verdict import judged
from deriv_integration.infrastructure.rest_v1.wallet import (
    SKEW,
    Unusable,
    WalletEntry,
    entries_named,
    entries_since,
    from_customer,
    held_by,
    named,
    nameless,
)
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Done, Lookup, NotSent, Outcome, Pending, Refused, Unknown, Unreadable
from shared_kernel.domain.ports import Clock
from shared_kernel.domain.requests import AgentEntry, CodeSent, DerivLogin, DerivTransfer, Leg
from shared_kernel.infrastructure import http
from shared_kernel.infrastructure.persistence import in_transaction, now

AGENTS = "/payment-agents/v1"
TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
CODE = re.compile(r"[0-9]{6}", re.ASCII)
REFUSES_TOKEN = {401, 403}
BIND_AGAIN = "Deriv does not accept this token. Bind your Deriv login again."
NO_NICKNAME = Refused("invalid_nickname", "This is not a Deriv nickname.")
NOT_A_CODE = Refused("code_malformed", "This is not a code as Deriv sends it: six digits. Ask for a new one.")
NO_TOKEN = NotSent("customer_token_missing", 300, alert=True)
AGENT_UNKNOWN = NotSent("agent_unknown", 300, alert=True)
PAUSE = timedelta(seconds=60)  # until the next code, where Deriv does not tell
NAME_CHECK = Money(10_00, Currency.USD)


class Rest:
    """A `DerivApi` over HTTP. An agent is named by its number at Deriv."""

    def __init__(
        self,
        base_url: str,
        app_id: str,
        credentials: Sequence[AgentCredential],
        *,
        clock: Clock = now,
        outside: Callable[[], bool] = lambda: not in_transaction(),
    ) -> None:
        self._client = RestClient(base_url, app_id)
        self._agents = {credential.name: credential for credential in credentials}
        self._clock = clock
        self._outside = outside

    @property
    def agents(self) -> Sequence[str]:
        """Numbers of the agents, as text."""
        return list(self._agents)

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        """`POST transfer` with `dry_run`: `Done(full name)`, which is empty unless the customer shows it."""
        self._must_be_outside()
        credential = self._agents.get(agent)
        if credential is None:
            return AGENT_UNKNOWN
        return self._outcome(partial(self._checked, credential, login.account, amount))

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        """`POST transfer`, or for a debit the customer's `POST withdraw`, under the attempt's `request_id`.

        The same request may go again: `RequestIDUsed` is `Unknown`, and says that an earlier one had arrived.
        """
        self._must_be_outside()
        credential = self._agents.get(transfer.agent)
        if credential is None:
            return AGENT_UNKNOWN
        if not transfer.login.account.strip():
            return NO_NICKNAME
        if transfer.leg is not Leg.DERIV_DEBIT:
            body = transfer_body(transfer)
            return self._outcome(lambda: self._move("transfer", credential.token, body, transfer, give_up_at))
        if not CODE.fullmatch(transfer.verification_code):
            return NOT_A_CODE
        if not TOKEN.fullmatch(transfer.token):
            return NO_TOKEN
        body = withdrawal_body(transfer, credential)
        return self._outcome(lambda: self._move("withdraw", transfer.token, body, transfer, give_up_at))

    def find(self, transfer: DerivTransfer) -> Lookup:
        """The status call by `request_id` (a debit's with the customer's token, while that lives), then the wallet.

        A debit is found in the agent's wallet alone. What was not found may be sent again under the same id
        (`repeatable`), a debit excepted: its code is used up.
        """
        self._must_be_outside()
        credential = self._agents.get(transfer.agent)
        if credential is None:
            return Unreadable("agent_unknown")
        try:
            status, id = self._status(transfer, credential)
            if transfer.leg is not Leg.DERIV_DEBIT and status in {"requested", "pending"}:
                return Pending()
            return judged(transfer, status, id, self._entries_of(transfer, credential, status, id))
        except Unusable as failed:
            return Unreadable(failed.code)
        except (http.NotConnected, http.NoAnswer) as failed:
            return Unreadable(str(failed))

    def book(self, agent: str, since: datetime) -> Sequence[AgentEntry] | Unreadable:
        """The agent's wallet since then, newest first; what was taken back has the status `reverted`."""
        self._must_be_outside()
        credential = self._agents.get(agent)
        if credential is None:
            return Unreadable("agent_unknown")
        try:
            return [entry.public for entry in entries_since(self._client, credential, since)]
        except Unusable as failed:
            return Unreadable(failed.code)
        except (http.NotConnected, http.NoAnswer) as failed:
            return Unreadable(str(failed))

    def balance(self, agent: str) -> Money | Unreadable:
        """`GET /wallet/v1/wallets`: what the agent's `payment_agent` wallet holds in its currency."""
        self._must_be_outside()
        credential = self._agents.get(agent)
        if credential is None:
            return Unreadable("agent_unknown")
        try:
            return held_by(self._client, credential)
        except Unusable as failed:
            return Unreadable(failed.code)
        except (http.NotConnected, http.NoAnswer) as failed:
            return Unreadable(str(failed))

    def identify(self, token: str) -> DerivAccount:
        """The token's nickname, and what it may do. Raises `DerivTokenRefused`, `DerivUnavailable`.

        Deriv does not share a name unless the customer has switched that on: `full_name` is empty then, and whoever
        compares names must take that for "not the same person" and tell the customer to switch it on. With it on, a
        dry run of one of our agents tells the name.
        """
        self._must_be_outside()
        if not TOKEN.fullmatch(token):
            raise DerivTokenRefused(BIND_AGAIN)
        nickname = self._asked(token, "/account/v1/nickname").get("nickname")
        if not isinstance(nickname, str) or not nickname.strip():
            raise DerivTokenRefused("this Deriv account has no nickname yet: choose one at Deriv first")
        profile = self._asked(token, f"{AGENTS}/clients/me")
        return DerivAccount(
            account=nickname,
            currency=str(Currency.USD),
            full_name=self._name_of(nickname) if profile.get("show_real_name") is True else "",
            scopes=frozenset({"account_manage", "payment"}),  # both answered
            is_virtual=False,
        )

    def request_code(self, login: DerivLogin, token: str, agent: str, amount: Money) -> CodeSent:
        """`POST withdraw/verification_code`: Deriv sends six digits, bound to agent, amount and currency.

        Raises `DerivTokenRefused`, `DerivUnavailable`, `WithdrawalRefused`, `CodeTooSoon`.
        """
        self._must_be_outside()
        credential = self._agents.get(agent)
        if credential is None:
            raise DerivUnavailable("Deriv transfers are stopped at the moment: try again later")
        if not TOKEN.fullmatch(token):
            raise DerivTokenRefused(BIND_AGAIN)
        if self._asked(token, "/account/v1/nickname").get("nickname") != login.account:
            raise WithdrawalRefused("This token is for another Deriv login.", provider_code="other_nickname")
        body = {"agent_id": credential.agent_id, **money_fields(amount)}
        answer = self._answered(lambda: self._client.post(f"{AGENTS}/withdraw/verification_code", token, body))
        if not answer.is_good:
            raise self._no_code(answer)
        data = answer.data if isinstance(answer.data, dict) else {}
        expires, again = seconds_of(data.get("expires_at")), seconds_of(data.get("next_request_at"))
        if expires is None or again is None:
            raise DerivUnavailable("Deriv's answer can't be used: try again later")
        return CodeSent(datetime.fromtimestamp(expires, UTC), datetime.fromtimestamp(again, UTC))

    def _must_be_outside(self) -> None:
        if not self._outside():
            raise InsideTransaction("Deriv is not called while a database transaction is open")

    # --- money --------------------------------------------------------------------------------------------------------

    def _move(self, what: str, token: str, body: dict[str, Any], transfer: DerivTransfer, give_up_at: float) -> Outcome:
        return moved(self._client.post(f"{AGENTS}/{what}", token, body, give_up_at=give_up_at), transfer.leg)

    def _checked(self, credential: AgentCredential, nickname: str, amount: Money) -> Outcome:
        body = {"to_nickname": nickname, **money_fields(amount), "dry_run": True}
        return checked(self._client.post(f"{AGENTS}/transfer", credential.token, body))

    def _outcome(self, call: Callable[[], Outcome]) -> Outcome:
        """A call's outcome, whatever the network does."""
        try:
            return call()
        except http.TooLate:
            return NotSent("send_before")
        except http.NotConnected:
            return NotSent("not_connected", 5)
        except http.NoAnswer as lost:
            return Unknown(str(lost))

    # --- looking up ---------------------------------------------------------------------------------------------------

    def _status(self, transfer: DerivTransfer, credential: AgentCredential) -> tuple[str, str]:
        """Status and id by `request_id`; `not_found`, or empty where it can't be asked (a debit's dead token)."""
        is_debit = transfer.leg is Leg.DERIV_DEBIT
        token = transfer.token if is_debit else credential.token
        if not TOKEN.fullmatch(token):
            return "", ""
        path = f"{AGENTS}/{'withdraw' if is_debit else 'transfer'}/{transfer.reference}"
        try:
            answer = self._client.get(path, token)
        except (http.NotConnected, http.NoAnswer):
            if is_debit:  # the agent's wallet decides anyway
                return "", ""
            raise
        if answer.is_good and (told := said(answer))[0]:
            return told
        if 400 <= answer.status < 500 and [problem.code for problem in answer.problems] == ["RequestIDNotFound"]:
            return "not_found", ""
        if is_debit:
            return "", ""
        raise Unusable(f"status:{answer.code}")

    def _entries_of(
        self, transfer: DerivTransfer, credential: AgentCredential, status: str, id: str
    ) -> Sequence[WalletEntry]:
        """The wallet's entries of this transfer: by its request id, or by the id that the status call told.

        Where neither is shown, by direction, amount, counterpart and time; but not while Deriv says that it was not
        made: then another payment of the same customer must not be taken for it.
        """
        ours = named(entries_named(self._client, credential, transfer.reference), transfer)
        if not ours and status in {"complete", "not_found", ""}:
            entries = entries_since(self._client, credential, transfer.created_at - SKEW)
            ours = named(entries, transfer)
            if not ours and id and transfer.leg is not Leg.DERIV_DEBIT:
                return [entry for entry in entries if entry.id == id]
            if not ours:
                return nameless(entries, transfer, self._known_as(transfer))
        return from_customer(ours, transfer, self._known_as(transfer)) if ours else []

    def _known_as(self, transfer: DerivTransfer) -> frozenset[str]:
        """By what a wallet entry may name the customer: the nickname, or the id that their own token tells."""
        known = {transfer.login.account}
        if not TOKEN.fullmatch(transfer.token):
            return frozenset(known)
        try:
            answer = self._client.get("/account/v1/nickname", transfer.token)
        except (http.NotConnected, http.NoAnswer):
            return frozenset(known)
        told = answer.data if answer.is_good and isinstance(answer.data, dict) else {}
        own = told.get("external_reference_id")
        if told.get("nickname") == transfer.login.account and isinstance(own, str) and own:
            known.add(own)
        return frozenset(known)

    # --- what moves nothing -------------------------------------------------------------------------------------------

    def _answered(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except (http.TooLate, http.NotConnected, http.NoAnswer):
            raise DerivUnavailable("Deriv did not answer: try again later") from None

    def _asked(self, token: str, path: str) -> dict[str, Any]:
        """A customer's own data. Raises `DerivTokenRefused`, `DerivUnavailable`."""
        answer = self._answered(lambda: self._client.get(path, token))
        if answer.status in REFUSES_TOKEN:
            raise DerivTokenRefused(BIND_AGAIN, reason=f"http_{answer.status}")
        if answer.status == 404:
            return {}
        if not answer.is_good or not isinstance(answer.data, dict):
            raise DerivUnavailable("Deriv can't check the token now: try again later")
        return answer.data

    def _name_of(self, nickname: str) -> str:
        """By a dry run; empty when Deriv does not tell it now."""
        for credential in self._agents.values():
            outcome = self._outcome(partial(self._checked, credential, nickname, NAME_CHECK))
            if isinstance(outcome, Done):
                return outcome.reference
        return ""

    def _no_code(self, answer: Answer) -> DomainError:
        """Why no code was sent."""
        at = self._clock()
        if answer.status in REFUSES_TOKEN:
            return DerivTokenRefused(BIND_AGAIN, reason=f"http_{answer.status}")
        for problem in answer.problems:
            when = seconds_of(problem.facts.get("next_request_at"))
            if problem.code == "OtpRateLimitExceeded":
                return CodeTooSoon(at + PAUSE if when is None else datetime.fromtimestamp(when, UTC), at=at)
        code, meaning = meaning_of(answer, Leg.DERIV_DEBIT)
        if meaning.reason:
            return WithdrawalRefused(meaning.reason, provider_code=code)
        return DerivUnavailable("Deriv can't send the code now: try again later")


def money_fields(amount: Money) -> dict[str, str]:
    """The amount as a decimal text, with two decimals."""
    return {"amount": f"{amount.decimal:.2f}", "currency": str(amount.currency)}


def transfer_body(transfer: DerivTransfer) -> dict[str, Any]:
    """A credit, by the customer's nickname."""
    return {
        "to_nickname": transfer.login.account,
        **money_fields(transfer.amount),
        "request_id": transfer.reference,
    }


def withdrawal_body(transfer: DerivTransfer, credential: AgentCredential) -> dict[str, Any]:
    """A debit, with the code that was sent for exactly this agent, amount and currency."""
    return {
        "agent_id": credential.agent_id,
        **money_fields(transfer.amount),
        "verification_code": transfer.verification_code,
        "request_id": transfer.reference,
    }
