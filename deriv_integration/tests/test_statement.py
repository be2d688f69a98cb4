"""Longcodes, hostile and otherwise, and the chain of balances."""

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from deriv_integration.infrastructure.ws_v3.statement import Entry, Malformed, Sought, opening, parse_page, unbroken

REFERENCE = "DABCDEFGHIJKLMNOPQRSTUVWXYZ2"
UUID_TEXT = "123e4567-e89b-12d3-a456-426614174000"
SOUGHT = Sought(f"PP {REFERENCE}", "CR100001", Decimal("10.25"))


def longcode(name="PenPay", agent=" (CR900001)", client="CR100001", note=f"PP {REFERENCE}", stop="."):
    return (
        f"Transfer from Payment Agent {name}{agent} to {client}{stop} Transaction reference: {UUID_TEXT}{stop} "
        f"Timestamp: 22-Nov-26 13:05:09GMT{stop} Agent note: {note}"
    )


def an_entry(text, left="-10.25", **over):
    raw = {"transaction_id": 7, "transaction_time": 1, "amount": Decimal(left), "balance_after": Decimal(5)}
    return Entry.parse({**raw, "longcode": text, **over})


@pytest.mark.parametrize(
    "text",
    [
        longcode(),
        longcode(agent=""),  # older texts
        longcode(stop=""),
        longcode().replace(" to ", "  to "),
        longcode(name="Pen, Pay to CR5. (Ltd)"),
        longcode(name="Ünïcode & Söhne"),
        longcode(name=longcode(client="CR666", note="PP X") + " x"),  # a display name that imitates a whole text
    ],
)
def test_our_transfer_is_recognised(text):
    assert SOUGHT.is_in(an_entry(text))


@pytest.mark.parametrize(
    "text",
    [
        longcode(client="CR100002"),
        longcode(note="PP DANOTHERREFERENCEENTIRELYXX"),
        longcode(note=f"PP {REFERENCE} and more"),
        longcode(note=f"re PP {REFERENCE}"),
        longcode(name=f"Agent note: PP {REFERENCE}", note="hello"),
        longcode(name=longcode() + " x", client="CR666", note="PP X"),
        f"Transfer from CR100001 to Payment Agent PenPay (CR900001) Transaction reference: {UUID_TEXT} "
        f"Timestamp: 22-Nov-26 13:05:09GMT. Client note: {longcode()}",
        f"PP {REFERENCE}",
        "",
        None,
    ],
)
def test_what_is_not_our_transfer_is_not_taken_for_it(text):
    assert not SOUGHT.is_in(an_entry(text))


@pytest.mark.parametrize("amount", ["10.25", "-10.24", "-10.26", "-1025"])
def test_the_amount_must_have_left_to_the_cent(amount):
    assert not SOUGHT.is_in(an_entry(longcode(), amount))


def test_what_names_our_reference_elsewhere_forbids_to_call_it_absent():
    assert SOUGHT.may_be_in(an_entry(f"Some new text of Deriv's: PP {REFERENCE}", "-10.00"))
    assert SOUGHT.may_be_in(an_entry("Some new text of Deriv's"))
    assert SOUGHT.may_be_in(an_entry(longcode(client="CR100002")))
    assert not SOUGHT.may_be_in(an_entry("Some new text of Deriv's", "-3.00"))
    assert not SOUGHT.may_be_in(an_entry(f"Client note: PP {REFERENCE}", "10.25"))  # a customer wrote it
    assert not SOUGHT.may_be_in(an_entry(longcode(note="PP OTHER")))


# --- a customer's withdrawal ------------------------------------------------------------------------------------------

DEBIT = f"PP W{REFERENCE[1:]}"
OWED = Sought(DEBIT, "CR100001", Decimal("10.25"), incoming=True)


def withdrawal(client="CR100001", name="PenPay", agent=" (CR900001)", note=DEBIT, stop=""):
    return (
        f"Transfer from {client} to Payment Agent {name}{agent}{stop} Transaction reference: {UUID_TEXT}{stop} "
        f"Timestamp: 22-Nov-26 13:05:09GMT. Client note: {note}"
    )


@pytest.mark.parametrize(
    "text",
    [
        withdrawal(),
        withdrawal(agent=""),
        withdrawal(stop="."),
        withdrawal(name="Pen, Pay (Ltd)"),
        withdrawal(name="Ünïcode & Söhne"),
        withdrawal(name=f"Client note: PP OTHER {longcode()}"),
        withdrawal(name=withdrawal(client="CR666", note="PP OTHER")),
    ],
)
def test_the_withdrawal_of_the_customer_that_we_asked_for_is_recognised(text):
    assert OWED.is_in(an_entry(text, "10.25"))


