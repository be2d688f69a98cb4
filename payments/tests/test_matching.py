"""Two books in any state: each movement and each leg is told once, and only what differs is a difference."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, strategies as st

from payments.domain.orphan import Provider
from payments.domain.reconciliation import (
    BANDS,
    Book,
    FloatAccountKind,
    Leg,
    Movement,
    Result,
    band_of,
    counted,
    matched,
)
from payments.tests.factories import AGENT, usd

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
KIND = FloatAccountKind.DERIV_AGENT
fates = st.sampled_from(["both", "here", "there", "other amount", "taken back", "taken back here", "came and went"])


def a_movement(id, cents, reverses=""):
    return Movement(id, usd(cents), AT, "", reverses)


def a_leg(id, cents):
    return Leg(id, f"deriv:{AGENT}:{id}", KIND, AGENT, usd(cents), AT, AT)


def planted(number, fate):
    """What each book says of one movement, and what it should be told as."""
    id, back, cents = f"{number}", f"{number}:reverted", 100 + number
    shown, taken = a_movement(id, cents), a_movement(f"9{number:05}", -cents, id)
    return {
        "both": ([shown], [a_leg(id, cents)], [Result.MATCHED]),
        "here": ([], [a_leg(id, cents)], [Result.MISSING_THERE]),
        "there": ([shown], [], [Result.MISSING_HERE]),
        "other amount": ([shown], [a_leg(id, cents + 1)], [Result.DIFFERENT_AMOUNT]),
        "taken back": ([shown, taken], [a_leg(id, cents)], [Result.MATCHED, Result.REVERTED]),
        "taken back here": ([shown, taken], [a_leg(id, cents), a_leg(back, -cents)], [Result.MATCHED] * 2),
        "came and went": ([shown, taken], [], []),
    }[fate]


@given(st.lists(fates, max_size=12), st.randoms(use_true_random=False))
def test_each_planted_difference_is_told_once_by_its_name_and_nothing_else_is(fates, random):
    told = [planted(number, fate) for number, fate in enumerate(fates)]
    theirs = [movement for movements, _, _ in told for movement in movements]
    ours = [leg for _, legs, _ in told for leg in legs]
    random.shuffle(theirs)
    random.shuffle(ours)
    book = Book(Provider.DERIV, AGENT, KIND, AT - timedelta(days=1), theirs)

    items = matched(book, theirs, ours)

    expected = Counter(result for _, _, results in told for result in results)
    assert Counter(item.result for item in items) == expected
    assert sum(counted(items).values()) == len(items) == len({item.id for item in items})


def test_what_a_book_can_not_show_is_never_missing_there():
    leg, other = a_leg("1", 100), a_leg("2", -100)

    late = Book(Provider.DERIV, AGENT, KIND, AT + timedelta(hours=1), [])
    assert matched(late, [], [leg]) == []
    found_the_day_after = replace(leg, recorded_at=AT + timedelta(days=1))  # an orphan, by recovery
    assert matched(late, [], [found_the_day_after]) == []
    pull = Book(Provider.DERIV, AGENT, KIND, AT - timedelta(days=1), [], incoming_only=True)
    assert [item.id for item in matched(pull, [], [leg, other])] == ["1"]
    elsewhere = Book(Provider.DERIV, "CR2", KIND, AT - timedelta(days=1), [])
    assert matched(elsewhere, [], [leg]) == []


def test_two_nameless_legs_take_two_payments_of_one_reference_and_amount():
    kind = FloatAccountKind.MPESA_WORKING
    leg = Leg("request 1", "mpesa:174379:1", kind, "174379", usd(100), AT, AT, reference="PP1")
    legs = [leg, replace(leg, id="request 2", provider_key="mpesa:174379:2")]
    payments = [Movement(f"UKM000000{n}", usd(100), AT, "pp1") for n in (1, 2, 3)]
    book = Book(Provider.MPESA, "174379", kind, AT - timedelta(days=1), payments)

    items = matched(book, payments, legs)

    assert Counter(item.result for item in items) == {Result.MATCHED: 2, Result.MISSING_HERE: 1}


def test_each_age_falls_into_one_band():
    ages = [(0, 0), (1, 0), (2, 1), (7, 1), (8, 2), (30, 2), (31, 3), (4000, 3)]

    assert [band_of(AT - timedelta(days=days), at=AT) for days, _ in ages] == [BANDS[place][0] for _, place in ages]
