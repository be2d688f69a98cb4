"""What every sealed table must pass: each attack of somebody with all rights in the database is found, by its row.

A subclass says which table it is, how rows come about, and which false value each column could be given.
"""

import json
import shutil
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings as how, strategies as st

from shared_kernel.domain.seals import AnchorBroken, SealNotFound, SealsContradictAnchor
from shared_kernel.facade import chain_check, sealing
from shared_kernel.infrastructure.seals import SealedTable
from shared_kernel.tests.tampering import execute, faults, no_refusals, rewrite, seal, seals_of

CHANGED = "it is not as it was sealed"
INSERTED = "it was inserted after the rows around it had been sealed"
GONE = "it was sealed, and is not there any more"
ANEW = "the anchor has another hash: the seal, and so maybe its rows, was written anew"


ids = st.binary(min_size=16, max_size=16)
times = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(lambda at: at.isoformat(" ", "microseconds"))  # noqa: DTZ001
simple = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("ab\u20ac\U0001f600 ", max_size=5)
documents = st.recursive(
    simple, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
).map(json.dumps)


def texts(most):
    """Also such as differ by case, by spaces or in how a letter is put together."""
    return st.text("aA \u00e9e\u0301\u20ac\U0001f600'\"\\\x00\n", max_size=most)