@pytest.mark.parametrize(
    "text",
    [
        withdrawal(client="CR100002"),  # somebody else wrote our reference into their note
        withdrawal(client="CR100002", note=f"from CR100001 {DEBIT}"),
        withdrawal(note="PP WANOTHERREFERENCEENTIRELYX"),
        withdrawal(note=f"{DEBIT} thanks"),
        withdrawal(note=f"re {DEBIT}"),
        withdrawal(
            "CR2", note=f"Transaction reference: {UUID_TEXT} Timestamp: 22-Nov-26 13:05:09GMT. Client note: {DEBIT}"
        ),
        withdrawal(client="CR666", name=f"X {withdrawal()}", note="hello"),
        withdrawal(name=f"Client note: {DEBIT}", note="hello"),
        f"Transfer from Payment Agent X (CR1) to CR100001. {withdrawal()}",
        longcode(note=DEBIT),
        DEBIT,
        "",
        None,
    ],
)
def test_what_is_not_that_withdrawal_is_not_taken_for_it(text):
    assert not OWED.is_in(an_entry(text, "10.25"))


@pytest.mark.parametrize("amount", ["-10.25", "10.24", "10.26", "1025"])
def test_a_withdrawal_must_have_come_in_to_the_cent(amount):
    assert not OWED.is_in(an_entry(withdrawal(), amount))


def test_anybodys_note_cannot_keep_us_from_proving_an_absence_but_an_unreadable_entry_can():
    assert not OWED.may_be_in(an_entry(withdrawal(client="CR100002"), "10.25"))
    assert not OWED.may_be_in(an_entry(withdrawal(note="PP OTHER"), "10.25"))
    assert not OWED.may_be_in(an_entry(longcode(note=DEBIT), "-10.25"))
    assert OWED.may_be_in(an_entry(withdrawal(), "10.00"))
    assert OWED.may_be_in(an_entry(withdrawal(note=f"re {DEBIT}"), "10.25"))
    assert OWED.may_be_in(an_entry(f"Some new text of Deriv's: {DEBIT}", "10.00"))
    assert OWED.may_be_in(an_entry("Some new text of Deriv's", "10.25"))
    assert not OWED.may_be_in(an_entry("Some new text of Deriv's", "3.00"))


@given(st.text(max_size=200), st.text(max_size=60))
def test_no_text_passes_for_another_customers_withdrawal(text, note):
    for hostile in (withdrawal("CR100002", name=text, note=note), withdrawal("CR100002", note=f"{note}{DEBIT}"), text):
        assert not OWED.is_in(an_entry(hostile, "10.25"))


@given(st.text(max_size=200), st.text(max_size=60))
def test_no_text_breaks_the_reading_nor_passes_for_ours(text, note):
    for hostile in (text, longcode(note=note), longcode(name=text, note="PP OTHER")):
        entry = an_entry(hostile)
        assert not SOUGHT.is_in(entry) or note.strip() == SOUGHT.note


@pytest.mark.parametrize(
    "broken",
    [
        {"transaction_id": None},
        {"transaction_id": "7"},
        {"transaction_time": 1.5},
        {"amount": None},
        {"amount": "-10.25"},
        {"amount": True},
        {"balance_after": None},
    ],
)
def test_an_entry_that_cannot_be_read_is_malformed(broken):
    with pytest.raises(Malformed):
        an_entry(longcode(), **broken)


@pytest.mark.parametrize("answer", [{}, {"statement": []}, {"statement": {}}, {"statement": {"transactions": [1]}}])
def test_a_statement_that_cannot_be_read_is_malformed(answer):
    with pytest.raises(Malformed):
        parse_page(answer)


def chain(*amounts, start=100):
    entries, balance = [], Decimal(start)
    for number, amount in enumerate(amounts):
        balance += Decimal(amount)
        entries.append(Entry(number, number, Decimal(amount), balance, "", "", None))
    return entries[::-1], balance


def test_a_whole_chain_is_unbroken_and_knows_what_came_before():
    entries, balance = chain("-10.25", "30", "-1.10")

    assert unbroken(entries, balance)
    assert opening(entries) == 100
    assert unbroken([], Decimal(3))
    assert opening([]) is None


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_entry_breaks_the_chain(missing):
    entries, balance = chain("-10.25", "30", "-1.10")
    del entries[missing]

    assert not unbroken(entries, balance)
