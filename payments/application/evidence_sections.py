"""The sections of an evidence document, each a list of rows; the story is made of all the others."""

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from payments.domain.evidence import Records, Row
from payments.domain.masking import Masker
from shared_kernel.domain.money import Currency, Money

CALLBACKS = {
    "s": "STK result", "b": "B2C result", "bt": "B2C time-out", "t": "status result", "tt": "status time-out",
    "r": "reversal result", "rt": "reversal time-out", "c": "C2B confirmation", "v": "C2B validation",
}  # fmt: skip
STEP, HELD, RELEASED = "transaction.status", "transaction.held", "transaction.released"


def sections(records: Records, mask: Masker) -> dict[str, list[Row]]:
    """By name, in the order of the page."""
    made = {
        "intent": [_intent(records, mask)],
        "customer": [_customer(records.customer, mask)],
        "quote": [_quote(records)],
        "steps": [_step(row, mask) for row in records.audit if row["action"] == STEP],
        "requests": sorted([*_at_mpesa(records, mask), *_at_deriv(records, mask)], key=itemgetter("intended_at")),
        "messages": sorted([*_answers(records, mask), *_callbacks(records, mask)], key=itemgetter("at")),
        "entries": list(_entries(records.entries)),
        "accounts": _accounts(records.entries),
        "decisions": [_decision(row, mask) for row in records.proposals],
        "holds": [_note(row, mask) for row in records.audit if row["action"] in {HELD, RELEASED}],
        "reservations": [_reservation(row, records) for row in records.reservations],
        "orphans": [_orphan(row, mask) for row in records.orphans],
        "breaks": [_break(row, mask) for row in records.breaks],
        "events": [_event(row, mask) for row in records.events],
        "audit": [_note(row, mask) for row in records.audit],
        "seals": list(records.seals),
    }
    return {"story": _story(made), **made}


def money(amount: int | None, currency: str) -> str:
    """Minor units as people read them: `1300.00 KES`; none is empty."""
    return "" if amount is None else str(Money(amount, Currency(currency)))


# --- what was asked and promised --------------------------------------------------------------------------------------


def _intent(records: Records, mask: Masker) -> Row:
    row, device = records.transaction, records.device
    first = next(iter(records.audit), {})
    told: Row = {name: row[name] for name in ("id", "type", "status", "created_at", "updated_at")}
    return told | {
        "asked_by": first.get("actor", ""),
        "address": first.get("address", ""),
        "request": first.get("request_id", ""),
        "device": first.get("device", ""),
        "device_name": mask.name(device.get("name", "")),
        "device_platform": device.get("platform", ""),
        "device_since": device.get("created_at"),
        "sends": money(row["amount"], row["currency"]),
        "gets": money(row["payout_amount"], row["payout_currency"]),
        "paid_in": money(row["paid_amount"], row["currency"]),
        "phone": mask.phone(row["phone"]),
        "deriv_platform": row["platform"],
        "deriv_account": mask.account(row["deriv_account"]),
        "deriv_login_checked_at": row["login_checked_at"],
        "agent": row["agent"],
        "mpesa_receipt": row["mpesa_receipt"],
        "deriv_transaction": row["deriv_transfer_id"],
        "deriv_credit_back": row["credit_back_id"],
        "way_out": row["outflow"],
        "failure": f"{row['failure_code']}: {mask.text(row['failure_detail'])}" if row["failure_code"] else "",
        "came_to_a_person_from": row["attention_from"],
        "step_version": row["step_version"],
    }


def _customer(customer: Row, mask: Masker) -> Row:
    if not customer:
        return {"id": "", "name": "[no such customer]"}
    return {
        "id": customer["id"],
        "name": mask.name(customer["full_name"]),
        "phone": mask.phone(customer["phone"]),
        "email": mask.email(customer["email"]),
        "registered_at": customer["registered_at"],
        "phone_verified_at": customer["phone_verified_at"],
        "kyc_status": customer["kyc_status"],
        "kyc_status_at": customer["kyc_status_at"],
        "tier": customer["tier"],
    }


