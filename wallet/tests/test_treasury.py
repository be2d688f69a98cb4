"""Treasury movements over the database: two people, one commit, one key each; and what the database refuses."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog, DomainEvent
from shared_kernel.tests.users import TWO_USERS
from wallet.domain.ledger import AccountKind as A, ProviderKeyUsed
from wallet.domain.treasury import (
    RULES,
    AlreadyOpened,
    DoesNotAddUp,
    Kind,
    MovementNotFound,
    MovementNotOpen,
    MovementRefused,
    OwesLess,
    ReasonMissing,
    RebookedTooOften,
    SamePerson,
    Status as S,
    VoucherRefused,
)
from wallet.facade import (
    cash_in_transit,
    customer_receivable,
    deriv_agent,
    fx_turnover,
    house,
    ledger,
    mpesa_utility,
    mpesa_working,
    open_movements,
    orphans_settled,
    treasury_movements,
    trial_balance,
    verify_ledger,
)
from wallet.infrastructure.guards import DECIDED
from wallet.infrastructure.treasury import DjangoTreasuryBook
from wallet.models import LedgerEntry, TreasuryMovement
from wallet.tests.factories import AT, a_customer, a_deposit, kes, usd
from wallet.tests.threads import at_once
from wallet.tests.treasuring import (
    AGENT,
    B2C,
    JOHN,
    MARY,
    PAYBILL,
    a_command,
    a_receipt,
    approved,
    arrived,
    done,
    owing,
    proposed,
    seen,
    today,
    yesterday,
)

pytestmark = pytest.mark.django_db(transaction=True)
KES, USD = Currency.KES, Currency.USD


def status(id):
    return TreasuryMovement.objects.get(pk=id).status


def lines(id):
    """Purpose, debit, credit, amount, key of each entry of a movement, oldest first."""
    rows = LedgerEntry.objects.filter(reference__startswith=f"treasury:{id}:").order_by("seq")
    return [(e.purpose, e.debit_account.kind, e.credit_account.kind, e.amount, e.provider_key) for e in rows]


def audited(id):
    rows = AuditLog.objects.filter(target_type="treasury_movement", target_id=str(id)).order_by("seq")
    return [(row.before, row.after, row.details["by"]) for row in rows]


def balances_are_sound():
    sums = dict.fromkeys(Currency, 0)
    for row in trial_balance():
        sums[Currency(row.currency)] += row.debit - row.credit
    return set(sums.values()) == {0} and verify_ledger().findings == []


# --- two people -------------------------------------------------------------------------------------------------------


def test_a_settlement_goes_through_cash_in_transit_and_each_side_has_its_own_two_people():
    id = proposed(Kind.SETTLEMENT, reference=" ukm0000001 ")
    assert (lines(id), status(id)) == ([], S.PROPOSED)
    with pytest.raises(SamePerson):
        treasury_movements.approve(id, by=MARY)
    assert (lines(id), status(id)) == ([], S.PROPOSED)

    assert treasury_movements.approve(id, by=JOHN) is S.IN_TRANSIT
    sent = ("settlement_sent", A.CASH_IN_TRANSIT, A.MPESA_WORKING, 5000_00, f"mpesa:{PAYBILL}:UKM0000001")
    assert lines(id) == [sent]
    seen(id, charge=30, by=JOHN, reference="FT26/9")
    assert lines(id) == [sent]
    with pytest.raises(SamePerson):
        treasury_movements.approve(id, by=JOHN)
    assert treasury_movements.approve(id, by=MARY) is S.ARRIVED

    assert lines(id)[1:] == [
        ("settlement_arrived", A.BANK, A.CASH_IN_TRANSIT, 4970_00, "bank:KES:FT26/9"),
        ("settlement_arrived", A.MPESA_FEES, A.CASH_IN_TRANSIT, 30_00, None),
    ]
    assert ledger.balance(house(A.CASH_IN_TRANSIT, KES)) == kes(0)
    assert audited(id) == [
        ("", "proposed", MARY),
        ("proposed", "in_transit", JOHN),
        ("in_transit", "arriving", JOHN),
        ("arriving", "arrived", MARY),
    ]


@pytest.mark.parametrize("kind", RULES)
def test_every_kind_comes_to_its_end_and_the_books_are_sound(kind):
    id = done(kind, charge=7 if RULES[kind].charges else 0)

    assert status(id) == (S.ARRIVED if RULES[kind].in_transit else S.POSTED)
    assert len(lines(id)) >= 1
    assert all(row.ledger == row.movements == 0 for row in cash_in_transit())
    assert balances_are_sound()
    with unit_of_work():
        kept = DjangoTreasuryBook().get(id)
    assert (kept.kind, kept.id) == (kind, id)


ON_THE_WAY = [kind for kind in RULES if RULES[kind].in_transit]
ELSEWHERE = {Kind.MPESA_TRANSFER: {"target": f"mpesa_utility:{B2C}"}}  # within one shortcode nothing is lost


@pytest.mark.parametrize("kind", [kind for kind in ON_THE_WAY if kind is not Kind.FX_CLOSE_OUT])
def test_of_every_kind_that_travels_a_part_may_be_kept_and_a_part_be_lost_by_two_people(kind):
    id = approved(kind, **ELSEWHERE.get(kind, {}))
    seen(id, charge=7, lost=93)
    with pytest.raises(SamePerson):
        treasury_movements.approve(id, by=MARY)
    assert len(lines(id)) == 1

    treasury_movements.approve(id, by=JOHN)

    [sent, came, kept, lost] = lines(id)
    assert (came[3], kept[1:4]) == (sent[3] - 100_00, (RULES[kind].charges, A.CASH_IN_TRANSIT, 7_00))
    assert lost[1:] == (A.LOSSES, A.CASH_IN_TRANSIT, 93_00, None)
    assert all(row.ledger == row.movements == 0 for row in cash_in_transit())
    assert balances_are_sound()
    assert AuditLog.objects.get(after="arrived").details["lost"].startswith("93.00")
    with unit_of_work():
        assert DjangoTreasuryBook().get(id).lost == 93_00


@pytest.mark.parametrize("kind", ON_THE_WAY)
def test_what_never_arrives_is_written_off_by_two_people_and_taken_back_if_it_turns_up(kind):
    id = approved(kind, **ELSEWHERE.get(kind, {}))
    row = TreasuryMovement.objects.get(pk=id)
    nothing, all_of_it = Money(0, Currency(row.got_currency or row.currency)), Money(row.amount, Currency(row.currency))

    seen(id, reference="BOARD/7", arrived=nothing, lost=row.amount // 100)
    with pytest.raises(SamePerson):
        treasury_movements.approve(id, by=MARY)
    assert len(treasury_movements.preview(id)[1]) == 1
    assert treasury_movements.approve(id, by=JOHN) is S.ARRIVED

    assert lines(id)[1:] == [(f"{kind}_arrived", A.LOSSES, A.CASH_IN_TRANSIT, row.amount, None)]
    assert all(row.ledger == row.movements == 0 for row in cash_in_transit())
    assert balances_are_sound()
    reversed_by_two(id)
    again = arrived(approved(kind, reference=row.reference, **ELSEWHERE.get(kind, {})))
    assert status(again) == S.ARRIVED
    assert ledger.balance(house(A.LOSSES, all_of_it.currency)).amount == 0
    assert balances_are_sound()


def test_a_loss_that_is_rejected_is_on_its_way_again():
    id = approved()
    seen(id, lost=10)

    treasury_movements.reject(id, by=JOHN, why="the bank looks for it")

    assert (status(id), TreasuryMovement.objects.get(pk=id).lost) == (S.IN_TRANSIT, 0)
    assert status(arrived(id)) == S.ARRIVED


def test_all_kinds_and_their_reversals_together_leave_every_balance_as_it_was():
    ids = [done(kind, charge=7 if RULES[kind].charges else 0) for kind in RULES]
    before = {(row.kind, row.currency): row.debit - row.credit for row in trial_balance()}
    assert balances_are_sound()

    for id in reversed(ids):
        reversed_by_two(id)

    outflows = {("customer_receivable", "KES"): 2 * 1271_00, ("mpesa_utility", "KES"): -2 * 1271_00}
    left = {(row.kind, row.currency): row.debit - row.credit for row in trial_balance() if row.debit - row.credit}
    assert any(before.values())
    assert left == outflows
    assert balances_are_sound()


def test_what_waits_and_what_is_on_its_way_is_listed_with_its_age():
    waiting, on_its_way, arriving = proposed(), approved(Kind.TOP_UP_AGENT), approved(Kind.SETTLEMENT)
    seen(arriving)
    done(Kind.SETTLEMENT)
    later = now() + timedelta(days=3, minutes=1)

    told = {row.id: row for row in open_movements(later)}

    assert {id: (row.status, row.days) for id, row in told.items()} == {
        waiting: ("proposed", 3),
        on_its_way: ("in_transit", 3),
        arriving: ("arriving", 3),
    }
    assert (told[on_its_way].source, told[on_its_way].target) == ("bank", "deriv_agent:CR900001")
    assert [(row.currency, row.ledger, row.movements) for row in cash_in_transit()] == [
        ("KES", 5000_00, 5000_00),
        ("USD", 500_00, 500_00),
    ]


def test_what_was_rejected_posts_nothing_and_can_not_be_approved():
    id = proposed()

    treasury_movements.reject(id, by=JOHN, why="it was sent by the other bank")

    with pytest.raises(MovementNotOpen):
        treasury_movements.approve(id, by=JOHN)
    row = TreasuryMovement.objects.get(pk=id)
    assert (row.status, row.closed_by, row.closed_why) == ("rejected", JOHN, "it was sent by the other bank")
    assert lines(id) == []


def test_an_arrival_that_is_rejected_is_on_its_way_again_and_the_audit_log_keeps_what_was_seen():
    id = approved()
    seen(id, charge=10, reference="FT26/77")

    treasury_movements.reject(id, by=JOHN, why="that was another one")

    row = TreasuryMovement.objects.get(pk=id)
    assert (row.status, row.arrival_reference, row.charge, row.arrival_by) == ("in_transit", "", 0, "")
    assert AuditLog.objects.get(after="arriving").details["arrival"] == "FT26/77"
    assert audited(id)[-1] == ("arriving", "in_transit", JOHN)
    arrived(id)
    assert status(id) == S.ARRIVED


def test_a_draft_is_nobodys_until_somebody_makes_it_theirs_who_then_can_not_approve_it():
    id = treasury_movements.propose(a_command(), by="", drafted_by="ops@host").id
    with pytest.raises(MovementNotOpen):
        treasury_movements.approve(id, by=JOHN)

    treasury_movements.adopt(id, by=JOHN)

    with pytest.raises(SamePerson):
        treasury_movements.approve(id, by=JOHN)
    with pytest.raises(MovementNotOpen):
        treasury_movements.adopt(id, by=MARY)
    assert treasury_movements.approve(id, by=MARY) is S.IN_TRANSIT
    assert audited(id)[0] == ("", "draft", "ops@host")


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (lambda id: treasury_movements.approve(new_id(), by=JOHN), MovementNotFound),
        (lambda id: treasury_movements.approve(id, by=""), SamePerson),
        (lambda id: treasury_movements.reject(id, by=JOHN, why=" "), ReasonMissing),
        (lambda id: treasury_movements.reject(id, by="", why="so"), ReasonMissing),
        (lambda id: treasury_movements.adopt(id, by=""), ReasonMissing),
        (lambda id: seen(id), MovementNotOpen),
        (lambda id: treasury_movements.propose_reversal(id, by=JOHN, why="wrong"), MovementNotOpen),
        (lambda id: treasury_movements.propose(a_command(), by=""), ReasonMissing),
        (lambda id: treasury_movements.propose(a_command(source="mpesa_working:174378"), by=MARY), MovementRefused),
        (lambda id: treasury_movements.propose(a_command(source="mpesa_working"), by=MARY), MovementRefused),
        (lambda id: treasury_movements.propose(a_command(source=""), by=MARY), MovementRefused),
        (lambda id: treasury_movements.propose(a_command(target="losses"), by=MARY), MovementRefused),
        (lambda id: treasury_movements.propose(a_command(target="bank:equity"), by=MARY), MovementRefused),
        (lambda id: treasury_movements.propose(a_command(reference="?"), by=MARY), VoucherRefused),
        (
            lambda id: treasury_movements.propose(
                a_command(Kind.RECEIVABLE_WRITTEN_OFF, source="customer_receivable:me"), by=MARY
            ),
            MovementRefused,
        ),
    ],
)
def test_what_is_refused_changes_nothing(attempt, error):
    id = proposed()
    before = list(TreasuryMovement.objects.values()), AuditLog.objects.count()

    with pytest.raises(error):
        attempt(id)

    assert (list(TreasuryMovement.objects.values()), AuditLog.objects.count()) == before
    assert LedgerEntry.objects.count() == 0


@pytest.mark.parametrize("reference", ["FTß11111", "FTı11111", "ﬁ/11111", "FT١١١١١", "ＦＴ11111"])
def test_a_reference_in_another_alphabet_is_refused_and_not_made_one_of_ours(reference):
    id = approved(Kind.SETTLEMENT)

    with pytest.raises(VoucherRefused, match="A-Z"):
        proposed(Kind.BANK_CHARGE, reference=reference)
    with pytest.raises(VoucherRefused, match="A-Z"):
        seen(id, reference=reference)

    assert status(id) == S.IN_TRANSIT


def test_a_dry_run_checks_everything_and_stores_nothing():
    treasury_movements.propose(a_command(), by=MARY, dry_run=True)

    assert not TreasuryMovement.objects.exists()
    assert not AuditLog.objects.exists()


# --- one movement, once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in RULES if k not in {Kind.OPENING_BALANCE, Kind.RECEIVABLE_WRITTEN_OFF}])
def test_what_was_booked_is_neither_proposed_nor_approved_a_second_time(kind):
    reference = a_command(kind).reference
    first, second = proposed(kind, reference=reference), proposed(kind, reference=reference)
    treasury_movements.approve(first, by=JOHN)

    with pytest.raises(ProviderKeyUsed, match="in the ledger already"):
        treasury_movements.approve(second, by=JOHN)
    with pytest.raises(ProviderKeyUsed):
        proposed(kind, reference=reference)

    assert (status(second), lines(second)) == (S.PROPOSED, [])


def test_one_arrival_is_not_the_arrival_of_two():
    one, other = approved(), approved()
    arrived(one, reference="FT26/5")

    with pytest.raises(ProviderKeyUsed):
        seen(other, reference="FT26/5")

    assert status(other) == S.IN_TRANSIT


def lies_in_suspense(receipt="UKM0000001", amount=5000, account="mpesa_working", owner=PAYBILL, out=False):
    post = ledger.post_suspense_out if out else ledger.post_suspense_in
    provider = "deriv" if account == "deriv_agent" else "mpesa"
    money = usd(amount) if account == "deriv_agent" else kes(amount)
    with unit_of_work():
        post(account, owner, money, provider_key=f"{provider}:{owner}:{receipt}", at=AT)


def told_of():
    return list(DomainEvent.objects.filter(type="SuspenseExplained").values_list("payload__provider_key", flat=True))


def test_what_recovery_took_into_suspense_first_arrives_from_there_and_is_not_booked_twice():
    lies_in_suspense("880001", 500, "deriv_agent", AGENT)
    id = approved(Kind.TOP_UP_AGENT)

    arrived(id, reference="880001", charge=0)

    assert lines(id)[-1:] == [("top_up_agent_sent", A.CASH_IN_TRANSIT, A.BANK, 500_00, lines(id)[0][4])]
    [taken] = LedgerEntry.objects.filter(purpose="top_up_agent_arrived")
    assert (taken.reference, taken.provider_key) == (f"orphan:deriv:{AGENT}:880001:1", None)
    assert ledger.balance(house(A.SUSPENSE, USD)) == usd(0)
    assert ledger.balance(house(A.CASH_IN_TRANSIT, USD)) == usd(0)
    assert ledger.balance(deriv_agent(AGENT)) == usd(500)
    assert told_of() == [f"deriv:{AGENT}:880001"]
    assert orphans_settled([f"deriv:{AGENT}:880001", "deriv:x:1"]) == {f"deriv:{AGENT}:880001"}
    other = approved(Kind.TOP_UP_AGENT)
    with pytest.raises(ProviderKeyUsed):
        seen(other, reference="880001")
    assert balances_are_sound()

    reversed_by_two(id)
    assert ledger.balance(house(A.SUSPENSE, USD)) == usd(500)
    assert orphans_settled([f"deriv:{AGENT}:880001"]) == set()
    arrived(other, reference="880001")
    assert ledger.balance(house(A.SUSPENSE, USD)) == usd(0)
    assert balances_are_sound()


@pytest.mark.parametrize(
    ("kind", "lies", "over"),
    [
        (Kind.SETTLEMENT, {"account": "mpesa_utility", "owner": B2C, "out": True}, {"source": f"mpesa_utility:{B2C}"}),
        (Kind.AGENT_WITHDRAWAL, {"account": "deriv_agent", "owner": AGENT, "out": True, "amount": 500}, {}),
        (Kind.RECEIVABLE_RECOVERED, {"amount": 1271}, {"target": f"mpesa_working:{PAYBILL}"}),
    ],
)
def test_what_left_or_was_paid_back_before_it_was_explained_is_taken_from_suspense_too(kind, lies, over):
    reference = "880001" if kind is Kind.AGENT_WITHDRAWAL else "UKM0000001"
    lies_in_suspense(reference, **lies)

    id = approved(kind, reference=reference, **over)

    assert status(id) in {S.IN_TRANSIT, S.POSTED}
    assert {c: ledger.balance(house(A.SUSPENSE, c)).amount for c in Currency} == {KES: 0, USD: 0}
    assert len(told_of()) == 1
    assert balances_are_sound()


@pytest.mark.parametrize("lies", [{"amount": 4999}, {"out": True}, {"account": "mpesa_utility"}])
def test_what_lies_in_suspense_and_is_something_else_is_refused(lies):
    lies_in_suspense(**lies)
    id = approved(Kind.TOP_UP_MPESA, target=f"mpesa_working:{PAYBILL}")

    with pytest.raises(ProviderKeyUsed, match="lies in suspense as"):
        seen(id, reference="UKM0000001")

    assert status(id) == S.IN_TRANSIT


def test_a_transfer_within_a_shortcode_whose_arrival_recovery_saw_first_is_booked_by_its_one_receipt():
    lies_in_suspense("UKM0000060", 500)
    place = {"source": f"mpesa_utility:{PAYBILL}", "target": f"mpesa_working:{PAYBILL}", "amount": kes(500)}
    key = f"mpesa:{PAYBILL}:UKM0000060"

    id = approved(Kind.MPESA_TRANSFER, reference="UKM0000060", **place)
    with pytest.raises(ProviderKeyUsed):
        proposed(Kind.MPESA_TRANSFER, reference="UKM0000060", **place)
    with pytest.raises(VoucherRefused, match="UKM0000060"):
        seen(id, reference="UKM0000061")
    arrived(id)

    assert [line[4] for line in lines(id)] == [f"{key}:arrived"]
    assert ledger.balance(mpesa_utility(PAYBILL)) == kes(-500)
    assert ledger.balance(mpesa_working(PAYBILL)) == kes(500)
    for kind in (A.SUSPENSE, A.CASH_IN_TRANSIT):
        assert ledger.balance(house(kind, KES)) == kes(0)
    assert told_of() == [key]
    with pytest.raises(ProviderKeyUsed):
        proposed(Kind.MPESA_TRANSFER, reference="UKM0000060", **place)
    assert balances_are_sound()


def test_what_was_settled_from_suspense_otherwise_is_not_taken_by_treasury():
    lies_in_suspense()
    key, customer = f"mpesa:{PAYBILL}:UKM0000001", a_customer()
    with unit_of_work():
        ledger.post_suspense_matched(a_deposit(), customer, kes(5000), orphan=key, at=AT)
    id = approved(Kind.TOP_UP_MPESA, target=f"mpesa_working:{PAYBILL}")

    with pytest.raises(ProviderKeyUsed):
        seen(id, reference="UKM0000001")
    assert orphans_settled([key]) == {key}


def test_an_account_is_opened_once_and_again_only_after_that_was_reversed():
    first, second = proposed(Kind.OPENING_BALANCE), proposed(Kind.OPENING_BALANCE)
    treasury_movements.approve(first, by=JOHN)
    with pytest.raises(AlreadyOpened):
        treasury_movements.approve(second, by=JOHN)
    done(Kind.OPENING_BALANCE, target="bank")

    reversed_by_two(first)
    treasury_movements.approve(second, by=JOHN)

    assert ledger.balance(mpesa_utility(B2C)) == kes(5000)


def test_no_more_is_recovered_or_written_off_than_the_customer_owes():
    who = f"customer_receivable:{(customer := owing(kes(1271)))}"
    first = proposed(Kind.RECEIVABLE_RECOVERED, source=who, amount=kes(1000))
    second = proposed(Kind.RECEIVABLE_WRITTEN_OFF, source=who, amount=kes(1000))
    treasury_movements.approve(first, by=JOHN)

    with pytest.raises(OwesLess, match="owes 271"):
        treasury_movements.approve(second, by=JOHN)
    with pytest.raises(OwesLess):
        proposed(Kind.RECEIVABLE_WRITTEN_OFF, source=f"customer_receivable:{a_customer()}")
    approved(Kind.RECEIVABLE_WRITTEN_OFF, source=who, amount=kes(271))

    assert ledger.balance(customer_receivable(customer, KES)) == kes(0)
    assert ledger.balance(house(A.LOSSES, KES)) == kes(271)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time anyway")
def test_two_people_who_approve_at_once_recover_no_more_than_is_owed():
    who = f"customer_receivable:{(customer := owing(kes(1271)))}"
    ids = [proposed(Kind.RECEIVABLE_RECOVERED, source=who, amount=kes(1000)) for _ in range(4)]

    def approve(id):
        try:
            return treasury_movements.approve(id, by=JOHN)
        except OwesLess:
            return None

    statuses = at_once(*(lambda id=id: approve(id) for id in ids))

    assert sorted(map(str, statuses)) == ["None", "None", "None", "posted"]
    assert ledger.balance(customer_receivable(customer, KES)) == kes(271)


# --- an exchange ------------------------------------------------------------------------------------------------------


def sold_to_customers(dollars, shillings):
    """The two entries that customers' deposits leave on the position."""
    lines = [
        (house(A.SUSPENSE, KES), house(A.FX_POSITION, KES), kes(shillings)),
        (house(A.FX_POSITION, USD), house(A.SUSPENSE, USD), usd(dollars)),
    ]
    with unit_of_work():
        ledger._post("test", lines, None, str(new_id()), at=AT)


