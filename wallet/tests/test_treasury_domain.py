"""Treasury movements by themselves: which accounts, which forms, and that whatever they post balances."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from shared_kernel.domain.fx import FxPosition, result_of
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id
from wallet.domain.ledger import Account, AccountKind as A, changes, house
from wallet.domain.treasury import (
    NEXT,
    RULES,
    Booking,
    DoesNotAddUp,
    Kind,
    Leg,
    Movement,
    MovementNotOpen,
    MovementRefused,
    ReasonMissing,
    SamePerson,
    Status,
    Voucher,
    VoucherRefused,
)
from wallet.domain.treasury_checks import checked, claimed, must_be_another
from wallet.tests.factories import kes, usd

DAY = date(2026, 11, 24)
AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
KES, USD = Currency.KES, Currency.USD
OWNERS = {
    A.MPESA_WORKING: "174379",
    A.MPESA_UTILITY: "600992",
    A.MPESA_CHARGES_PAID: "600992",
    A.CUSTOMER_RECEIVABLE: "c",
}
FORMS = {A.MPESA_WORKING: "UKM0000001", A.MPESA_UTILITY: "UKM0000002", A.MPESA_CHARGES_PAID: "UKM0000003",
         A.DERIV_AGENT: "880001"}  # fmt: skip
PLAIN = Booking("reference")
cents = st.integers(1, 10**12)


def ways(kind):
    """Every pair of accounts, in every currency, that the kind is between."""
    rule = RULES[kind]
    for currency in sorted(rule.currencies):
        other = {KES: USD, USD: KES}[currency] if kind is Kind.FX_CLOSE_OUT else currency
        for gives in sorted(rule.gives):
            for takes in sorted(rule.takes):
                source = Account(gives, currency, "CR1" if gives is A.DERIV_AGENT else OWNERS.get(gives, ""))
                target = Account(takes, other, "CR2" if takes is A.DERIV_AGENT else OWNERS.get(takes, ""))
                if source != target and kept_in(source) and kept_in(target):
                    yield source, target


def kept_in(account):
    only = {A.DERIV_AGENT: USD, A.MPESA_WORKING: KES, A.MPESA_UTILITY: KES, A.MPESA_CHARGES_PAID: KES}
    return only.get(account.kind, account.currency) is account.currency


WAYS = [(kind, *way) for kind in RULES for way in ways(kind)]


def a_movement(kind, source, target, *, amount=1000_00, got=7_70, **over):
    shown = FORMS.get(source.kind) or (None if RULES[kind].in_transit else FORMS.get(target.kind)) or "FT26/1"
    given = {
        "id": new_id(), "kind": kind, "amount": Money(amount, source.currency), "source": source, "target": target,
        "voucher": Voucher(shown, DAY), "why": "the advice", "at": AT, "by": "staff:1",
        "got": Money(got, target.currency) if kind is Kind.FX_CLOSE_OUT else None,
    }  # fmt: skip
    return Movement(**given | over)


def a_settlement(**over):
    return a_movement(Kind.SETTLEMENT, Account(A.MPESA_WORKING, KES, "174379"), house(A.BANK, KES), **over)


def an_exchange(given, got, **over):
    source, target = house(A.BANK, given.currency), house(A.BANK, got.currency)
    return a_movement(Kind.FX_CLOSE_OUT, source, target, amount=given.amount, got=got.amount, **over)


@given(st.sampled_from(WAYS), cents, cents, *[st.integers(0, 10**12)] * 2, st.integers(-(10**12), 10**12))
def test_whatever_a_kind_posts_balances_and_leaves_nothing_in_transit(way, amount, got, charge, lost, result):
    movement = checked(a_movement(*way, amount=amount, got=got), today=DAY)
    kept = 0 if RULES[movement.kind].charges is None else charge % amount
    gone = 0 if movement.got or not movement.in_transit else lost % (amount - kept)
    movement = replace(movement, charge=kept, lost=gone, arrival=Voucher("UKM0000009", DAY))

    legs = [Leg.SENT, Leg.ARRIVED] if movement.in_transit else [Leg.WHOLE]
    entries = [e for leg in legs for e in movement.entries(leg, PLAIN, Money(result, KES) if movement.got else None)]

    changed = changes(entries)
    for currency in Currency:
        assert sum(change for account, change in changed.items() if account.currency is currency) == 0
    assert changed.pop(house(A.CASH_IN_TRANSIT, movement.amount.currency), 0) == 0
    assert changed[movement.source] == amount
    assert changed[movement.target] == -(got if movement.got else amount - kept - gone)
    if gone:
        assert changed[house(A.LOSSES, movement.amount.currency)] == -gone


@given(st.sampled_from([way for way in WAYS if RULES[way[0]].in_transit]), cents)
def test_what_is_lost_as_a_whole_leaves_cash_in_transit_for_the_losses_and_touches_nothing_outside(way, amount):
    sent = replace(checked(a_movement(*way, amount=amount), today=DAY), status=Status.IN_TRANSIT)
    nothing = Money(0, (sent.got or sent.amount).currency)
    if sent.is_within:
        with pytest.raises(DoesNotAddUp, match="within one shortcode"):
            claimed(sent, sent.voucher, nothing, nothing, sent.amount, by="staff:1", today=DAY)
        return

    lost = claimed(sent, Voucher("BOARD/7", DAY), nothing, nothing, sent.amount, by="staff:1", today=DAY)

    losses, transit = house(A.LOSSES, sent.amount.currency), house(A.CASH_IN_TRANSIT, sent.amount.currency)
    assert [(e.debit, e.credit, e.amount) for e in lost.entries(Leg.ARRIVED, PLAIN)] == [(losses, transit, sent.amount)]
    assert lost.provider_key(Leg.ARRIVED) is None


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0]} {way[1].kind} {way[2].kind} {way[2].currency}")
def test_every_way_of_every_kind_is_allowed(way):
    assert checked(a_movement(*way), today=DAY).provider_key(Leg.SENT if RULES[way[0]].in_transit else Leg.WHOLE) or (
        way[0] in {Kind.OPENING_BALANCE, Kind.RECEIVABLE_WRITTEN_OFF}
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"source": house(A.BANK, KES)},
            "settlement goes from mpesa_charges_paid, mpesa_utility, mpesa_working to bank",
        ),
        ({"target": house(A.LOSSES, KES)}, "to bank"),
        ({"amount": kes(0)}, "above zero"),
        ({"amount": usd(10)}, "is in KES, not in USD"),
        ({"target": house(A.BANK, USD)}, "between two currencies"),
        ({"got": usd(10)}, "for an fx_close_out and nothing else"),
    ],
)
def test_what_is_no_movement_of_its_kind_is_refused_and_says_why(change, says):
    with pytest.raises(MovementRefused, match=says):
        checked(replace(a_settlement(), **change), today=DAY)


def test_an_account_of_a_provider_opens_in_its_own_currency_alone():
    source, target = house(A.OPENING_BALANCES, USD), Account(A.MPESA_WORKING, USD, "174379")

    with pytest.raises(MovementRefused, match="mpesa_working is in KES alone"):
        checked(a_movement(Kind.OPENING_BALANCE, source, target), today=DAY)


@pytest.mark.parametrize("got", [None, kes(5)])
def test_an_exchange_without_its_other_currency_is_refused(got):
    with pytest.raises(MovementRefused):
        checked(replace(an_exchange(kes(1000), usd(7)), got=got), today=DAY)


@pytest.mark.parametrize(
    ("voucher", "says"),
    [
        (Voucher("", DAY), "M-Pesa's receipt"),
        (Voucher("UKM 1", DAY), "M-Pesa's receipt"),
        (Voucher("UKM0000001:x", DAY), "M-Pesa's receipt"),
        (Voucher("UKM0000001", DAY + timedelta(days=1)), "has not come yet"),
        (Voucher("UKM0000001", DAY - timedelta(days=367)), "is before 2025-11-23"),
        (Voucher("UKM0000001", date.min), "is before 2025-11-23"),
    ],
)
def test_what_shows_it_has_the_form_of_its_place_and_a_day_that_has_come(voucher, says):
    with pytest.raises(VoucherRefused, match=says):
        checked(replace(a_settlement(), voucher=voucher), today=DAY)


def test_an_opening_balance_may_be_of_any_day_that_a_calendar_has_and_all_else_of_a_year():
    opened = a_movement(Kind.OPENING_BALANCE, house(A.OPENING_BALANCES, KES), house(A.BANK, KES))

    assert checked(replace(a_settlement(), voucher=Voucher("UKM0000001", DAY - timedelta(days=366))), today=DAY)
    assert checked(replace(opened, voucher=Voucher("AUDIT/2010", date(2010, 1, 1))), today=DAY)
    with pytest.raises(VoucherRefused, match="is before 2000-01-01"):
        checked(replace(opened, voucher=Voucher("AUDIT/1", date.min)), today=DAY)


def test_a_movement_needs_a_reason():
    with pytest.raises(ReasonMissing):
        checked(a_settlement(why=" "), today=DAY)


def test_the_legs_of_a_transfer_within_one_shortcode_have_one_receipt_and_two_keys():
    working, utility = Account(A.MPESA_WORKING, KES, "174379"), Account(A.MPESA_UTILITY, KES, "174379")
    moved = a_movement(Kind.MPESA_TRANSFER, working, utility, arrival=Voucher("UKM0000001", DAY))

    assert moved.provider_key(Leg.SENT) == "mpesa:174379:UKM0000001"
    assert moved.provider_key(Leg.ARRIVED) == "mpesa:174379:UKM0000001:arrived"
    elsewhere = replace(moved, target=Account(A.MPESA_UTILITY, KES, "600992"))
    assert elsewhere.provider_key(Leg.ARRIVED) == "mpesa:600992:UKM0000001"


@pytest.mark.parametrize(
    ("arrived", "charge", "error"),
    [
        (kes(990), kes(0), DoesNotAddUp),
        (kes(990), kes(20), DoesNotAddUp),
        (kes(1010), kes(-10), DoesNotAddUp),
        (kes(0), kes(1000), DoesNotAddUp),
        (usd(10), usd(0), DoesNotAddUp),
    ],
)
def test_what_arrives_and_what_was_kept_are_what_was_sent(arrived, charge, error):
    sent = a_settlement(status=Status.IN_TRANSIT)

    with pytest.raises(error):
        claimed(sent, Voucher("FT26/2", DAY), arrived, charge, by="staff:1", today=DAY)
    assert claimed(sent, Voucher("FT26/2", DAY), kes(990), kes(10), by="staff:1", today=DAY).charge == 10_00


@pytest.mark.parametrize(
    ("arrived", "charge", "lost"),
    [
        (kes(990), kes(0), kes(20)),
        (kes(1010), kes(0), kes(-10)),
        (kes(0), kes(10), kes(990)),
        (kes(0), kes(0), kes(990)),
        (kes(10), kes(0), kes(1000)),
        (kes(990), kes(0), usd(10)),
    ],
)
def test_what_is_lost_is_the_rest_and_nothing_else(arrived, charge, lost):
    sent = a_settlement(status=Status.IN_TRANSIT)

    with pytest.raises(DoesNotAddUp):
        claimed(sent, Voucher("FT26/2", DAY), arrived, charge, lost, by="staff:1", today=DAY)
    seen = claimed(sent, Voucher("FT26/2", DAY), kes(900), kes(10), kes(90), by="staff:1", today=DAY)
    assert (seen.charge, seen.lost, seen.is_lost) == (10_00, 90_00, False)
    assert "9000" in seen.as_seen  # who approves has seen it


def test_an_exchange_is_lost_as_a_whole_or_not_at_all():
    sent = an_exchange(kes(1000), usd(7), status=Status.IN_TRANSIT)

    with pytest.raises(DoesNotAddUp, match="as a whole"):
        claimed(sent, Voucher("FT26/2", DAY), usd(7), usd(0), kes(10), by="staff:1", today=DAY)
    assert claimed(sent, Voucher("BOARD/7", DAY), usd(0), usd(0), kes(1000), by="staff:1", today=DAY).is_lost


def test_within_one_shortcode_nothing_but_the_receipt_that_was_sent_arrives():
    """A customer's receipt, whose plain key is another one than an arrival's, would be booked twice."""
    working, utility = Account(A.MPESA_WORKING, KES, "174379"), Account(A.MPESA_UTILITY, KES, "174379")
    sent = a_movement(
        Kind.MPESA_TRANSFER, working, utility, status=Status.IN_TRANSIT, voucher=Voucher("UKM0000001", DAY)
    )

    def seen(movement: Movement, receipt: str) -> Movement:
        return claimed(movement, Voucher(receipt, DAY), sent.amount, kes(0), by="staff:1", today=DAY)

    with pytest.raises(VoucherRefused, match="UKM0000001"):
        seen(sent, "UKM0000002")
    assert seen(sent, "UKM0000001").status is Status.ARRIVING
    elsewhere = replace(sent, target=Account(A.MPESA_UTILITY, KES, "600992"))
    assert seen(elsewhere, "UKM0000002").status is Status.ARRIVING


def test_nothing_arrives_before_it_was_sent_nor_without_being_seen_nor_twice():
    sent = a_settlement(status=Status.IN_TRANSIT)

    with pytest.raises(VoucherRefused, match="before it was sent"):
        claimed(sent, Voucher("FT26/2", DAY - timedelta(days=1)), kes(1000), kes(0), by="staff:1", today=DAY)
    with pytest.raises(VoucherRefused):
        claimed(sent, Voucher("", DAY), kes(1000), kes(0), by="staff:1", today=DAY)
    with pytest.raises(ReasonMissing):
        claimed(sent, Voucher("FT26/2", DAY), kes(1000), kes(0), by="", today=DAY)
    seen = claimed(sent, Voucher("FT26/2", DAY), kes(1000), kes(0), by="staff:1", today=DAY)
    with pytest.raises(MovementNotOpen):
        claimed(seen, Voucher("FT26/2", DAY), kes(1000), kes(0), by="staff:1", today=DAY)


def test_of_an_exchange_nothing_is_kept_on_the_way():
    sent = an_exchange(kes(1000), usd(7), status=Status.IN_TRANSIT)

    with pytest.raises(DoesNotAddUp, match="by itself"):
        claimed(sent, Voucher("FT26/2", DAY), usd(6), usd(1), by="staff:1", today=DAY)


@pytest.mark.parametrize("by", ["", "staff:1"])
def test_who_proposes_or_is_nobody_approves_nothing(by):
    with pytest.raises(SamePerson):
        must_be_another(by, "staff:1")


@pytest.mark.parametrize("status", Status)
def test_a_movement_goes_only_where_it_may(status):
    for other in Status:
        if other in NEXT[status]:
            assert a_settlement(status=status).moved_to(other).status is other
        else:
            with pytest.raises(MovementNotOpen):
                a_settlement(status=status).moved_to(other)


# --- the result of an exchange ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turnover:
    bought: int = 0
    paid: int = 0
    sold: int = 0
    received: int = 0
    taken: int = 0
    booked: int = 0

    def after(self, given, got, result):
        """A close-out: what it leaves open is the first of the next period."""
        buys = got.currency is USD
        dollars = self.bought - self.sold + (got.amount if buys else -given.amount)
        shillings = self.received - self.paid - self.taken - result.amount + (-given.amount if buys else got.amount)
        booked = self.booked + result.amount
        if dollars > 0:
            return Turnover(bought=dollars, paid=-shillings, booked=booked)
        if dollars < 0:
            return Turnover(sold=-dollars, received=shillings, booked=booked)
        return Turnover(taken=-shillings, booked=booked)


def test_the_worked_example():
    bought = an_exchange(kes(77_400), usd(600), arrival=Voucher("FT26/2", DAY))

    result = result_of(Turnover(sold=1000_00, received=131_000_00), bought.amount, bought.got)
    [taken, given, won] = bought.entries(Leg.ARRIVED, Booking("reference", "key"), result)

    assert result == kes(1200)
    assert (taken.debit.kind, taken.credit.kind, taken.amount) == (A.BANK, A.FX_POSITION, usd(600))
    assert taken.provider_key == "key"
    assert (given.debit.kind, given.credit.kind, given.amount) == (A.FX_POSITION, A.CASH_IN_TRANSIT, kes(77_400))
    assert (won.debit.kind, won.credit.kind, won.amount) == (A.FX_POSITION, A.FX_GAIN_LOSS, kes(1200))


def test_dollars_bought_dearer_than_they_were_sold_are_a_loss():
    bought = an_exchange(kes(13_300), usd(100), arrival=Voucher("FT26/2", DAY))

    result = result_of(Turnover(sold=1000_00, received=131_000_00), bought.amount, bought.got)

    assert result == kes(-200)
    assert bought.entries(Leg.ARRIVED, PLAIN, result)[2].debit.kind is A.FX_GAIN_LOSS


def test_dollars_sold_at_the_bank_gain_what_they_fetch_over_their_cost():
    assert result_of(Turnover(bought=1000_00, paid=129_000_00), usd(500), kes(65_500)) == kes(1000)


def test_what_customers_realised_against_each_other_goes_with_it():
    turnover = Turnover(sold=1000_00, received=131_000_00, bought=400_00, paid=51_600_00)  # 400 × 2 realised

    assert result_of(turnover, kes(13_000), usd(100)) == kes(800 + 100)


def test_a_position_that_was_flat_begins_anew():
    flat = Turnover(sold=1000_00, received=131_000_00).after(kes(129_000), usd(1000), kes(2000))
    assert flat == Turnover(booked=2000_00)

    sold_anew = replace(flat, sold=1000_00, received=150_000_00)

    assert result_of(sold_anew, kes(1_500), usd(10)) == kes(0)


rates = st.decimals("50", "300", places=4)
deals = st.lists(st.tuples(st.booleans(), st.integers(1, 10**10), rates), min_size=1, max_size=6)


@given(st.integers(0, 10**11), rates, st.integers(0, 10**11), rates, deals)
def test_after_each_exchange_the_position_holds_the_open_dollars_at_their_average_cost(
    sold, sells, bought, buys, deals
):
    turnover = Turnover(bought, int(bought * buys), sold, int(sold * sells))

    for we_buy, dollars, rate in deals:
        money = Money(dollars, USD), Money(int(dollars * rate), KES)
        got, given = money if we_buy else money[::-1]
        turnover = turnover.after(given, got, result_of(turnover, given, got))

        position = FxPosition.of(turnover, Decimal(130))
        assert position.unbooked == kes(0)
        in_ledger = turnover.received - turnover.paid - turnover.taken  # credit less debit of the position in KES
        assert in_ledger == (position.cost.amount if position.open.amount < 0 else -position.cost.amount)