def _quote(records: Records) -> Row:
    """The quote as it was offered, and the rate as it was locked in the Transaction."""
    row, offered = records.transaction, records.quote
    made: Row = {"id": row["quote_id"]}
    if offered:
        made |= {
            "offered_at": offered["created_at"],
            "offer_expires_at": offered["expires_at"],
            "offered_sends": money(offered["send_amount"], offered["send_currency"]),
            "offered_gets": money(offered["get_amount"], offered["get_currency"]),
            "offered_mid": offered["mid"],
            "offered_rate": offered["rate"],
        }
    return made | {
        "locked_mid": row["mid"],
        "locked_rate": row["rate"],
        "rate_source": row["rate_source"],
        "locked_at": row["rate_locked_at"],
        "lock_expires_at": row["rate_expires_at"],
        "least_payout": money(row["min_payout"], row["payout_currency"]),
    }


def _reservation(row: Row, records: Records) -> Row:
    payment = records.transaction
    return {
        "at": row["created_at"],
        "account": row["account"],
        "amount": money(row["amount"], payment["payout_currency"]),
        "released_at": row["released_at"],
    }


# --- what the providers were asked, and said --------------------------------------------------------------------------


def _request(row: Row, provider: str) -> Row:
    names = (
        "id", "leg", "attempt", "reference", "status", "code", "send_before", "outcome_at", "asked_at", "fence",
        "was_unknown", "absences",
    )  # fmt: skip
    made: Row = {"provider": provider, "intended_at": row["created_at"]}
    return made | {name: row[name] for name in names} | {"amount": money(row["amount"], row["currency"])}


def _at_mpesa(records: Records, mask: Masker) -> Iterator[Row]:
    for row in records.mpesa:
        yield _request(row, "M-Pesa") | {
            "our_account": row["shortcode"],
            "destination": mask.phone(row["phone"]) if row["phone"] else "",
            "about": row["about"],
            "receipt": row["receipt"] or "",
            "merchant_request": row["merchant_request_id"],
            "checkout_request": mask.text(row["checkout_request_id"]),
            "conversation": row["conversation_id"],
        }


def _at_deriv(records: Records, mask: Masker) -> Iterator[Row]:
    for row in records.deriv:
        yield _request(row, f"Deriv {row['platform']}") | {
            "our_account": row["agent"],
            "destination": mask.account(row["account"]),
            "transaction": row["provider_transaction_id"] or "",
        }


def _answers(records: Records, mask: Masker) -> Iterator[Row]:
    """What came back on the wire of a call; the newest answer of each attempt is what is kept."""
    for provider, rows in (("M-Pesa", records.mpesa), ("Deriv", records.deriv)):
        for row in rows:
            if row["answer"]:
                yield {
                    "at": row["outcome_at"] or row["created_at"],
                    "from": provider,
                    "what": "answer",
                    "about": f"{row['leg']} {row['attempt']}",
                    "request": row["id"],
                    "fingerprint": mask.fingerprint(row["answer"]),
                    "said": mask.message(row["answer"]),
                }


def _callbacks(records: Records, mask: Masker) -> Iterator[Row]:
    attempts = {row["id"]: f"{row['leg']} {row['attempt']}" for row in records.mpesa}
    for row in records.callbacks:
        yield {
            "at": row["received_at"],
            "from": "M-Pesa",
            "what": f"callback, {CALLBACKS.get(row['kind'], row['kind'])}",
            "about": attempts.get(row["request_id"], ""),
            "request": row["request_id"],
            "peer": row["peer"],
            "times": row["times"],
            "last_at": row["last_received_at"],
            "verdict": row["verdict"],
            "result": row["result_code"],
            "claimed": money(row["amount"], "KES"),
            "claimed_fee": money(row["fee"], "KES"),
            "receipt": row["receipt"],
            "fate": row["fate"],
            "fingerprint": mask.fingerprint(row["body"]),
            "headers": mask.headers(row["headers"]),
            "said": mask.message(row["body"]),
        }


# --- the ledger -------------------------------------------------------------------------------------------------------