def test_the_worked_example_is_what_the_ledger_holds():
    sold_to_customers(1000, 131_000)

    id = done(Kind.FX_CLOSE_OUT, amount=kes(77_400), got=usd(600))

    assert [line[:4] for line in lines(id)] == [
        ("fx_close_out_sent", A.CASH_IN_TRANSIT, A.BANK, 77_400_00),
        ("fx_close_out_arrived", A.BANK, A.FX_POSITION, 600_00),
        ("fx_close_out_arrived", A.FX_POSITION, A.CASH_IN_TRANSIT, 77_400_00),
        ("fx_close_out_arrived", A.FX_POSITION, A.FX_GAIN_LOSS, 1200_00),
    ]
    turnover = fx_turnover()
    assert (turnover.sold, turnover.received, turnover.booked) == (400_00, 52_400_00, 1200_00)  # what is left open
    assert (turnover.bought, turnover.paid, turnover.taken) == (0, 0, 0)
    assert ledger.balance(house(A.FX_POSITION, USD)) == usd(400)
    assert ledger.balance(house(A.FX_POSITION, KES)) == kes(-52_400)
    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(1200)
    assert balances_are_sound()

    reversed_by_two(id)
    turnover = fx_turnover()
    assert (turnover.sold, turnover.received) == (1000_00, 131_000_00)
    assert (turnover.bought, turnover.paid, turnover.taken, turnover.booked) == (0, 0, 0, 0)
    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(0)


