"""What each call of the simulated v3 does. Source: Deriv contract, section 2."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, TypeAlias

from deriv_integration.simulator.books import (
    TRANSFER,
    WITHDRAWAL,
    WS_V3,
    Account,
    Payment,
    TooManyDecimals,
    cents_of,
    number,
)
from deriv_integration.simulator.calls import BUDGETS, Refusal
from deriv_integration.simulator.rules import Obstacle, check_customer, check_transfer, check_withdrawal
from deriv_integration.simulator.v3_session import Dropped, Session, balance_of, head_of, shown
from deriv_integration.simulator.world import World

Body: TypeAlias = dict[str, Any]
Ask: TypeAlias = Mapping[str, Any]
DISCONNECT = "disconnect"  # `Account.moved`: the socket ends, without a word
CODE_TEXT = "Your token has expired or is invalid."
USD_CONFIG = {
    "fractional_digits": 2,
    "is_deposit_suspended": 0,
    "is_suspended": 0,
    "is_withdrawal_suspended": 0,
    "name": "US Dollar",
    "stake_default": 10,
    "transfer_between_accounts": {"fees": {}, "limits": {"min": 0.01}},
    "type": "fiat",
}


@dataclass
class V3Calls:
    """One method a call: the answer's body. They raise `Refusal` and `Obstacle`."""

    world: World

    def handler(self, call: str) -> Callable[[Session, Ask], Body]:
        """The method for a call that is known."""
        method: Callable[[Session, Ask], Body] = getattr(self, call)
        return method

    def authorize(self, session: Session, ask: Ask) -> Body:
        account = self.world.bank.by_token.get(ask["authorize"])
        session.account = None
        if account is None:
            raise Refusal("The token is invalid.", "InvalidToken")
        refuse_moved(account)
        if "disabled" in account.status:
            raise Refusal("This account is unavailable.", "DisabledClient")
        session.account, session.scopes = account, account.tokens[ask["authorize"]]
        return {"authorize": profile(account, session.scopes)}

    def paymentagent_transfer(self, session: Session, ask: Ask) -> Body:
        agent, amount, to = session.own, self._amount(ask), ask["transfer_to"].upper()
        client = self.world.bank.login(to)
        if client is not None and client.moved == DISCONNECT:
            raise Dropped
        client = check_transfer(self.world.bank, agent, client, to, amount, ask["currency"].upper())
        told = {"client_to_full_name": client.name, "client_to_loginid": client.loginid}
        if ask.get("dry_run") == 1:
            return {"paymentagent_transfer": 2, **told}
        payment = self.pay(TRANSFER, agent, client, amount, ask, session)
        return {"paymentagent_transfer": 1, **told, "transaction_id": payment.payer_entry}

    def paymentagent_withdraw(self, session: Session, ask: Ask) -> Body:
        """The code is used up first, whatever comes then; a dry run neither checks nor uses it."""
        client, is_dry = session.own, ask.get("dry_run") == 1
        if not is_dry and not self.world.codes.spend_mailed(client, ask["verification_code"]):
            raise Refusal(CODE_TEXT, "InvalidToken")
        amount, to = self._amount(ask), ask["paymentagent_loginid"].upper()
        agent = self.world.bank.login(to)
        agent = check_withdrawal(self.world.bank, client, agent, to, amount, ask["currency"].upper())
        if is_dry:
            return {"paymentagent_withdraw": 2, "paymentagent_name": agent.name}
        payment = self.pay(WITHDRAWAL, client, agent, amount, ask, session)
        return {
            "paymentagent_withdraw": 1,
            "paymentagent_name": agent.name,
            "transaction_id": payment.payer_entry,
        }

    def paymentagent_withdraw_justification(self, session: Session, ask: Ask) -> Body:
        client = session.own
        if "PaymentAgentJustificationAdded" in client.status:
            raise Refusal("You have already submitted a justification.", "JustificationAlreadySubmitted")
        client.status.discard("PaymentAgentJustification")
        client.status.add("PaymentAgentJustificationAdded")
        return {"paymentagent_withdraw_justification": 1}

    def verify_email(self, session: Session, ask: Ask) -> Body:
        """1 whether or not anybody has that address; nothing is mailed to nobody."""
        customer = self._owner(ask["verify_email"].lower(), session.account)
        if customer is not None:
            if customer is session.account and ask["type"] == "paymentagent_withdraw":
                check_customer(customer)
            self.world.codes.mail(customer, ask["type"])
        return {"verify_email": 1}

    def paymentagent_list(self, session: Session, ask: Ask) -> Body:
        agents = [
            listed(account)
            for account in self.world.bank.accounts.values()
            if account.is_agent and account.loginid and account.residence == ask["paymentagent_list"].lower()
            and ask.get("currency", account.currency).upper() == account.currency
        ]  # fmt: skip
        return {"paymentagent_list": {"available_countries": [["ke", "Kenya"]], "list": agents}}

    def statement(self, session: Session, ask: Ask) -> Body:
        account = session.own
        entries = self.world.bank.statement(
            account,
            action_type=ask.get("action_type"),
            since=ask.get("date_from", 0),
            until=ask.get("date_to", 9_999_999_999),
            hidden=self.world.hidden_from(account, WS_V3),
        )
        offset = ask.get("offset", 0)
        page = islice(entries, offset, offset + int(ask.get("limit", 100)))
        lines = [shown(entry, described=ask.get("description") == 1) for entry in page]
        return {"statement": {"count": len(lines), "transactions": lines}}

    def balance(self, session: Session, ask: Ask) -> Body:
        body: Body = {"balance": balance_of(session.own)}
        if ask.get("subscribe") == 1:
            body["subscription"] = {"id": self._subscribe(session, "balance", ask)}
            body["balance"]["id"] = body["subscription"]["id"]
        return body

    def transaction(self, session: Session, ask: Ask) -> Body:
        id = self._subscribe(session, "transaction", ask)
        return {"transaction": {"id": id}, "subscription": {"id": id}}

    def website_status(self, session: Session, ask: Ask) -> Body:
        body: Body = {"website_status": self.site()}
        if ask.get("subscribe") == 1:
            body["subscription"] = {"id": self._subscribe(session, "website_status", ask)}
        return body

    def forget(self, session: Session, ask: Ask) -> Body:
        known = [name for name, (id, _) in session.streams.items() if id == ask["forget"]]
        for name in known:
            del session.streams[name]
        return {"forget": len(known)}

    def forget_all(self, session: Session, ask: Ask) -> Body:
        kinds = ask["forget_all"] if isinstance(ask["forget_all"], list) else [ask["forget_all"]]
        return {"forget_all": [session.streams.pop(kind)[0] for kind in kinds if kind in session.streams]}

    def logout(self, session: Session, ask: Ask) -> Body:
        session.account, session.scopes = None, frozenset()
        session.streams.clear()
        return {"logout": 1}

    def ping(self, session: Session, ask: Ask) -> Body:
        return {"ping": "pong"}

    def time(self, session: Session, ask: Ask) -> Body:
        return {"time": int(self.world.clock().timestamp())}

    def pay(self, kind: str, payer: Account, payee: Account, amount: int, ask: Ask, session: Session) -> Payment:
        """Books both sides. Raises `Obstacle` for a repetition within the duplicate guard's window."""
        bank = self.world.bank
        now, key = self.world.clock(), (payer.key, payee.key, amount)
        if bank.duplicate_guard_s:
            last = bank.booked.get(key)
            if last is not None and now - last < timedelta(seconds=bank.duplicate_guard_s):
                raise Obstacle("too_frequent")
            bank.booked[key] = now
        return bank.pay(kind, payer, payee, amount, ask.get("description", ""), session.app_id)

    def site(self) -> Body:
        """What `website_status` says now."""
        faults = self.world.faults
        status = (
            "updating"
            if faults.is_armed("updating", WS_V3)
            else "down"
            if faults.is_armed("site_down", WS_V3)
            else "up"
        )
        minutely, hourly = BUDGETS["general"]
        slow = dict(zip(("minutely", "hourly"), BUDGETS["statement"], strict=True)) | {"applies_to": "statement"}
        return {
            "api_call_limits": {
                "max_proposal_subscription": {"applies_to": "subscribing to proposal", "max": 5},
                "max_requestes_general": {"applies_to": "general", "hourly": hourly, "minutely": minutely},
                "max_requests_outcome": slow,
                "max_requests_pricing": slow,
            },
            "clients_country": "ke",
            "currencies_config": {"USD": USD_CONFIG},
            "site_status": status,
            "supported_languages": ["EN"],
        }

    def _subscribe(self, session: Session, name: str, ask: Ask) -> str:
        if name in session.streams:
            raise Refusal(f"You are already subscribed to {name}.", "AlreadySubscribed")
        id = self.world.bank.uuid()
        session.streams[name] = (id, {**head_of(ask, name), "subscription": {"id": id}})
        return id

    def _owner(self, email: str, caller: Account | None) -> Account | None:
        """Who has that address on v3; the caller, where it is one of several."""
        if caller is not None and caller.email.lower() == email:
            return caller
        everybody = self.world.bank.accounts.values()
        return next((a for a in everybody if a.loginid and not a.moved and a.email.lower() == email), None)

    @staticmethod
    def _amount(ask: Ask) -> int:
        try:
            return cents_of(ask["amount"])
        except TooManyDecimals:
            raise Obstacle("decimals") from None