def _entries(entries: Sequence[Row]) -> Iterator[Row]:
    """Each with what this Transaction has done to both accounts up to it: debits less credits, as `1300.00 KES Dr`."""
    standing: dict[str, int] = {}
    for row in entries:
        debit, credit = _account(row, "debit"), _account(row, "credit")
        standing[debit] = standing.get(debit, 0) + row["amount"]
        standing[credit] = standing.get(credit, 0) - row["amount"]
        yield {
            "seq": row["seq"],
            "id": row["id"],
            "journal": row["journal_id"],
            "purpose": row["purpose"],
            "debit": debit,
            "debit_stands_at": _side(standing[debit], row["currency"]),
            "credit": credit,
            "credit_stands_at": _side(standing[credit], row["currency"]),
            "amount": money(row["amount"], row["currency"]),
            "reference": row["reference"],
            "provider_key": row["provider_key"] or "",
            "reverses": row["reverses"],
            "effective_at": row["effective_at"],
            "recorded_at": row["recorded_at"],
        }


def _accounts(entries: Sequence[Row]) -> list[Row]:
    """What the Transaction has left on each account."""
    left: dict[tuple[str, str], int] = {}
    for row in entries:
        for side, sign in (("debit", 1), ("credit", -1)):
            key = (_account(row, side), row["currency"])
            left[key] = left.get(key, 0) + sign * row["amount"]
    return [{"account": account, "left": _side(sum, currency)} for (account, currency), sum in sorted(left.items())]


def _account(row: Row, side: str) -> str:
    return " ".join(part for part in (row[f"{side}_kind"], row[f"{side}_owner"], row["currency"]) if part)


def _side(debits: int, currency: str) -> str:
    return money(abs(debits), currency) + (" Dr" if debits > 0 else " Cr" if debits < 0 else "")


# --- what people and the system did -----------------------------------------------------------------------------------


def _step(row: Row, mask: Masker) -> Row:
    return {
        "at": row["at"],
        "before": row["before"],
        "after": row["after"],
        "why": mask.text(row["why"]),
        "by": row["actor"],
        "request": row["request_id"],
    }


def _decision(row: Row, mask: Masker) -> Row:
    return {
        "id": row["id"],
        "decision": row["decision"],
        "at": row["at"],
        "by": row["by"],
        "why": mask.text(row["why"]),
        "about_request": row["request_id"],
        "evidence": mask.text(row["reference"]),
        "amount": money(row["amount"], row["currency"]) if row["amount"] is not None else "",
        "to_phone": mask.phone(row["phone"]) if row["phone"] else "",
        "to_deriv_account": mask.account(row["deriv_account"]),
        "approved_by": row["approved_by"] or ("nobody" if row["rejected_by"] else "nobody yet"),
        "approved_at": row["approved_at"],
        "rejected_by": row["rejected_by"],
        "rejected_at": row["rejected_at"],
    }


def _note(row: Row, mask: Masker) -> Row:
    names = ("seq", "at", "action", "target_type", "target_id", "before", "after")
    who = ("actor", "device", "address", "request_id")
    told = {"why": mask.text(row["why"]), "details": mask.plain(row["details"])}
    return {name: row[name] for name in names} | told | {name: row[name] for name in who}


def _orphan(row: Row, mask: Masker) -> Row:
    return {
        "provider": row["provider"],
        "account": row["account"],
        "movement": row["movement"],
        "amount": money(row["amount"], row["currency"]),
        "reference": mask.text(row["reference"]),
        "moved_at": row["moved_at"],
        "found_at": row["found_at"],
        "owner": row["owner"],
        "settled_at": row["settled_at"],
    }


def _break(row: Row, mask: Masker) -> Row:
    names = ("id", "kind", "status", "provider", "account", "sub_account", "known_as", "movement", "at", "opened_at")
    who = ("owner", "resolution", "resolved_by", "resolved_at", "approved_by", "closed_at")
    told: Row = {"theirs": money(row["theirs"], row["currency"]), "ours": money(row["ours"], row["currency"])}
    told |= {name: row[name] for name in who} | {"why": mask.text(row["why"])}
    return {name: row[name] for name in names} | told


def _event(row: Row, mask: Masker) -> Row:
    names = ("seq", "id", "type", "occurred_at", "published_at", "attempts", "parked_at", "discarded_at")
    failed = str(row["error"]).strip().rpartition("\n")[2]
    return {name: row[name] for name in names} | {
        "payload": mask.plain(row["payload"]),
        "context": mask.plain(row["context"]),
        "error": mask.text(failed),
    }


# --- the story --------------------------------------------------------------------------------------------------------