def test_a_position_that_is_closed_as_a_whole_holds_nothing_in_either_currency():
    sold_to_customers(1000, 131_000)

    done(Kind.FX_CLOSE_OUT, amount=kes(77_400), got=usd(600))
    done(Kind.FX_CLOSE_OUT, amount=kes(52_800), got=usd(400))

    assert ledger.balance(house(A.FX_POSITION, USD)) == usd(0)
    assert ledger.balance(house(A.FX_POSITION, KES)) == kes(0)
    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(1200 - 400)


def test_the_cost_of_a_position_that_was_flat_is_forgotten():
    sold_to_customers(1000, 131_000)
    done(Kind.FX_CLOSE_OUT, amount=kes(129_000), got=usd(1000))
    sold_to_customers(1000, 150_000)

    done(Kind.FX_CLOSE_OUT, amount=kes(1_500), got=usd(10))

    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(2000)  # of the first alone
    assert ledger.balance(house(A.FX_POSITION, KES)) == kes(-148_500)


def test_an_earlier_close_out_that_is_taken_back_is_valued_as_an_exchange_of_now():
    sold_to_customers(1000, 131_000)
    first = done(Kind.FX_CLOSE_OUT, amount=kes(1_290), got=usd(10))
    done(Kind.FX_CLOSE_OUT, amount=kes(1_280), got=usd(10))
    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(20 + 30)

    reversed_by_two(first)

    turnover = fx_turnover()
    assert (turnover.sold, turnover.received) == (980_00 + 10_00, 128_380_00 + 1_290_00)
    assert (turnover.taken, turnover.booked) == (-20_00, 30_00)
    done(Kind.FX_CLOSE_OUT, amount=kes(128_700), got=usd(990))
    assert ledger.balance(house(A.FX_POSITION, KES)) == kes(0)
    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(131_000 - 1_280 - 128_700)


