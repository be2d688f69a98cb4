"""Statement files: M-Pesa's organisation statement and Deriv's, as CSV.

Assumed, both: no sample was at hand. All that is known of a file's form stands in its `Form`, so that a real file needs
another column map and no other code. A file is taken as a whole or refused as a whole, with each bad line named.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timezone
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from pathlib import Path

from payments.domain.orphan import Provider
from payments.domain.reconciliation import EAT, Book, FloatAccountKind, Movement, StatementRefused
from shared_kernel.domain.money import Currency, InvalidAmount, Money

MOST_BYTES = 200 * 2**20
MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
RECEIPT = re.compile(r"[A-Z0-9]{8,16}")
NUMBER = re.compile(r"[0-9]{1,20}")
ID_COLUMN = "id"


@dataclass(frozen=True, slots=True)
class Form:
    """How a provider writes a statement. `columns` maps our word to the heads that it may stand under, in lower case;
    `about` does so for the lines `head,value` above them. `times` are the forms of a time, in `zone`.
    """

    columns: Mapping[str, tuple[str, ...]]
    about: Mapping[str, tuple[str, ...]]
    needed: frozenset[str]
    times: tuple[str, ...]
    zone: timezone
    id: re.Pattern[str]
    currency: Currency
    complete: frozenset[str]  # words of a status that moved money; without such a column all did
    charge: re.Pattern[str]
    taken_back: re.Pattern[str]  # its first group, or else the column `linked`, is what was taken back
    accounts: Mapping[str, FloatAccountKind]


MPESA = Form(
    columns={
        "id": ("receipt no.", "receipt no", "receipt"),
        "at": ("completion time",),
        "about": ("details", "reason type"),
        "status": ("transaction status", "status"),
        "in": ("paid in",),
        "out": ("withdrawn",),
        "balance": ("balance",),
        "linked": ("linked transaction id",),
        "reference": ("a/c no.", "a/c no", "account no."),
        "currency": ("currency",),
    },
    about={
        "account": ("short code", "shortcode", "organization short code"),
        "sub_account": ("account", "account type"),
        "opening": ("opening balance",),
        "closing": ("closing balance",),
    },
    needed=frozenset({"id", "at", "about", "in", "out", "balance"}),
    times=("%d-%m-%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M:%S"),
    zone=EAT,
    id=RECEIPT,
    currency=Currency.KES,
    complete=frozenset({"completed", "complete"}),
    charge=re.compile(r"\bcharge\b", re.I),
    taken_back=re.compile(r"\breversal\b", re.I),
    accounts={
        "working account": FloatAccountKind.MPESA_WORKING,
        "mmf account": FloatAccountKind.MPESA_WORKING,
        "utility account": FloatAccountKind.MPESA_UTILITY,
        "charges paid account": FloatAccountKind.MPESA_CHARGES_PAID,
    },
)
DERIV = Form(
    columns={
        "id": ("ref. id", "reference id", "transaction id"),
        "at": ("transaction time", "date", "time"),
        "about": ("description", "transaction type", "type"),
        "amount": ("credit/debit", "amount"),
        "balance": ("balance",),
        "status": ("status",),
        "currency": ("currency",),
    },
    about={
        "account": ("login id", "loginid", "account", "agent id"),
        "opening": ("opening balance",),
        "closing": ("closing balance",),
    },
    needed=frozenset({"id", "at", "amount", "balance"}),
    times=("%Y-%m-%d %H:%M:%S", "%d %b %Y %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"),
    zone=UTC,
    id=NUMBER,
    currency=Currency.USD,
    complete=frozenset({"complete", "completed"}),
    charge=re.compile(r"(?!)"),
    taken_back=re.compile(r"^Reversal of ([0-9]{1,20})$"),
    accounts={},
)
FORMS = {Provider.MPESA: MPESA, Provider.DERIV: DERIV}


@dataclass(frozen=True, slots=True)
class Line:
    """A line that moved money. `before` and `after` are the account's balances."""

    number: int
    movement: Movement
    before: Decimal
    after: Decimal