def _story(made: Mapping[str, list[Row]]) -> list[Row]:
    """Everything that happened, oldest first; what has the same time stays in the order of the sections."""
    told = [one for tell in (_told_by_us, _told_by_providers, _told_by_people) for one in tell(made)]
    customer = f"user:{made['customer'][0]['id']}"
    for row in told:
        row["who"] = "customer" if row["who"] == customer else row["who"]
    return sorted((row for row in told if row["at"] is not None), key=itemgetter("at"))


def _line(at: Any, section: str, what: str, who: str = "PenPay") -> Row:
    return {"at": at, "what": what, "who": who, "section": section}


def _told_by_us(made: Mapping[str, list[Row]]) -> Iterator[Row]:
    [quote], steps, whose = made["quote"], made["steps"], made["customer"][0]["id"] or "nobody"
    if "offered_at" in quote:
        offer = f"{quote['offered_sends']} for {quote['offered_gets']} at {quote['offered_rate'].normalize():f}"
        yield _line(quote["offered_at"], "quote", f"quote offered: {offer}")
    for row in steps:
        move = f"{row['before']} to {row['after']}" if row["before"] else row["after"]
        yield _line(row["at"], "steps", f"status {move}" + (f": {row['why']}" if row["why"] else ""), row["by"])
    for row in made["reservations"]:
        yield _line(row["at"], "reservations", f"{row['amount']} reserved on {row['account']}")
        yield _line(row["released_at"], "reservations", f"{row['amount']} on {row['account']} free again")
    for row in made["events"]:
        yield _line(row["occurred_at"], "events", f"event {row['type']}")
        yield _line(row["parked_at"], "events", f"event {row['type']} parked: it could not be delivered")
    for row in made["entries"]:
        debit, credit = (row[side].replace(f" {whose}", "") for side in ("debit", "credit"))
        posted = f"posted {row['purpose']}: {row['amount']}, debit {debit}, credit {credit}"
        yield _line(row["recorded_at"], "entries", posted, "ledger")


def _told_by_providers(made: Mapping[str, list[Row]]) -> Iterator[Row]:
    for row in made["requests"]:
        what = f"{row['leg']}, attempt {row['attempt']}"
        yield _line(
            row["intended_at"], "requests", f"{row['provider']} is asked: {what}, {row['amount']}, {row['reference']}"
        )
        result = f"{row['status']}" + (f" ({row['code']})" if row["code"] else "")
        yield _line(row["outcome_at"], "requests", f"outcome of {what}: {result}", row["provider"])
    for row in made["messages"]:
        claim = ", ".join(part for part in (row.get("result"), row.get("claimed"), row.get("receipt")) if part)
        again = f", {row['times']} times" if row.get("times", 1) > 1 else ""
        yield _line(
            row["at"], "messages", f"{row['what']} about {row['about']}" + (f": {claim}" if claim else "") + again,
            row["from"],
        )  # fmt: skip
    for row in made["breaks"]:
        sums = f"theirs {row['theirs'] or 'nothing'}, ours {row['ours'] or 'nothing'}"
        yield _line(row["opened_at"], "breaks", f"break {row['kind']}: {sums}", "reconciliation")
        ended = f"break {row['kind']} is {row['status']}"
        yield _line(row["closed_at"], "breaks", ended, row["resolved_by"] or "reconciliation")
    for row in made["orphans"]:
        yield _line(row["moved_at"], "orphans", f"{row['amount']} moved that no step explains", row["provider"])


def _told_by_people(made: Mapping[str, list[Row]]) -> Iterator[Row]:
    for row in made["decisions"]:
        yield _line(row["at"], "decisions", f"{row['decision']} proposed: {row['why']}", row["by"])
        yield _line(row["approved_at"], "decisions", f"{row['decision']} approved", row["approved_by"])
    elsewhere = {STEP, HELD, RELEASED, "transaction.decision_proposed", "transaction.decision_approved"}
    for row in made["holds"]:
        yield _line(row["at"], "holds", f"{row['action'].rpartition('.')[2]}: {row['why']}", row["actor"])
    for row in made["audit"]:
        if row["action"] not in elsewhere:
            yield _line(row["at"], "audit", row["action"] + (f": {row['why']}" if row["why"] else ""), row["actor"])