def test_what_customers_exchanged_while_a_close_out_was_posted_stays_exact():
    sold_to_customers(1000, 131_000)
    before = fx_turnover()
    id = approved(Kind.FX_CLOSE_OUT, amount=kes(129_000), got=usd(1000))
    seen(id)
    sold_to_customers(100, 14_000)  # its commit came after the close-out had looked, its seq lies before
    replace(treasury_movements, turnover=lambda: before).approve(id, by=JOHN)
    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(2000)

    done(Kind.FX_CLOSE_OUT, amount=kes(13_500), got=usd(100))

    assert ledger.balance(house(A.FX_POSITION, KES)) == kes(0)
    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(2000 + 500)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time anyway")
def test_two_close_outs_that_arrive_at_once_book_each_gain_once():
    sold_to_customers(1000, 131_000)
    ids = [approved(Kind.FX_CLOSE_OUT, amount=kes(12_900), got=usd(100)) for _ in range(4)]
    for id in ids:
        seen(id)

    statuses = at_once(*(lambda id=id: treasury_movements.approve(id, by=JOHN) for id in ids))

    assert statuses == [S.ARRIVED] * 4

    assert ledger.balance(house(A.FX_GAIN_LOSS, KES)) == kes(4 * 200)


# --- taken back -------------------------------------------------------------------------------------------------------


