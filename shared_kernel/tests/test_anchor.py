"""The anchor's files: only lines that were written with the key, in their order, are believed."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared_kernel.domain.seals import AnchorBroken, AnchorOutOfReach, NewStart, Seal, SealsContradictAnchor, mark
from shared_kernel.infrastructure import anchor as module
from shared_kernel.infrastructure.anchor import FileAnchor

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY = "0f" * 32


@pytest.fixture
def anchor(tmp_path):
    return FileAnchor(lambda: tmp_path / "anchor", lambda: KEY, lambda: AT)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "anchor" / "c.seals"


def some_seals(count):
    seals: list[Seal] = []
    for number in range(1, count + 1):
        before = seals[-1] if seals else None
        seals.append(Seal.over([mark([number * 10, "x"])], before, chain="c", layout=1, at=AT))
    return seals


def numbers(anchor):
    return [line.number for line in anchor.lines("c")]


def change(file, place, **fields):
    lines = file.read_text().splitlines()
    lines[place] = json.dumps(json.loads(lines[place]) | fields)
    file.write_text("\n".join(lines) + "\n")


def test_what_was_appended_is_read_in_order_by_its_owner_alone(anchor, file):
    seals = some_seals(3)
    for seal in seals:
        anchor.append(seal)

    lines = list(anchor.lines("c"))

    assert [(line.number, line.hash, line.last_seq, line.at) for line in lines] == [
        (seal.number, seal.hash, seal.last_seq, AT) for seal in seals
    ]
    assert anchor.head("c") == lines[-1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_nothing_is_anchored_where_there_is_no_file(anchor):
    assert (anchor.head("c"), numbers(anchor)) == (None, [])


def test_the_same_seal_again_changes_nothing(anchor, file):
    [seal] = some_seals(1)
    anchor.append(seal)
    before = file.read_bytes()

    anchor.append(seal)

    assert file.read_bytes() == before


@pytest.mark.parametrize("wrong", ["another hash", "a gap"])
def test_what_does_not_follow_is_refused(anchor, file, wrong):
    first, second, third = some_seals(3)
    anchor.append(first)
    anchor.append(second)
    before = file.read_bytes()

    with pytest.raises(SealsContradictAnchor):
        anchor.append(replace(second, hash="0" * 64) if wrong == "another hash" else replace(third, number=4))

    assert file.read_bytes() == before


@pytest.mark.parametrize("field", ["number", "last_seq", "rows", "hash", "at", "chain", "mac"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_changed_field_of_any_line_is_found(anchor, file, field, place):
    for seal in some_seals(4):
        anchor.append(seal)

    change(file, place, **{field: 7 if field in {"number", "last_seq", "rows"} else "7" * 64})

    with pytest.raises(AnchorBroken, match=f"line {place + 1} "):
        numbers(anchor)


@pytest.mark.parametrize("order", [[0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3]], ids=str)
def test_a_line_taken_out_moved_or_repeated_is_found(anchor, file, order):
    for seal in some_seals(4):
        anchor.append(seal)
    lines = file.read_text().splitlines()

    file.write_text("".join(f"{lines[place]}\n" for place in order))

    with pytest.raises(AnchorBroken):
        numbers(anchor)


def test_a_changed_last_line_stops_the_next_append(anchor, file):
    *known, last = some_seals(4)
    for seal in known:
        anchor.append(seal)
    change(file, 2, hash="7" * 64)

    with pytest.raises(AnchorBroken):
        anchor.append(last)


@pytest.mark.parametrize("left", [0, 1, 40, -1])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_line_that_a_crash_has_cut_short_is_written_again(anchor, file, left, count):
    """`left`: how much of the last line reached the disk; -1: all but its end of line."""
    *known, last = some_seals(count + 1)
    for seal in known:
        anchor.append(seal)
    whole = file.read_bytes()
    anchor.append(last)
    line = file.read_bytes()[len(whole) :]

    file.write_bytes(whole + line[:left])
    anchor.append(last)
    anchor.append(some_seals(count + 2)[-1])

    assert numbers(anchor) == list(range(1, count + 3))
    assert anchor.head("c").number == count + 2


def test_the_last_line_is_found_without_reading_the_file_from_its_beginning(anchor, file, monkeypatch):
    for seal in some_seals(8):
        anchor.append(seal)
    change(file, 0, hash="7" * 64)

    monkeypatch.setattr(module, "TAIL", 1000)
    assert anchor.head("c").number == 8

    monkeypatch.setattr(module, "TAIL", 300)  # holds one whole line: the one before must be read, too
    with pytest.raises(AnchorBroken):
        anchor.head("c")


def test_of_many_who_append_the_same_at_once_one_does(anchor, file):
    seals = some_seals(5)
    for seal in seals:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(anchor.append, [seal] * 8))

    assert numbers(anchor) == [1, 2, 3, 4, 5]
    assert len(file.read_text().splitlines()) == 5


def test_a_place_that_cannot_be_written_is_told_with_its_name_and_no_key(tmp_path):
    (tmp_path / "anchor").touch()
    anchor = FileAnchor(lambda: tmp_path / "anchor", lambda: KEY, lambda: AT)

    for call in (lambda: anchor.append(some_seals(1)[0]), lambda: anchor.head("c"), lambda: numbers(anchor)):
        with pytest.raises(AnchorOutOfReach, match="SEAL_ANCHOR") as told:
            call()
        assert KEY not in str(told.value)


# --- begun anew, and looked into --------------------------------------------------------------------------------------


def a_new_start(generation=2, number=1, why="lost"):
    return NewStart(generation, number, 0, "there is no anchor", "staff:1", "staff:2", why, AT.isoformat())


def test_one_that_is_begun_anew_counts_alone_and_goes_on_from_its_seal(anchor, file):
    seals = some_seals(5)
    for seal in seals[:2]:
        anchor.append(seal)
    before = file.read_bytes()

    anchor.begin("c", seals[2], [a_new_start(number=3)])
    anchor.begin("c", seals[2], [a_new_start(number=3)])  # the same once more
    anchor.append(seals[3])

    assert anchor.generation("c") == 2
    assert [(line.number, len(line.new_starts)) for line in anchor.lines("c")] == [(3, 1), (4, 0)]
    assert anchor.head("c").hash == seals[3].hash
    assert file.read_bytes() == before
    with pytest.raises(SealsContradictAnchor):
        anchor.begin("c", seals[4], [a_new_start(number=5)])  # generation 2 is taken
    anchor.begin("c", seals[4], [a_new_start(number=3), a_new_start(3, 5)])
    assert [one.number for one in next(anchor.lines("c")).new_starts] == [3, 5]
    with pytest.raises(SealsContradictAnchor):
        anchor.begin("c", seals[2], [a_new_start(number=3)])  # there is a newer one


def test_a_file_under_the_name_of_another_generation_is_not_believed(anchor, file):
    [seal] = some_seals(1)
    anchor.begin("c", seal, [a_new_start()])
    anew = file.with_name("c.2.seals")
    anew.rename(file)
    with pytest.raises(AnchorBroken):
        anchor.head("c")
    file.rename(file.with_name("c.3.seals"))
    with pytest.raises(AnchorBroken):
        anchor.head("c")
    file.with_name("c.3.seals").unlink()
    anchor.append(seal)
    file.rename(anew)
    with pytest.raises(AnchorBroken):
        anchor.head("c")


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 60, 400])
def test_single_lines_are_found_in_short_and_in_long_files(anchor, file, count, anew):
    seals = some_seals(count)
    if anew:
        anchor.begin("c", seals[0], [a_new_start()])
    for seal in seals[anew:]:
        anchor.append(seal)

    found = anchor.find("c", [*range(1, count + 1), count + 1, count + 99])

    assert {number: line.hash for number, line in found.items()} == {seal.number: seal.hash for seal in seals}


def test_a_seal_of_before_the_new_start_has_the_line_of_that(anchor):
    seals = some_seals(200)
    anchor.begin("c", seals[99], [a_new_start(number=100)])
    for seal in seals[100:]:
        anchor.append(seal)

    found = anchor.find("c", [1, 99, 100, 101, 200])

    assert {number: line.number for number, line in found.items()} == {1: 100, 99: 100, 100: 100, 101: 101, 200: 200}


@pytest.mark.parametrize("number", [1, 2, 120, 250])
def test_a_line_that_was_changed_is_not_found_but_told(anchor, file, number):
    for seal in some_seals(250):
        anchor.append(seal)
    change(file, number - 1, hash="7" * 64)

    with pytest.raises(AnchorBroken):
        anchor.find("c", [number])
    assert set(anchor.find("c", [50])) == {50}


def test_a_piece_of_a_line_in_the_middle_hides_none(anchor, file):
    seals = some_seals(300)
    for seal in seals:
        if seal.number == 150:
            with file.open("ab") as opened:
                opened.write(b'{"chain": "c", "num')
        anchor.append(seal)

    assert set(anchor.find("c", range(140, 160))) == set(range(140, 160))


def test_where_there_is_no_anchor_at_all_it_is_out_of_reach(anchor):
    with pytest.raises(AnchorOutOfReach, match="SEAL_ANCHOR"):
        anchor.find("c", [1])
