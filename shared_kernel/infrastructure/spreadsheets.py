"""What people open in a spreadsheet: texts that no program takes for a formula, CSV, and XLSX in constant memory."""

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, Any, TypeAlias

import xlsxwriter

Cell: TypeAlias = str | int | Decimal | datetime | None

DANGEROUS = re.compile(r"^[\s\x00]*[=+\-@\t\r\n]")
MOST_ROWS = 1_048_575  # of one sheet, below its header
LONGEST_TEXT = 32_767  # of one cell
AMOUNT, TIME = "#,##0.00;[Red]-#,##0.00", "yyyy-mm-dd hh:mm:ss"


class SheetFull(ValueError):
    """More rows than a sheet has."""


def neutral(text: str) -> str:
    """A text that a spreadsheet shows and never runs: what begins like a formula gets an apostrophe before it.

    Not for amounts, which are written as numbers: -5.00 stays -5.00.
    """
    return f"'{text}" if DANGEROUS.match(text) else text


def csv_line(cells: Iterable[str | Decimal | None]) -> str:
    """One line as RFC 4180 has it; texts are neutralised, a `Decimal` is a number, None an empty cell."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(
        "" if cell is None else f"{cell:f}" if isinstance(cell, Decimal) else neutral(cell) for cell in cells
    )
    return out.getvalue()


def write_workbook(
    file: IO[bytes],
    title: str,
    about: Sequence[tuple[str, Cell]],
    heads: Sequence[str],
    rows: Iterable[Sequence[Cell]],
) -> int:
    """One sheet: the facts `about` it, a header, `rows`, each written to disk as it comes. Returns how many rows.

    A `Decimal` is an amount with two decimals, a datetime (UTC) a date and time; texts are neutralised.
    Raises `SheetFull`.
    """
    with tempfile.TemporaryDirectory() as place:
        options = {"constant_memory": True, "tmpdir": place}
        with xlsxwriter.Workbook(file, options) as book:
            return _Sheet(book, title, len(heads)).fill(about, heads, rows)


class _Sheet:
    """Rows from top to bottom: constant memory forgets a row as soon as the next one begins."""

    def __init__(self, book: Any, title: str, columns: int) -> None:
        self.sheet = book.add_worksheet(title[:31])
        self.sheet.set_column(0, columns - 1, 22)
        self.head = book.add_format({"bold": True, "bg_color": "#E7EEF0", "bottom": 1})
        self.amount = book.add_format({"num_format": AMOUNT})
        self.time = book.add_format({"num_format": TIME, "align": "left"})
        self.row = 0

    def fill(self, about: Sequence[tuple[str, Cell]], heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> int:
        for name, value in about:
            self._write([name, value])
        self.row += bool(about)  # an empty row
        for column, name in enumerate(heads):
            self.sheet.write_string(self.row, column, name, self.head)
        self.row += 1
        self.sheet.freeze_panes(self.row, 0)
        first = self.row
        for row in rows:
            if self.row >= MOST_ROWS:
                raise SheetFull(f"a sheet holds {MOST_ROWS} rows: take a shorter period")
            self._write(row)
        return self.row - first

    def _write(self, cells: Sequence[Cell]) -> None:
        for column, cell in enumerate(cells):
            self._cell(column, cell)
        self.row += 1

    def _cell(self, column: int, cell: Cell) -> None:
        match cell:
            case None:
                pass
            case datetime():
                self.sheet.write_datetime(self.row, column, cell.astimezone(UTC).replace(tzinfo=None), self.time)
            case Decimal():
                self.sheet.write_number(self.row, column, cell, self.amount)
            case int():
                self.sheet.write_number(self.row, column, cell)
            case str():
                self.sheet.write_string(self.row, column, neutral(cell)[:LONGEST_TEXT])
