"""A statement as a bank prints one: A4 pages, drawn from top to bottom, each with its number and their count."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import reportlab
from reportlab.lib.colors import HexColor, white
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from shared_kernel.domain.money import Currency, Money
from wallet.domain.statement import KENYA, Holder, Line, Period, Total

WIDTH, HEIGHT = float(A4[0]), float(A4[1])
LEFT, RIGHT, BOTTOM = 42.0, WIDTH - 42.0, 74.0
INK, MUTED, BRAND = HexColor("#1B2A33"), HexColor("#5E6E78"), HexColor("#0B5D4E")
OWED = HexColor("#A32A1E")
RULE, BAND, TINT = HexColor("#C9D3D7"), HexColor("#F5F8F8"), HexColor("#E6F0EE")
ROW, LOW_ROW = 24.0, 18.0  # with a reference below, without
DETAILS, MONEY_IN, MONEY_OUT, BALANCE = LEFT + 84, RIGHT - 156, RIGHT - 80, RIGHT - 6  # left edge; right edges
NAMES = {Currency.KES: "Kenyan shillings", Currency.USD: "US dollars"}
NOTICE = (
    "Your money passes through PenPay between M-Pesa and Deriv: a balance is what we hold for you on its way, less what"
    " you owe us.",
    "A balance of 0.00 means that nothing is on its way. Please check each line. If one is wrong, give our support its"
    " reference.",
)
WIDE_FONT = "Vera"  # of reportlab, embedded: for names that the standard fonts have no letters for


@dataclass
class Table:
    """The part of one currency's table that stands on one page."""

    total: Total
    forward: Money  # the balance before its first line
    begins: bool
    lines: list[Line] = field(default_factory=list)
    ends: bool = False