def refuse_moved(account: Account) -> None:
    """Deriv moved this customer to the new API: on the old one nothing works for them any more."""
    if account.moved == DISCONNECT:
        raise Dropped
    if account.moved:
        raise Refusal("This account is unavailable.", account.moved)


def profile(account: Account, scopes: frozenset[str]) -> Body:
    """As `authorize` answers."""
    company = "svg"
    own = {
        "currency": account.currency,
        "is_disabled": 0,
        "is_virtual": int(account.is_virtual),
        "landing_company_name": company,
        "loginid": account.loginid,
    }
    return {
        "account_list": [own],
        "balance": number(account.balance),
        "country": account.residence,
        "currency": account.currency,
        "email": account.email,
        "fullname": account.name,
        "is_virtual": int(account.is_virtual),
        "landing_company_fullname": "Deriv (SVG) LLC",
        "landing_company_name": company,
        "local_currencies": {"KES": {"fractional_digits": 2}},
        "loginid": account.loginid,
        "preferred_language": "EN",
        "scopes": sorted(scopes),
        "upgradeable_landing_companies": [],
        "user_id": account.user_id,
    }


def listed(agent: Account) -> Body:
    """As `paymentagent_list` shows an agent."""
    return {
        "currencies": agent.currency,
        "deposit_commission": "0",
        "email": agent.email,
        "further_information": "",
        "max_withdrawal": f"{agent.most / 100:.2f}",
        "min_withdrawal": f"{agent.least / 100:.2f}",
        "name": agent.name,
        "paymentagent_loginid": agent.loginid,
        "phone_numbers": [{"phone_number": "+254700000000"}],
        "summary": agent.name,
        "supported_payment_methods": [{"payment_method": "M-Pesa"}],
        "urls": [{"url": "https://example.com"}],
        "withdrawal_commission": "0",
    }
