"""Finance's reports as tables: the back-office shows them, a command prints them, both export them as XLSX."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import IO, Any
from uuid import UUID

from payments.facade import queries as payments, treasury
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.facade import Cell, audit, now, unit_of_work, write_workbook
from wallet.facade import (
    AccountBalance,
    AccountKind,
    HistoryRow,
    Side,
    accounts,
    history_with_balances,
    trial_balance,
    trial_balance_as_of,
    whole_history,
)

TOTAL = "total"
AVERAGE_COST = "average cost since the last close-out: customers' exchanges at middle rates, the bank's at its own"


MOST_ACCOUNTS = 500  # of one list, as `accounts` gives them


@dataclass(frozen=True)
class Report:
    """A table with the facts above it. `accounts` are those of its rows, where each row is one; `wrong` says what is
    wrong with it; `next` is where its next page begins.
    """

    name: str
    title: str
    facts: Sequence[tuple[str, Cell]]
    heads: Sequence[str]
    rows: Iterable[Sequence[Cell]]
    accounts: Sequence[UUID] = field(default=())
    wrong: str = ""
    next: int | None = None

    def json(self) -> dict[str, Any]:
        """Amounts as decimal strings, times as RFC 3339."""
        return {
            "report": self.name,
            "facts": {_key(name): _plain(value) for name, value in self.facts},
            "rows": [dict(zip(map(_key, self.heads), map(_plain, row), strict=True)) for row in self.rows],
            "wrong": self.wrong,
            "next": self.next,
        }


def trial_balance_report(*, currency: str = "", as_of: datetime | None = None) -> Report:
    """Balances by kind, and their sums, which have to be equal in each currency: the kept ones, or those that the
    entries booked up to and including `as_of` make.
    """
    there = trial_balance_as_of(as_of, by="recorded") if as_of else trial_balance()
    found = [row for row in there if currency in {"", row.currency}]
    rows: list[Sequence[Cell]] = []
    wrong = []
    for name in sorted({row.currency for row in found}):
        of_it = [row for row in found if row.currency == name]
        debit, credit = sum(row.debit for row in of_it), sum(row.credit for row in of_it)
        rows += [(row.kind, name, row.accounts, _amount(row.debit), _amount(row.credit)) for row in of_it]
        rows.append((TOTAL, name, sum(row.accounts for row in of_it), _amount(debit), _amount(credit)))
        wrong += [] if debit == credit else [f"{name}: debits and credits differ by {_amount(abs(debit - credit))}"]
    heads = ("kind", "currency", "accounts", "debit", "credit")
    return Report("trial_balance", "Trial balance", [("As of", as_of or now())], heads, rows, wrong="; ".join(wrong))


def accounts_report(*, kind: str = "", owner: str = "", currency: str = "") -> Report:
    """Accounts with their balances on their normal side."""
    found = accounts(kinds=[kind] if kind else [], owner=owner, currency=currency)
    facts: list[tuple[str, Cell]] = [("As of", now())]
    if len(found) >= MOST_ACCOUNTS:
        facts.append(("Only the first", f"{len(found)} accounts: narrow it by kind, owner or currency"))
    rows = [(a.kind, a.owner, a.currency, _side(a).value, _amount(_normal(a, a.credit_balance))) for a in found]
    heads = ("kind", "owner", "currency", "grows by", "balance")
    return Report("accounts", "Accounts", facts, heads, rows, accounts=[a.id for a in found])


def history_report(
    account: AccountBalance,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> Report:
    """An account's entries, newest first, with the balance after each; without `limit` all of them, as they are taken.

    Inside the `snapshot` in which the account was read. Entries are in the order of `seq`.
    """
    more: list[HistoryRow] = []
    if limit is None:
        rows: Iterable[HistoryRow] = whole_history(account, since=since, until=until)
    else:
        page = history_with_balances(account, before=before, since=since, until=until, limit=limit + 1)
        rows, more = page[:limit], page[limit:]
    return Report(
        "account",
        f"{account.kind} {account.owner} {account.currency}".replace("  ", " "),
        [
            ("Account", str(account.id)),
            ("Balance now", _amount(_normal(account, account.credit_balance))),
            ("Balances are", "debits less credits" if _side(account) is Side.DEBIT else "credits less debits"),
            *((name, at) for name, at in (("Booked from", since), ("Booked before", until)) if at),
        ],
        (
            "seq", "booked at", "purpose", "debit", "credit", "balance", "other account", "transaction",
            "effective at", "reference", "provider key",
        ),
        (_history_row(account, row) for row in rows),
        next=page[limit - 1].entry.seq if limit and more else None,
    )  # fmt: skip


def _history_row(account: AccountBalance, row: HistoryRow) -> Sequence[Cell]:
    entry, credited = row.entry, row.change > 0
    other = (entry.debit_kind, entry.debit_owner) if credited else (entry.credit_kind, entry.credit_owner)
    return (
        entry.seq,
        entry.recorded_at,
        entry.purpose,
        None if credited else _amount(entry.amount),
        _amount(entry.amount) if credited else None,
        _amount(_normal(account, row.balance)),
        " ".join(part for part in other if part),
        str(entry.transaction_id or ""),
        entry.effective_at,
        entry.reference,
        entry.provider_key,
    )


def fx_report() -> Report:
    """The position between shillings and dollars, valued at the middle rate that is valid now."""
    at = now()
    position = treasury.fx_position(at=at)
    shown: list[tuple[str, str, Cell]] = [
        ("open position (below zero: dollars to buy back)", "USD", position.open.decimal),
        ("cost of it (what it was bought for, or fetched)", "KES", position.cost.decimal),
        ("average rate of it", "KES/USD", _rate(position.average)),
        ("middle rate now", "KES/USD", _rate(position.mid)),
        ("value at the middle rate", "KES", _decimal(position.value)),
        ("unrealised gain or loss", "KES", _decimal(position.unrealised)),
        ("realised gain or loss", "KES", position.realised.decimal),
        ("of it booked as gain or loss", "KES", position.booked.decimal),
        ("of it still in the position", "KES", position.unbooked.decimal),
    ]
    facts: list[tuple[str, Cell]] = [("As of", at), ("Method", AVERAGE_COST)]
    if position.mid is None:
        facts.append(("Note", "no exchange rate is valid now: the open position is not valued"))
    return Report("fx_position", "FX position", facts, ("figure", "unit", "amount"), shown)


def floats_report() -> Report:
    """Our accounts at the providers: in the ledger, promised, what may still be promised, and what the provider said of
    them last.
    """
    found = payments.float_positions()
    low = [f"{f.account.kind} {f.account.owner}" for f in found if f.available < 0]
    drifting = [f"{f.account.kind} {f.account.owner}" for f in found if f.drifts_since]
    return Report(
        "float_positions",
        "Float positions",
        [("As of", now())],
        (
            "kind", "owner", "currency", "ledger", "reserved", "available", "at the provider", "seen at", "difference",
            "drifts since",
        ),
        [
            (
                f.account.kind, f.account.owner, f.account.currency,
                *map(_amount, (f.ledger, f.reserved, f.available)),
                None if f.seen is None else _amount(f.seen), f.seen_at,
                None if f.difference is None else _amount(f.difference), f.drifts_since,
            )
            for f in found
        ],
        accounts=[f.account.id for f in found],
        wrong="; ".join(
            f"{what}: {', '.join(where)}"
            for what, where in (("less than nothing is available", low), ("does not agree with the provider", drifting))
            if where
        ),
    )  # fmt: skip


def export(report: Report, file: IO[bytes]) -> int:
    """Writes it as XLSX, row by row; returns how many. Raises `SheetFull`."""
    return write_workbook(file, report.title, report.facts, report.heads, report.rows)


def note_export(report: Report, rows: int) -> None:
    """The audit row of a report that left the house."""
    about = {"title": report.title, "rows": rows} | {_key(name): _plain(value) for name, value in report.facts}
    with unit_of_work():
        audit.append([AuditRecord("finance.exported", "finance_report", report.name, now(), details=about)])


def _side(account: AccountBalance) -> Side:
    return AccountKind(account.kind).normal_side


def _normal(account: AccountBalance, credit_balance: int) -> int:
    return -credit_balance if _side(account) is Side.DEBIT else credit_balance


def _amount(cents: int) -> Decimal:
    """Both currencies have two decimals; sums may be more than one `Money` holds."""
    return Decimal(cents).scaleb(-Currency.KES.digits)


def _decimal(money: Money | None) -> Decimal | None:
    return None if money is None else money.decimal


def _rate(rate: Decimal | None) -> str | None:
    return None if rate is None else f"{rate.normalize():f}"


def _key(name: str) -> str:
    return name.lower().replace(" ", "_")


def _plain(cell: Cell) -> Any:
    match cell:
        case Decimal():
            return f"{cell:.2f}"
        case datetime():
            return cell.isoformat().replace("+00:00", "Z")
        case _:
            return cell