def statement_pdf(
    holder: Holder, period: Period, totals: Sequence[Total], lines: Sequence[Line], *, issued_at: datetime
) -> bytes:
    """All pages, in memory: for as many lines as one document may hold. Times are Kenya's."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=A4, invariant=True)
    canvas.setTitle(f"PenPay account statement, {_days(period)}")
    canvas.setAuthor("PenPay")
    pages = list(_pages(totals, lines))
    for number, page in enumerate(pages, 1):
        y = _letterhead(canvas, holder, period, issued_at) if number == 1 else _heading(canvas, period)
        for table in page:
            y = _table(canvas, table, y)
        _footer(canvas, holder, number, len(pages))
        canvas.showPage()
    canvas.save()
    return file.getvalue()


# which row stands on which page

FIRST_TOP, NEXT_TOP = HEIGHT - 188, HEIGHT - 74
BEGINNING, GOING_ON, ENDING = 116.0, 64.0, 34.0  # heights above the lines, the same on further pages, below


def _pages(totals: Sequence[Total], lines: Sequence[Line]) -> Iterator[list[Table]]:
    page: list[Table] = []
    y = FIRST_TOP
    for total in totals:
        of_it = [line for line in lines if line.change.currency is total.currency]
        if y - BEGINNING - ROW - ENDING < BOTTOM:
            yield page
            page, y = [], NEXT_TOP
        table, y = Table(total, total.opening, begins=True), y - BEGINNING
        page.append(table)
        for number, line in enumerate(of_it, 1):
            needed = _height(line) + (ENDING if number == len(of_it) else 0)
            if y - needed < BOTTOM:
                yield page
                page, y = [], NEXT_TOP - GOING_ON
                table = Table(total, of_it[number - 2].balance, begins=False)
                page.append(table)
            table.lines.append(line)
            y -= _height(line)
        table.ends = True
        y -= (ENDING if of_it else ENDING + LOW_ROW) + 18
    yield page


def _height(line: Line) -> float:
    return ROW if line.transaction else LOW_ROW


# what stands at the top and at the bottom of each page


def _letterhead(canvas: Any, holder: Holder, period: Period, issued_at: datetime) -> float:
    _mark(canvas, HEIGHT - 68, 26)
    _text(canvas, LEFT + 36, HEIGHT - 59, "PenPay", "Helvetica-Bold", 18, BRAND)
    _text(canvas, LEFT + 36, HEIGHT - 70, "M-Pesa and Deriv payments", "Helvetica", 7.5, MUTED)
    _text(canvas, RIGHT, HEIGHT - 59, "Account statement", "Helvetica-Bold", 15, INK, right=True)
    _text(canvas, RIGHT, HEIGHT - 70, _days(period), "Helvetica", 8.5, MUTED, right=True)
    canvas.setStrokeColor(BRAND)
    canvas.setLineWidth(1.4)
    canvas.line(LEFT, HEIGHT - 82, RIGHT, HEIGHT - 82)
    facts = [
        ("Customer", holder.name, "From", _time(period.start)),
        ("Phone", holder.phone, "To (not included)", _time(period.end)),
        ("Customer number", holder.number, "Issued", _time(issued_at)),
        ("", "", "Times", "East Africa Time (UTC+3)"),
    ]
    y = HEIGHT - 106
    for left, value, right, other in facts:
        _fact(canvas, LEFT, LEFT + 84, y, left, value)
        _fact(canvas, 350, 438, y, right, other)
        y -= 17
    canvas.setLineWidth(0.5)
    canvas.setStrokeColor(RULE)
    canvas.line(LEFT, y, RIGHT, y)
    return FIRST_TOP


def _mark(canvas: Any, y: float, size: float) -> None:
    canvas.setFillColor(BRAND)
    canvas.roundRect(LEFT, y, size, size, 6, stroke=0, fill=1)
    canvas.setStrokeColor(white)
    canvas.setLineWidth(2.2)
    canvas.setLineCap(1)
    middle = y + size / 2
    canvas.line(LEFT + 6, middle + 3.5, LEFT + size - 7, middle + 3.5)
    canvas.line(LEFT + 7, middle - 3.5, LEFT + size - 6, middle - 3.5)
    for x, at, back in ((LEFT + size - 7, middle + 3.5, -4), (LEFT + 7, middle - 3.5, 4)):
        canvas.line(x, at, x + back, at + 3)
        canvas.line(x, at, x + back, at - 3)
    canvas.setLineCap(0)


def _fact(canvas: Any, x: float, at: float, y: float, name: str, value: str) -> None:
    _text(canvas, x, y, name, "Helvetica", 8, MUTED)
    size = 7.5 if len(value) > 34 else 8.5
    _text(canvas, at, y, value, "Helvetica-Bold" if name == "Customer" else "Helvetica", size, INK)


def _heading(canvas: Any, period: Period) -> float:
    _text(canvas, LEFT, HEIGHT - 50, "PenPay", "Helvetica-Bold", 11, BRAND)
    _text(canvas, LEFT + 46, HEIGHT - 50, "Account statement, continued", "Helvetica", 8.5, MUTED)
    _text(canvas, RIGHT, HEIGHT - 50, _days(period), "Helvetica", 8.5, MUTED, right=True)
    canvas.setStrokeColor(BRAND)
    canvas.setLineWidth(0.8)
    canvas.line(LEFT, HEIGHT - 57, RIGHT, HEIGHT - 57)
    return NEXT_TOP


def _footer(canvas: Any, holder: Holder, number: int, count: int) -> None:
    canvas.setStrokeColor(RULE)
    canvas.setLineWidth(0.5)
    canvas.line(LEFT, 60, RIGHT, 60)
    for place, sentence in enumerate(NOTICE):
        _text(canvas, LEFT, 49 - 10 * place, sentence, "Helvetica", 7, MUTED)
    _text(canvas, LEFT, 26, f"Customer number {holder.number}", "Helvetica", 7, MUTED)
    _text(canvas, RIGHT, 26, f"Page {number} of {count}", "Helvetica-Bold", 8, INK, right=True)


# a currency's table


def _table(canvas: Any, table: Table, y: float) -> float:
    y = _title(canvas, table, y)
    y = _head(canvas, y)
    y = _balance(canvas, y, "Opening balance" if table.begins else "Balance brought forward", table.forward)
    if not table.lines:
        _text(canvas, DETAILS, y - 12, "No money moved in this period.", "Helvetica-Oblique", 8, MUTED)
        y -= LOW_ROW
    for number, line in enumerate(table.lines):
        y = _line(canvas, y, line, banded=number % 2 == 1)
    if table.ends:
        y = _closing(canvas, y, table.total)
    return y - 18


def _title(canvas: Any, table: Table, y: float) -> float:
    currency = table.total.currency
    suffix = "" if table.begins else ", continued"
    _text(canvas, LEFT, y - 14, f"{NAMES[currency]} ({currency}){suffix}", "Helvetica-Bold", 10.5, INK)
    if not table.begins:
        return y - 24
    total, width = table.total, (RIGHT - LEFT - 18) / 4
    owes = total.closing.amount < 0
    shown = (
        ("Opening balance", total.opening, INK),
        ("Money in", total.money_in, INK),
        ("Money out", total.money_out, INK),
        ("Closing balance: you owe us" if owes else "Closing balance", total.closing, OWED if owes else BRAND),
    )
    for place, (name, money, color) in enumerate(shown):
        x = LEFT + place * (width + 6)
        canvas.setFillColor(TINT if place == 3 else BAND)
        canvas.roundRect(x, y - 62, width, 38, 3, stroke=0, fill=1)
        _text(canvas, x + 8, y - 37, name, "Helvetica", 7.5, MUTED)
        _text(canvas, x + 8, y - 53, _amount(money), "Helvetica-Bold", 11.5, color)
    return y - 76


def _head(canvas: Any, y: float) -> float:
    canvas.setFillColor(BRAND)
    canvas.rect(LEFT, y - 20, RIGHT - LEFT, 20, stroke=0, fill=1)
    for x, name, right in (
        (LEFT + 6, "Date and time", False),
        (DETAILS, "Details and reference", False),
        (MONEY_IN, "Money in", True),
        (MONEY_OUT, "Money out", True),
        (BALANCE, "Balance", True),
    ):
        _text(canvas, x, y - 13, name, "Helvetica-Bold", 8, white, right=right)
    return y - 20


def _balance(canvas: Any, y: float, name: str, money: Money) -> float:
    _text(canvas, DETAILS, y - 13, name, "Helvetica-Oblique", 8.5, MUTED)
    _text(canvas, BALANCE, y - 13, _amount(money), "Helvetica", 8.5, INK, right=True)
    canvas.setStrokeColor(RULE)
    canvas.setLineWidth(0.3)
    canvas.line(LEFT, y - LOW_ROW - 2, RIGHT, y - LOW_ROW - 2)
    return y - LOW_ROW - 2


def _line(canvas: Any, y: float, line: Line, *, banded: bool) -> float:
    height = _height(line)
    if banded:
        canvas.setFillColor(BAND)
        canvas.rect(LEFT, y - height, RIGHT - LEFT, height, stroke=0, fill=1)
    at, base = line.at.astimezone(KENYA), y - (10.5 if line.transaction else 12)
    _text(canvas, LEFT + 6, base, f"{at:%d %b %Y}", "Helvetica", 8, INK)
    _text(canvas, LEFT + 54, base, f"{at:%H:%M}", "Helvetica", 8, MUTED)
    _text(canvas, DETAILS, base, line.description, "Helvetica", 8, INK, widest=MONEY_IN - DETAILS - 48)
    if line.transaction:
        _text(canvas, DETAILS, base - 9, str(line.transaction), "Courier", 6.2, MUTED)
    for x, money in ((MONEY_IN, line.money_in), (MONEY_OUT, line.money_out), (BALANCE, line.balance)):
        if money is not None:
            _text(canvas, x, base, _amount(money), "Helvetica", 8.5, INK, right=True)
    return y - height


def _closing(canvas: Any, y: float, total: Total) -> float:
    canvas.setFillColor(TINT)
    canvas.rect(LEFT, y - 22, RIGHT - LEFT, 22, stroke=0, fill=1)
    _text(canvas, DETAILS, y - 14, "Totals and closing balance", "Helvetica-Bold", 8.5, INK)
    for x, money in ((MONEY_IN, total.money_in), (MONEY_OUT, total.money_out), (BALANCE, total.closing)):
        _text(canvas, x, y - 14, _amount(money), "Helvetica-Bold", 8.5, INK, right=True)
    return y - ENDING


# small things


def _text(
    canvas: Any,
    x: float,
    y: float,
    text: str,
    font: str,
    size: float,
    color: Any,
    *,
    right: bool = False,
    widest: float = 0,
) -> None:
    """`widest` makes it as much smaller as is needed to fit."""
    font = _able(font, text)
    width = pdfmetrics.stringWidth(text, font, size)
    size = size * widest / width if widest and width > widest else size
    canvas.setFillColor(color)
    canvas.setFont(font, size)
    (canvas.drawRightString if right else canvas.drawString)(x, y, text)


def _able(font: str, text: str) -> str:
    """The standard fonts have the letters of Western Europe."""
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        if WIDE_FONT not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(WIDE_FONT, str(Path(reportlab.__file__).parent / "fonts" / "Vera.ttf")))
        return WIDE_FONT
    return font


def _amount(money: Money) -> str:
    return f"{money.decimal:,.2f}"


def _days(period: Period) -> str:
    first, last = period.days
    return f"{first:%-d %B %Y} to {last:%-d %B %Y}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(KENYA):%-d %B %Y, %H:%M}"