@pytest.mark.django_db(transaction=True)
class ChainAttacks:
    table: SealedTable
    false: dict[str, str]  # SQL, for each column but seq
    values: dict[str, st.SearchStrategy[Any]]  # what could stand in each column but seq
    unique: dict[str, str] = {}  # SQL of another value, for the columns that a copied row cannot share

    def append(self, count):
        """Commits so many rows."""
        raise NotImplementedError

    @pytest.fixture
    def sealed(self):
        """The seqs of four seals of three rows each, all anchored, and of two rows that are not sealed yet.

        Before the rows of each seal, and behind its first, is the hole that a transaction leaves when it rolls back.
        The test may do everything in the database.
        """
        with no_refusals(self.chain):
            for _ in range(4):
                known = self.seqs()
                self.append(5)
                one, _, three, *_ = [seq for seq in self.seqs() if seq not in known]
                execute((f"DELETE FROM {self.chain} WHERE seq IN (%s, %s)", one, three))
                assert seal(self.chain) == 1
            self.append(2)
            yield self.seqs()

    @property
    def chain(self):
        return self.table.name

    def seqs(self):
        return [seq for (seq,) in self.rows(f"SELECT seq FROM {self.chain} ORDER BY seq")]

    def rows(self, sql, *parameters):
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    def edit(self, column, value, seq):
        execute((f"UPDATE {self.chain} SET {quoted(column)} = {value} WHERE seq = %s", seq))

    def copy(self, source, seq):
        """The row `source` once more, under another seq."""
        columns = [column for column, _ in self.table.layouts[max(self.table.layouts)]]
        values = [{"seq": str(seq), **self.unique}.get(column, quoted(column)) for column in columns]
        into = f"{self.chain} ({', '.join(map(quoted, columns))})"
        execute((f"INSERT INTO {into} SELECT {', '.join(values)} FROM {self.chain} WHERE seq = %s", source))

    def row(self, seq):
        return f"{self.chain} {seq}"

    def seal_row(self, number):
        first, last = [(seal.first_seq, seal.last_seq) for seal in seals_of(self.chain)][number - 1]
        return f"seals {self.chain} {number} (rows {first} to {last})"

    def file(self, anchor):
        return anchor / f"{self.chain}.seals"

    # --- nobody tampers ---

    def test_a_sound_chain_has_no_fault_and_is_counted(self, sealed):
        report = chain_check.check(self.chain)

        assert report.faults == []
        assert (report.seals, report.rows, report.unsealed.count, report.unanchored) == (4, 12, 2, 0)

    def test_every_column_is_sealed(self):
        """A column that is added needs a new layout."""
        newest = [column for column, _ in self.table.layouts[max(self.table.layouts)]]
        with connection.cursor() as cursor:
            there = [column.name for column in connection.introspection.get_table_description(cursor, self.chain)]

        assert newest[0] == "seq"
        assert sorted(newest) == sorted(there)
        assert set(self.false) == set(newest) - {"seq"}

    # --- rows ---

    def test_an_edit_of_any_column_of_a_sealed_row_is_found(self, sealed):
        for column, value in self.false.items():
            [(was,)] = self.rows(f"SELECT {quoted(column)} FROM {self.chain} WHERE seq = %s", sealed[4])

            self.edit(column, value, sealed[4])
            assert faults(self.chain) == [(self.row(sealed[4]), CHANGED)], column

            execute((f"UPDATE {self.chain} SET {quoted(column)} = %s WHERE seq = %s", was, sealed[4]))
            assert faults(self.chain) == [], column

    def test_of_several_edited_rows_the_first_is_named(self, sealed):
        column, value = next(iter(self.false.items()))
        for place in (7, 5, 10):
            self.edit(column, value if column not in self.unique else f"X'{place:032x}'", sealed[place])

        assert faults(self.chain) == [(self.row(sealed[5]), CHANGED)]

    @pytest.mark.parametrize("place", [0, 2, 3, 11])
    def test_a_deleted_row_is_named(self, sealed, place):
        execute((f"DELETE FROM {self.chain} WHERE seq = %s", sealed[place]))

        assert faults(self.chain) == [(self.row(sealed[place]), GONE)]

    @pytest.mark.parametrize("where", ["before all", "between two seals", "inside a seal"])
    def test_a_row_inserted_in_the_past_is_named(self, sealed, where):
        seq = {"before all": -7, "between two seals": sealed[3] - 1, "inside a seal": sealed[3] + 1}[where]

        self.copy(sealed[-1], seq)

        assert faults(self.chain) == [(self.row(seq), INSERTED)]

    def test_two_swapped_rows_are_found_by_the_first(self, sealed):
        one, other = sealed[1], sealed[7]
        for old, new in ((one, -1), (other, one), (-1, other)):
            execute((f"UPDATE {self.chain} SET seq = %s WHERE seq = %s", new, old))

        assert faults(self.chain) == [(self.row(one), CHANGED)]

    def test_a_row_moved_to_the_end_is_missed_at_its_place(self, sealed):
        execute((f"UPDATE {self.chain} SET seq = %s WHERE seq = %s", sealed[-1] + 100, sealed[1]))

        assert faults(self.chain) == [(self.row(sealed[1]), GONE)]

    @how(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def test_any_history_is_sound_and_any_change_of_one_value_is_found(self, data, anchor):
        groups = data.draw(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=5), "rows, seal")
        with no_refusals(self.chain):
            execute((f"DELETE FROM {self.chain}",), ("DELETE FROM seals",))
            shutil.rmtree(anchor, ignore_errors=True)
            for count, then_seal in groups:
                self.append(count)
                if then_seal:
                    assert seal(self.chain) == 1
                assert faults(self.chain) == []
            seal(self.chain)
            seqs = self.seqs()

            for _ in range(5):
                seq, column = data.draw(st.sampled_from(seqs)), data.draw(st.sampled_from(sorted(self.values)))
                value = data.draw(self.values[column], column)
                [(was,)] = self.rows(f"SELECT {quoted(column)} FROM {self.chain} WHERE seq = %s", seq)
                expected = [] if same(column, was, value) else [(self.row(seq), CHANGED)]
                set_value = f"UPDATE {self.chain} SET {quoted(column)} = %s WHERE seq = %s"

                execute((set_value, value, seq))
                assert faults(self.chain) == expected

                execute((set_value, was, seq))
                assert faults(self.chain) == []

    # --- rows and seals ---

    def test_an_edited_row_under_a_seal_made_anew_does_not_match_the_anchor(self, sealed):
        self.edit(*next(iter(self.false.items())), sealed[4])
        rewrite(self.chain, 2, only=True)

        assert faults(self.chain) == [(self.seal_row(2), ANEW)]

    def test_an_edited_row_with_every_later_seal_made_anew_does_not_match_the_anchor(self, sealed):
        self.edit(*next(iter(self.false.items())), sealed[4])
        rewrite(self.chain, 2)

        assert faults(self.chain) == [(self.seal_row(2), ANEW)]
        assert faults(self.chain, from_seal=3) == [(self.seal_row(2), ANEW)]

    def test_without_an_anchor_the_next_seal_tells_of_one_made_anew(self, sealed, anchor):
        self.edit(*next(iter(self.false.items())), sealed[4])
        rewrite(self.chain, 2, only=True)
        self.file(anchor).unlink()

        assert faults(self.chain) == [
            (self.seal_row(3), "its hash is not that of its content and of the seal before it")
        ]

    def test_a_chain_made_anew_is_sealed_no_further_and_the_anchor_stays(self, sealed):
        anchored = sealing.anchor.head(self.chain)
        self.edit(*next(iter(self.false.items())), sealed[4])
        rewrite(self.chain, 2)

        with pytest.raises(SealsContradictAnchor):
            seal(self.chain)

        assert len(seals_of(self.chain)) == 4
        assert sealing.anchor.head(self.chain) == anchored

    @pytest.mark.parametrize("from_seal", [1, 2, 3])
    def test_a_cut_tail_of_rows_and_seals_is_missed_by_the_anchor(self, sealed, from_seal):
        execute(
            (f"DELETE FROM {self.chain} WHERE seq > %s", sealed[5]),
            ("DELETE FROM seals WHERE chain = %s AND number > 2", self.chain),
        )

        [(row, detail)] = faults(self.chain, from_seal=from_seal)
        assert row == f"seals {self.chain} 3"
        assert detail.startswith("it is not there any more: it was anchored at ")
        assert detail.endswith(f"for rows up to {sealed[8]}")
        with pytest.raises(SealsContradictAnchor):
            seal(self.chain)

    def test_everything_cut_is_missed_by_the_anchor(self, sealed):
        execute((f"DELETE FROM {self.chain}",), ("DELETE FROM seals WHERE chain = %s", self.chain))

        assert [row for row, _ in faults(self.chain)] == [f"seals {self.chain} 1"]
        with pytest.raises(SealsContradictAnchor):
            seal(self.chain)

    def test_a_seal_taken_out_is_named(self, sealed):
        execute(("DELETE FROM seals WHERE chain = %s AND number = 2", self.chain))

        assert faults(self.chain) == [(f"seals {self.chain} 2", "it is not there any more")]
        assert faults(self.chain, from_seal=3) == [(f"seals {self.chain} 2", "it is not there any more")]

    @pytest.mark.parametrize(
        "false",
        [
            "first_seq = first_seq - 1", "last_seq = last_seq + 1", "row_count = row_count - 1", "layout = 99",
            "sealed_at = '2020-01-01 00:00:00'", "marks = X'00'", "marks = X''", "hash = UPPER(hash)", "number = 99",
        ],
    )  # fmt: skip
    def test_an_edit_of_any_column_of_a_seal_is_found(self, sealed, false):
        execute((f"UPDATE seals SET {false} WHERE chain = %s AND number = 2", self.chain))

        [(row, _)] = faults(self.chain)
        assert row.startswith(f"seals {self.chain} 2")

    def test_rows_are_named_before_a_seal_that_is_wrong_behind_them(self, sealed):
        self.edit(*next(iter(self.false.items())), sealed[4])
        execute(("UPDATE seals SET row_count = 7 WHERE chain = %s AND number = 3", self.chain))

        assert faults(self.chain) == [(self.row(sealed[4]), CHANGED)]

    # --- the anchor ---

    def test_a_missing_anchor_is_told_and_not_begun_anew(self, sealed, anchor):
        self.file(anchor).unlink()

        assert faults(self.chain) == [
            (
                f"seals {self.chain} 1",
                "seals 1 to 4 are not anchored: there is no anchor: put it back from its copy",
            )
        ]
        with pytest.raises(SealsContradictAnchor):
            seal(self.chain)
        assert not self.file(anchor).exists()

    def test_an_anchor_that_ends_early_is_told_and_not_filled_up(self, sealed, anchor):
        lines = self.file(anchor).read_bytes().splitlines(keepends=True)
        self.file(anchor).write_bytes(b"".join(lines[:2]))

        assert faults(self.chain) == [
            (f"seals {self.chain} 3", "seals 3 to 4 are not anchored: the anchor ends before them")
        ]
        with pytest.raises(SealsContradictAnchor):
            seal(self.chain)

    def test_an_altered_line_is_told(self, sealed, anchor):
        self.edit(*next(iter(self.false.items())), sealed[4])
        rewrite(self.chain, 2)
        false, true = seals_of(self.chain)[1].hash, sealing.anchor.lines(self.chain)
        written = self.file(anchor).read_text()
        self.file(anchor).write_text(written.replace(list(true)[1].hash, false))

        assert faults(self.chain)[0][0] == f"anchor {self.chain}"
        assert "line 2" in faults(self.chain)[0][1]

    def test_an_anchor_written_with_another_key_is_told(self, sealed, settings):
        settings.SEAL_ANCHOR_KEY = "ab" * 32

        [(row, detail)] = faults(self.chain)
        assert row == f"anchor {self.chain}"
        assert "SEAL_ANCHOR_KEY" in detail
        with pytest.raises(AnchorBroken):
            seal(self.chain)

    # --- from a seal on ---

    def test_from_a_seal_on_what_is_older_is_not_looked_at(self, sealed):
        self.edit(*next(iter(self.false.items())), sealed[4])

        report = chain_check.check(self.chain, from_seal=3)

        assert (report.seals, report.rows, report.faults) == (2, 6, [])
        assert faults(self.chain, from_seal=2) == [(self.row(sealed[4]), CHANGED)]

    def test_a_seal_that_is_not_there_yet_cannot_be_begun_from(self, sealed):
        assert chain_check.check(self.chain, from_seal=5).faults == []
        with pytest.raises(SealNotFound, match="ends with seal 4"):
            chain_check.check(self.chain, from_seal=6)


def same(column, was, value):
    """Whether two values of a column mean the same."""
    if column == "details":
        return json.dumps(json.loads(was), sort_keys=True) == json.dumps(json.loads(value), sort_keys=True)
    if column.endswith("at") and isinstance(was, datetime | str):
        return datetime.fromisoformat(str(was)).replace(tzinfo=UTC) == datetime.fromisoformat(value).replace(tzinfo=UTC)
    return bool(was == value)


def quoted(column):
    return connection.ops.quote_name(column)