def read_statement(path: Path, provider: Provider, *, account: str, since: datetime, until: datetime) -> Book:
    """The book that a file holds, from `since` on or from its first line if that is earlier.

    `account` is the shortcode or agent, or "" to take the file's word for it. Raises `StatementRefused`.
    """
    raw = _bytes(path)
    reading = Reading(path.name, FORMS[provider], _text(path.name, raw))
    lines = reading.lines()
    ats = [line.movement.at for line in lines]
    if not any(since <= at < until for at in ats):
        held = f"it goes from {min(ats):%Y-%m-%d %H:%M} to {max(ats):%Y-%m-%d %H:%M} UTC" if ats else "it has no line"
        raise StatementRefused(path.name, [f"nothing in it is of the day that was asked for: {held}"])
    said = reading.about.get("account", "")
    if account and said and said != account:
        raise StatementRefused(path.name, [f"it is of account {said}, and not of {account}"])
    if not (said or account):
        raise StatementRefused(path.name, ["it does not say of which account it is: give --account"])
    return Book(
        provider=provider,
        account=said or account,
        kind=reading.kind(provider),
        since=min(since, *ats),
        movements=[line.movement for line in lines],
        digest=sha256(raw).hexdigest(),
    )


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StatementRefused(path.name, [f"it is larger than {MOST_BYTES >> 20} MB: split it by days"])
        return path.read_bytes()
    except OSError as error:
        raise StatementRefused(path.name, [f"it can't be read: {error.strerror}"]) from error


def _text(name: str, raw: bytes) -> str:
    """UTF-8 with or without a mark, UTF-16 with one, else Windows' code page 1252."""
    marked = next((codec for mark, codec in MARKS if raw.startswith(mark)), "")
    for codec in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise StatementRefused(name, ["its encoding is none of UTF-8, UTF-16 with a byte order mark, CP1252"])


