"""What no treasury movement may be: checked before anybody is shown it, and before anything of it is stored."""

import re
from collections.abc import Mapping
from datetime import date, timedelta

from shared_kernel.domain.money import Currency, Money
from wallet.domain.ledger import Account, AccountKind as A
from wallet.domain.treasury import (
    AGENT,
    KES,
    MPESA,
    RULES,
    USD,
    DoesNotAddUp,
    Kind,
    Leg,
    Movement,
    MovementRefused,
    ReasonMissing,
    SamePerson,
    Status,
    Voucher,
    VoucherRefused,
)

BOOKED_WITHIN = timedelta(days=366)  # what is older is a typing error, or belongs into the opening balances
EARLIEST_OPENING = date(2000, 1, 1)
_ONLY: Mapping[A, Currency] = dict.fromkeys(MPESA, KES) | dict.fromkeys(AGENT, USD)
_FORMS: Mapping[A, tuple[re.Pattern[str], str]] = {
    **dict.fromkeys(MPESA, (re.compile(r"[A-Z0-9]{8,16}"), "M-Pesa's receipt, as in UKM0000001")),
    A.DERIV_AGENT: (re.compile(r"[0-9]{1,20}"), "Deriv's transaction id, digits only"),
}
_DOCUMENT = re.compile(r"[A-Z0-9][A-Z0-9/._-]{2,63}"), "the bank's or the document's reference: A-Z, 0-9 and /._-"


def checked(movement: Movement, *, today: date) -> Movement:
    """Itself. Raises `MovementRefused`, `VoucherRefused`, `ReasonMissing` for what no person should be shown."""
    rule, amount, got = RULES[movement.kind], movement.amount, movement.got
    if movement.source.kind not in rule.gives or movement.target.kind not in rule.takes:
        gives, takes = (", ".join(sorted(kinds)) for kinds in (rule.gives, rule.takes))
        raise MovementRefused(f"{movement.kind} goes from {gives} to {takes}")
    if amount.amount <= 0 or (got is not None and got.amount <= 0):
        raise MovementRefused("give an amount above zero")
    if amount.currency not in rule.currencies or amount.currency is not movement.source.currency:
        raise MovementRefused(f"{movement.kind} is in {', '.join(sorted(rule.currencies))}, not in {amount.currency}")
    if (movement.kind is Kind.FX_CLOSE_OUT) != (got is not None):
        raise MovementRefused("give what is got for it, in the other currency, for an fx_close_out and nothing else")
    if movement.target.currency is not (got or amount).currency or (got and got.currency is amount.currency):
        raise MovementRefused("an exchange is between two currencies, and everything else in one")
    for account in (movement.source, movement.target):
        if _ONLY.get(account.kind, account.currency) is not account.currency:
            raise MovementRefused(f"{account.kind} is in {_ONLY[account.kind]} alone")
    if movement.source == movement.target:
        raise MovementRefused("it goes from one account to another one")
    if not movement.why.strip():
        raise ReasonMissing("say why, for whoever approves it and for the audit")
    must_be_a_voucher(movement.voucher, movement.outside(movement.first_leg), movement.kind, today=today)
    return movement


def must_be_a_voucher(voucher: Voucher, outside: Account | None, kind: Kind, *, today: date) -> None:
    """Of the form that the account outside has, and of a day that has come and is no typing error. Raises
    `VoucherRefused`.
    """
    form, named = _DOCUMENT
    if outside is not None and kind is not Kind.OPENING_BALANCE:
        form, named = _FORMS.get(outside.kind, _DOCUMENT)
    if not form.fullmatch(voucher.reference):
        raise VoucherRefused(f"give {named}")
    if voucher.day > today:
        raise VoucherRefused(f"{voucher.day} has not come yet: give the day on which it was booked there")
    first = EARLIEST_OPENING if kind is Kind.OPENING_BALANCE else today - BOOKED_WITHIN
    if voucher.day < first:
        raise VoucherRefused(f"{voucher.day} is before {first}: give the day on which it was booked there")


def claimed(
    movement: Movement,
    voucher: Voucher,
    arrived: Money,
    charge: Money,
    lost: Money | None = None,
    *,
    by: str,
    today: date,
) -> Movement:
    """Somebody has seen it arrive, all but what is `lost`, in the currency that was sent; where nothing arrives,
    `voucher` is the document that says so. Raises `MovementNotOpen`, `DoesNotAddUp`, `VoucherRefused`, `ReasonMissing`.
    """
    must_have_said(by)
    lost = lost or Money(0, movement.amount.currency)
    sees = movement.moved_to(Status.ARRIVING, arrival=voucher, charge=charge.amount, lost=lost.amount, arrival_by=by)
    _must_add_up(movement, arrived, charge, lost)
    must_be_a_voucher(voucher, sees.outside(Leg.ARRIVED), movement.kind, today=today)
    if movement.is_within and voucher.reference != movement.voucher.reference:
        raise VoucherRefused(
            f"a transfer within one shortcode has one receipt, {movement.voucher.reference}: look for that one there"
        )
    if voucher.day < movement.voucher.day:
        raise VoucherRefused(f"it can't have arrived before it was sent, on {movement.voucher.day}")
    return sees


def _must_add_up(movement: Movement, arrived: Money, charge: Money, lost: Money) -> None:
    """Raises `DoesNotAddUp`."""
    due = movement.got or movement.amount
    if not arrived.currency is charge.currency is due.currency or lost.currency is not movement.amount.currency:
        raise DoesNotAddUp(f"it arrives in {due.currency}, and is lost in {movement.amount.currency}")
    if lost and movement.is_within:
        raise DoesNotAddUp("within one shortcode nothing is lost: its one receipt shows both sides")
    if lost == movement.amount and not arrived and not charge:
        return
    if lost and movement.got:
        raise DoesNotAddUp(f"an exchange arrives as a whole, or is lost as a whole: all of {movement.amount}")
    gone = charge + lost if lost else charge
    if charge.amount < 0 or lost.amount < 0 or arrived.amount <= 0 or arrived + gone != due:
        raise DoesNotAddUp(
            f"{arrived} arrived, {charge} kept on the way and {lost} lost are not the {due} that are on their way: "
            "wait for the rest, say what of it is lost, or have the movement reversed and proposed as it was"
        )
    if charge and RULES[movement.kind].charges is None:
        raise DoesNotAddUp(f"nothing is kept on the way of {movement.kind}: propose the charge by itself")


def must_have_said(by: str, why: str = "-") -> None:
    """Raises `ReasonMissing`."""
    if not by or not why.strip():
        raise ReasonMissing("say who you are and why, for the audit")


def must_be_another(by: str, first: str) -> None:
    """Raises `SamePerson`."""
    if not by or by == first:
        raise SamePerson("somebody else has to approve what you propose")