def reversed_by_two(id, why="booked on the wrong account"):
    reversal = treasury_movements.propose_reversal(id, by=MARY, why=why).id
    treasury_movements.approve(reversal, by=JOHN)
    return reversal


def test_a_reversal_is_a_proposal_of_its_own_whose_entries_mirror_and_name_those_they_take_back():
    id = done(Kind.SETTLEMENT, charge=30)
    reversal = treasury_movements.propose_reversal(id, by=MARY, why="of another shortcode").id
    with pytest.raises(SamePerson):
        treasury_movements.approve(reversal, by=MARY)
    assert (lines(reversal), status(id)) == ([], S.ARRIVED)

    assert treasury_movements.approve(reversal, by=JOHN) is S.POSTED

    wrong = list(LedgerEntry.objects.filter(reference__startswith=f"treasury:{id}:").order_by("seq"))
    back = list(LedgerEntry.objects.filter(reference__startswith=f"treasury:{reversal}:").order_by("seq"))
    assert [e.reverses for e in back] == [e.id for e in wrong]
    assert {e.provider_key for e in back} == {None}
    assert status(id) == S.REVERSED
    assert audited(id)[-1] == ("arrived", "reversed", JOHN)
    assert ledger.balance(mpesa_working(PAYBILL)) == kes(0)
    assert balances_are_sound()