class Reading:
    """One file, line by line; `wrong` gathers all that is bad in it."""

    def __init__(self, name: str, form: Form, text: str) -> None:
        self.name, self.form = name, form
        self.wrong: list[str] = []
        self.about: dict[str, str] = {}
        self.heads: dict[str, int] = {}
        self.width = 0
        if text and not text.endswith(("\n", "\r")):
            self.wrong.append(f"line {text.count(chr(10)) + 1}: it ends in the middle: the file was cut off")
        self.rows = self._parsed(text)

    def _parsed(self, text: str) -> list[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows: list[tuple[int, list[str]]] = []
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if self.heads:
                    rows.append((reader.line_num, cells))
                else:
                    self._head(cells)
        except csv.Error as error:
            self.wrong.append(f"line {reader.line_num}: it is no CSV: {error}")
        if not self.heads:
            self.wrong.append(f"line 1: no line with the heads {', '.join(sorted(self.form.needed))} was found")
        return rows

    def _head(self, cells: Sequence[str]) -> None:
        """A line above the table, or the table's heads."""
        words = [cell.lower().rstrip(":") for cell in cells]
        found = {
            ours: next((words.index(head) for head in heads if head in words), -1)
            for ours, heads in self.form.columns.items()
        }
        if all(found[name] >= 0 for name in self.form.needed):
            self.heads = {name: index for name, index in found.items() if index >= 0}
            self.width = len(cells)
            return
        for ours, heads in self.form.about.items():
            if words[0] in heads and len(cells) > 1:
                self.about[ours] = cells[1]

    def kind(self, provider: Provider) -> FloatAccountKind:
        """Which sub-account it is of. Raises `StatementRefused`."""
        if provider is Provider.DERIV:
            return FloatAccountKind.DERIV_AGENT
        said = self.about.get("sub_account", "")
        kind = self.form.accounts.get(said.lower())
        if kind is None:
            raise StatementRefused(
                self.name, [f"its account {said!r} is none of {', '.join(sorted(self.form.accounts))}"]
            )
        return kind

    def lines(self) -> list[Line]:
        """Those that moved money, in the file's order. Raises `StatementRefused` with all that is wrong."""
        read: list[Line] = []
        for number, cells in self.rows:
            try:
                line = self._line(number, cells)
            except (ValueError, InvalidAmount, ArithmeticError) as error:
                self.wrong.append(f"line {number}: {error}")
            else:
                read += [line] if line else []
        self._each_once(read)
        if not self.wrong:
            self._balances_follow(read)
        if self.wrong:
            raise StatementRefused(self.name, self.wrong)
        return read

    def _line(self, number: int, cells: Sequence[str]) -> Line | None:
        if len(cells) != self.width:
            raise ValueError(f"it has {len(cells)} columns and not {self.width}")
        told = {name: cells[index] for name, index in self.heads.items()}
        if self.form.complete and told.get("status", "complete").lower() not in self.form.complete:
            return None  # declined, cancelled: it moved nothing
        if told.get("currency", self.form.currency) != self.form.currency:
            raise ValueError(f"its currency {told['currency']!r} is not {self.form.currency}")
        amount, balance = self._amount(told), _decimal(told["balance"], "balance")
        id = told[ID_COLUMN].upper()
        if not self.form.id.fullmatch(id):
            raise ValueError("its id is not one of this provider's")
        movement = self._movement(id, told, Money.of_decimal(amount, self.form.currency))
        return Line(number, movement, balance - amount, balance)

    def _amount(self, told: Mapping[str, str]) -> Decimal:
        """Signed. `Withdrawn` is written with or without a minus."""
        if "amount" in told:
            amount = _decimal(told["amount"], "amount")
        else:
            came, left = (
                abs(_decimal(told[name] or "0", head)) for name, head in (("in", "paid in"), ("out", "withdrawn"))
            )
            if came and left:
                raise ValueError("money came in and left on one line")
            amount = came - left
        if not amount:
            raise ValueError("nothing moved")
        return amount

    def _movement(self, id: str, told: Mapping[str, str], amount: Money) -> Movement:
        about, at = told.get("about", ""), self._time(told["at"])
        reverses = ""
        if self.form.charge.search(about):  # a reversal's own charge as well
            id = f"{id}:fee"
        elif back := self.form.taken_back.search(about):
            reverses = back[1] if back.re.groups else told.get("linked", "").upper()
        return Movement(id, amount, at, told.get("reference", ""), reverses)

    def _time(self, text: str) -> datetime:
        for form in self.form.times:
            try:
                return datetime.strptime(f"{text} +0000", f"{form} %z").replace(tzinfo=self.form.zone).astimezone(UTC)
            except ValueError:
                continue
        raise ValueError("its time is not understood")

    def _each_once(self, lines: Sequence[Line]) -> None:
        first: dict[str, int] = {}
        for line in lines:
            if (before := first.setdefault(line.movement.id, line.number)) != line.number:
                self.wrong.append(f"line {line.number}: it repeats line {before}")

    def _balances_follow(self, lines: Sequence[Line]) -> None:
        """Each balance but one is where another line goes on, whatever their order; totals are as the file says."""
        starts = Counter(line.before for line in lines)
        ends = Counter(line.after for line in lines)
        loose = starts - ends
        for line in lines if loose.total() > 1 else ():
            if loose[line.before]:
                self.wrong.append(f"line {line.number}: no line ends with the balance that it starts from")
        opening, closing = (self._said(name) for name in ("opening", "closing"))
        moved = sum((line.after - line.before for line in lines), Decimal(0))
        if opening is not None and closing is not None and opening + moved != closing:
            self.wrong.append(f"the lines come to {moved}, and opening and closing balance say {closing - opening}")

    def _said(self, name: str) -> Decimal | None:
        if name not in self.about:
            return None
        try:
            return _decimal(self.about[name], f"{name} balance")
        except ValueError as error:
            self.wrong.append(str(error))
            return None


def _decimal(text: str, what: str) -> Decimal:
    """`-1,300.00`. Raises `ValueError`."""
    try:
        value = Decimal(text.replace(",", ""))
    except InvalidOperation:
        raise ValueError(f"its {what} is no number") from None
    if not value.is_finite():
        raise ValueError(f"its {what} is no number")
    return value
