"""What is hashed of a row and of a seal, byte by byte: seals that were made must be told right for ever."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from shared_kernel.domain.seals import GENESIS, Seal, document, first_wrong, mark, moment, raw, seq_of

AT = datetime(2026, 11, 25, 12, 30, 0, 123456, tzinfo=UTC)


def a_seal(*seqs, before=None):
    return Seal.over([mark([seq, "x"]) for seq in seqs], before, chain="t", layout=1, at=AT)


def test_a_row_is_hashed_as_a_json_array_in_ascii():
    values = [258, "é\n", None, 1300, raw(b"\x01\xff"), moment("2026-11-02 09:30:00"), document('{"b": 1, "a": "é"}')]

    expected = '[258,"\\u00e9\\n",null,1300,"01ff","2026-11-02 09:30:00.000000","{\\"a\\":\\"\\\\u00e9\\",\\"b\\":1}"]'
    assert mark(values) == b"\0\0\0\0\0\0\1\2" + hashlib.sha256(expected.encode()).digest()


def test_a_seal_is_hashed_as_a_json_array_with_the_hash_before_it():
    first = a_seal(1, 5)
    second = a_seal(9, before=first)

    marks = hashlib.sha256(mark([1, "x"]) + mark([5, "x"])).hexdigest()
    content = ["penpay seal 1", "t", 1, GENESIS, 1, 1, 5, 2, marks, "2026-11-25 12:30:00.123456"]
    assert first.hash == hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
    assert second.hash == second.hash_after(first) != second.hash_after(None)
    assert (first.fault_after(None), second.fault_after(first)) == ("", "")


@pytest.mark.parametrize(
    "same",
    [
        "2026-11-02 09:30:00",
        "2026-11-02 09:30:00.000000",
        "2026-11-02T09:30:00Z",
        "2026-11-02 12:30:00+03:00",
    ],
)
def test_a_time_is_one_text_however_a_database_writes_it(same):
    assert moment(same) == "2026-11-02 09:30:00.000000"


def test_a_seals_time_is_put_in_utc():
    seal = a_seal(1)
    nairobi = replace(seal, sealed_at=AT.astimezone(timezone(timedelta(hours=3))))

    assert nairobi.hash_after(None) == seal.hash


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1}', True),
        (b'{"a": 1}', '{"a": 1}', True),
        ('"\\u20ac"', '"€"', True),
        ("1", "1.0", False),
        ("1", "true", False),
        ("null", None, False),
        ('{"a": 1}', '{"a": 2, "a": 1}', False),
        ("[1, 2]", "[2, 1]", False),
        ("{}", "{", False),
        ("[" * 100_000, "{", False),
        ("NaN", "null", False),
    ],
    ids=str,
)
def test_json_documents_are_equal_when_they_mean_the_same(one, other, same):
    assert (mark([1, document(one)]) == mark([1, document(other)])) is same


def test_no_two_values_of_a_column_are_hashed_alike():
    values = [None, "", "None", "null", 0, 1, "1", 1.0, True, b"1", b"", AT, "\x00", "a", "A", "a ", "é", "e\u0301"]
    values += [raw("01"), raw(b"\1"), moment("soon"), moment(7), document("{"), "\ud800"]

    assert len({mark([1, value]) for value in values}) == len(values)
    assert len({mark([1, *pair]) for pair in (("a", "b"), ("ab", ""), ("", "ab"), ('a","b',))}) == 4


def test_a_seq_is_read_back_also_below_zero():
    assert [seq_of(mark([seq])) for seq in (-(2**63), -7, 0, 1, 2**63 - 1)] == [-(2**63), -7, 0, 1, 2**63 - 1]


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([1, 2, 4], None),
        ([2, 4], (1, "not there")),
        ([1, 2], (4, "not there")),
        ([], (1, "not there")),
        ([1, 2, 3, 4], (3, "inserted")),
        ([0, 1, 2, 4], (0, "inserted")),
        ([1, 2, 4, 5], (5, "inserted")),
        ([1, 3, 4], (2, "not there")),
    ],
    ids=str,
)
def test_the_first_wrong_row_is_the_first_by_seq(found, wrong):
    told = first_wrong([mark([seq]) for seq in (1, 2, 4)], [mark([seq]) for seq in found])

    assert told is wrong is None or (told[0] == wrong[0] and wrong[1] in told[1])


def test_rows_of_a_seal_rise_and_stand_behind_those_of_the_seal_before():
    first = a_seal(1, 5)

    assert a_seal(5, 6, before=first).fault_after(first) == "its rows are not in order"
    assert a_seal(3, 2).fault_after(None) == "its rows are not in order"
    assert a_seal(6, before=first).fault_after(None) == "it is where seal 1 should be"