def test_a_reversal_is_not_approved_unseen_after_its_movement_has_arrived():
    id = approved(Kind.SETTLEMENT)
    reversal = treasury_movements.propose_reversal(id, by=MARY, why="of another shortcode").id
    seen_then, entries = treasury_movements.preview(reversal)
    assert len(entries) == 1
    arrived(id)

    with pytest.raises(MovementNotOpen, match="look at it again"):
        treasury_movements.approve(reversal, by=JOHN, as_seen=seen_then)
    assert (lines(reversal), status(id)) == ([], S.ARRIVED)

    seen_now, entries = treasury_movements.preview(reversal)
    assert len(entries) == 2
    assert treasury_movements.approve(reversal, by=JOHN, as_seen=seen_now) is S.POSTED
    assert treasury_movements.preview(reversal)[1] == ()
    assert balances_are_sound()


def test_what_is_only_sent_is_taken_back_out_of_cash_in_transit():
    id = approved(Kind.SETTLEMENT)

    reversed_by_two(id)

    assert ledger.balance(house(A.CASH_IN_TRANSIT, KES)) == kes(0)
    with pytest.raises(MovementNotOpen):
        seen(id)


def test_a_movement_is_reversed_once_and_a_reversal_never():
    id = done(Kind.BANK_CHARGE)
    again = treasury_movements.propose_reversal(id, by=MARY, why="twice").id
    reversal = reversed_by_two(id)

    with pytest.raises(MovementNotOpen):
        treasury_movements.approve(again, by=JOHN)
    with pytest.raises(MovementNotOpen, match="propose anew"):
        treasury_movements.propose_reversal(reversal, by=MARY, why="it was right")

    assert lines(again) == []


def test_what_was_taken_back_is_booked_anew_under_its_receipt_but_not_without_end():
    receipt = a_receipt()
    for number in range(4):
        id = approved(Kind.SETTLEMENT, reference=receipt)
        assert lines(id)[0][4] == f"mpesa:{PAYBILL}:{receipt}{f':{number + 1}' if number else ''}"
        with pytest.raises(ProviderKeyUsed):
            proposed(Kind.SETTLEMENT, reference=receipt)
        reversed_by_two(id)

    with pytest.raises(RebookedTooOften):
        proposed(Kind.SETTLEMENT, reference=receipt)


def test_an_arrival_before_the_day_of_sending_or_of_another_sum_moves_nothing():
    id = approved()

    with pytest.raises(VoucherRefused):
        seen(id, day=yesterday())
    with pytest.raises(DoesNotAddUp):
        seen(id, arrived=kes(4000))

    assert status(id) == S.IN_TRANSIT


# --- what the database refuses by itself ------------------------------------------------------------------------------

ROW = {
    "kind": "settlement", "status": "proposed", "amount": 100, "currency": "KES", "source_kind": "mpesa_working",
    "source_owner": PAYBILL, "target_kind": "bank", "reference": "UKM0000001", "why": "so", "by": MARY, "at": AT,
}  # fmt: skip


SEEN = {"approved_by": JOHN, "arrival_by": MARY, "arrival_reference": "FT1", "arrival_day": AT}


@pytest.mark.parametrize(
    ("wrong", "by"),
    [
        ({"approved_by": MARY, "status": "posted"}, "treasury_four_eyes"),
        ({"status": "posted"}, "treasury_posted_is_approved"),
        ({"status": "in_transit"}, "treasury_posted_is_approved"),
        ({"status": "reversed"}, "treasury_posted_is_approved"),
        ({"by": ""}, "treasury_by"),
        ({"by": "", "status": "posted", "approved_by": JOHN}, "treasury_by"),
        ({"status": "arriving", "approved_by": JOHN}, "treasury_arrival_is_shown"),
        (SEEN | {"status": "arriving", "arrival_day": None}, "treasury_arrival_is_shown"),
        (SEEN | {"status": "arrived", "arrival_approved_by": MARY}, "treasury_arrival_four_eyes"),
        (SEEN | {"status": "arrived"}, "treasury_arrived_is_approved"),
        ({"amount": 0}, "treasury_amount_positive"),
        ({"charge": -1}, "treasury_amount_positive"),
        ({"charge": 100}, "treasury_charge_is_a_part"),
        ({"lost": -1}, "treasury_amount_positive"),
        ({"lost": 101}, "treasury_charge_is_a_part"),
        ({"lost": 99, "charge": 1}, "treasury_charge_is_a_part"),
        ({"why": ""}, "treasury_says_why_and_what_shows_it"),
        ({"reference": ""}, "treasury_says_why_and_what_shows_it"),
    ],
)
def test_the_database_refuses_one_person_no_reason_and_no_proof(wrong, by):
    TreasuryMovement.objects.create(id=new_id(), day=today(), **ROW)

    with pytest.raises(IntegrityError, match=by), transaction.atomic():
        TreasuryMovement.objects.create(id=new_id(), day=today(), **ROW | wrong)


@pytest.mark.parametrize(
    "changed",
    [
        {"amount": 1},
        {"target_kind": "losses"},
        {"kind": "bank_charge"},
        {"reference": "X"},
        {"why": "y"},
        {"id": new_id()},
    ],
)
def test_what_was_proposed_never_changes(changed):
    id = proposed()

    with pytest.raises(DatabaseError), transaction.atomic():
        TreasuryMovement.objects.filter(pk=id).update(**changed)


def test_no_movement_is_deleted():
    proposed()

    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM treasury_movements")


def test_every_column_is_fixed_or_tells_what_became_of_the_movement():
    """A column that is added must be put on one side or the other."""
    columns = {field.column for field in TreasuryMovement._meta.concrete_fields}

    assert columns - set(DECIDED) == {
        "id", "kind", "amount", "currency", "got", "got_currency", "source_kind", "source_owner", "target_kind",
        "target_owner", "reference", "day", "why", "reverses", "drafted_by", "at",
    }  # fmt: skip


@pytest.mark.skipif(not TWO_USERS, reason="one database user")
def test_these_tests_run_as_the_user_who_may_change_nothing_else():
    with connection.cursor() as cursor:
        cursor.execute("SHOW GRANTS")
        granted = " ".join(row[0] for row in cursor.fetchall() if "`treasury_movements`" in row[0])

    assert "DELETE" not in granted
    assert "UPDATE (`" in granted
