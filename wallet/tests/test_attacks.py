"""Somebody with SQL in hand, as the user that PenPay runs as and as a privileged one, against the ledger.

Each attack is refused by the database, and nothing has moved; or it gets through, and then `verify_ledger` exits 1 and
names the first row that is wrong. Edits that keep every sum are the matter of the seals and not of this suite.
"""

import json
import re
from contextlib import contextmanager

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection

from shared_kernel.domain.ports import AuditRecord
from shared_kernel.infrastructure import append_only
from shared_kernel.infrastructure.append_only import as_owner
from shared_kernel.infrastructure.persistence import DjangoAuditLog, new_id
from shared_kernel.tests.users import SWITCHES, TWO_USERS
from wallet.facade import ledger
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerAccount, LedgerBalance, LedgerEntry
from wallet.tests.factories import AT, DERIV, MPESA, SUSPENSE, a_customer, held, kes, post, receive, send, usd

pytestmark = pytest.mark.django_db(transaction=True)
MYSQL = connection.vendor == "mysql"
USERS = ["runtime", "privileged"] if TWO_USERS else ["the only one"]
SWITCHED_OFF, SWITCHED_ON = SWITCHES[connection.vendor, 0], SWITCHES[connection.vendor, 1]


@pytest.fixture
def books(settings):
    """A sound ledger that no Transaction explains nor needs to: what an attack names of it, as literals of SQL."""
    if "payments" not in settings.INSTALLED_APPS:
        pytest.skip("payments is not installed: the command is its")
    forget_accounts()
    customer = a_customer()
    post(
        lambda: ledger.post_opening(MPESA, kes(5000), reference="float", at=AT, provider_key="mpesa:opening"),
        lambda: ledger.post_opening(DERIV, usd(100), reference="float in dollars", at=AT),
        lambda: ledger.post_opening(SUSPENSE, kes(70), reference="wrong", at=AT),
        lambda: receive(None, customer, kes(1300)),
    )
    post(lambda: send(None, customer, kes(1300)))
    wrong = LedgerEntry.objects.get(reference="opening:wrong:1").id
    post(lambda: ledger.reverse([wrong], at=AT))
    first = LedgerEntry.objects.get(reference="opening:float:1")
    ids = {"mpesa": MPESA.id, "deriv": DERIV.id, "suspense": SUSPENSE.id, "held": held(customer).id}
    ids |= {"funding": first.credit_account_id, "first": first.id, "wrong": wrong}
    yield {name: f"X'{id.hex}'" for name, id in ids.items()} | {"seq": first.seq}
    append_only.install()


def entry(**changed):
    """SQL that inserts 1.00 KES from suspense to the M-Pesa account, but for what is changed."""
    row = {
        "id": f"X'{'f' * 32}'", "journal_id": f"X'{'e' * 32}'", "purpose": "'forged'", "debit_account_id": "{mpesa}",
        "credit_account_id": "{suspense}", "amount": "100", "currency": "'KES'", "reference": "'forged:1'",
        "effective_at": "'2026-11-02 09:30:00'", "recorded_at": "'2026-11-02 09:30:00'",
    } | changed  # fmt: skip
    return f"INSERT INTO ledger_entries ({', '.join(row)}) VALUES ({', '.join(row.values())})"


def back(of, amount="7000", **changed):
    """SQL that inserts a reversal of `of`, which is as the suspense's opening entry was."""
    mirrored = {"debit_account_id": "{suspense}", "credit_account_id": "{funding}", "amount": amount, "reverses": of}
    return entry(**mirrored | changed)


REFUSED = {
    "update an entry": "UPDATE ledger_entries SET amount = 1 WHERE seq = {seq}",
    "move an entry in time": "UPDATE ledger_entries SET effective_at = '2020-01-01 00:00:00'",
    "give an entry to another": "UPDATE ledger_entries SET credit_account_id = {suspense} WHERE seq = {seq}",
    "update nothing of an entry": "UPDATE ledger_entries SET seq = seq",
    "delete an entry": "DELETE FROM ledger_entries WHERE seq = {seq}",
    "delete all entries": "DELETE FROM ledger_entries",
    "replace an entry": "REPLACE INTO ledger_entries SELECT * FROM ledger_entries",
    "rename an account": "UPDATE ledger_accounts SET owner = 'mine' WHERE id = {mpesa}",
    "change an account's currency": "UPDATE ledger_accounts SET currency = 'USD' WHERE id = {mpesa}",
    "delete an account": "DELETE FROM ledger_accounts WHERE id = {mpesa}",
    "a second account of one name": (
        "INSERT INTO ledger_accounts (id, kind, currency, owner, opened_at) "
        f"SELECT X'{'a' * 32}', kind, currency, owner, opened_at FROM ledger_accounts WHERE id = {{mpesa}}"
    ),
    "update an audit row": "UPDATE audit_logs SET why = 'another reason'",
    "delete an audit row": "DELETE FROM audit_logs",
    "move nothing": entry(amount="0"),
    "move less than nothing": entry(amount="-100"),
    "move within one account": entry(credit_account_id="{mpesa}"),
    "dollars between accounts of shillings": entry(currency="'USD'"),
    "shillings out of an account of dollars": entry(credit_account_id="{deriv}"),
    "a currency that there is not": entry(currency="'EUR'"),
    "an account that there is not": entry(credit_account_id=f"X'{'c' * 32}'"),
    "overdraw a customer": "UPDATE ledger_balances SET credit_balance = -1 WHERE account_id = {held}",
    "overdraw slot 0": "INSERT INTO ledger_balances (account_id, slot, credit_balance) VALUES ({mpesa}, 0, -1)",
    "post one step twice": entry(reference="'opening:float:1'"),
    "post one movement twice": entry(provider_key="'mpesa:opening'"),
    "reverse an entry twice": back("{wrong}"),
    "reverse an entry that there is not": back(f"X'{'d' * 32}'"),
    "reverse for less": back("{first}", amount="499999", debit_account_id="{funding}", credit_account_id="{mpesa}"),
    "reverse the same way round": back("{first}", amount="500000", debit_account_id="{mpesa}"),
    "reverse to somebody else": back(
        "{first}", amount="500000", debit_account_id="{funding}", credit_account_id="{suspense}"
    ),
    "reverse itself": entry(reverses=f"X'{'f' * 32}'"),
}
UPSERT = {
    "mysql": entry(id="{first}") + " ON DUPLICATE KEY UPDATE amount = 1",
    "sqlite": entry(id="{first}") + " ON CONFLICT (id) DO UPDATE SET amount = 1",
}
REFUSED["upsert an entry"] = UPSERT[connection.vendor]

# What both users can do: found by which check, which names which row.
FORGED = r"ledger_entries \d+ \(forged:1\)"
UNKEPT = "ledger_balances [0-9a-f-]{36}"
FOUND = {
    "an entry without its balances": ([entry()], "balances", UNKEPT),
    "an entry that overdraws a customer": ([entry(debit_account_id="{held}")], "balances", UNKEPT),
    "a kept balance is raised": (
        ["UPDATE ledger_balances SET credit_balance = credit_balance - 100000 WHERE account_id = {mpesa}"],
        "balances",
        f"ledger_balances {MPESA.id}",
    ),
    "kept balances are exchanged": (
        [
            "UPDATE ledger_balances SET credit_balance = credit_balance + 500 WHERE account_id = {mpesa}",
            "UPDATE ledger_balances SET credit_balance = credit_balance - 500 WHERE account_id = {suspense}",
        ],
        "balances",
        UNKEPT,
    ),
    "a kept balance is deleted": (["DELETE FROM ledger_balances WHERE account_id = {deriv}"], "balances", UNKEPT),
    "a customer's money is put where it may be overdrawn": (
        ["INSERT INTO ledger_balances (account_id, slot, credit_balance) VALUES ({held}, 7, -500)"],
        "in_transit",
        "ledger_balances [0-9a-f-]{36} slot 7",
    ),
    "an account of a false id": (
        [
            "INSERT INTO ledger_accounts (id, kind, currency, owner, opened_at) "
            f"VALUES (X'{'a' * 32}', 'suspense', 'KES', 'mine', '2026-11-02 09:30:00')"
        ],
        "accounts",
        "ledger_accounts aaaaaaaa-.*",
    ),
    "an account of no known kind": (
        [
            "INSERT INTO ledger_accounts (id, kind, currency, owner, opened_at) "
            f"VALUES (X'{'a' * 32}', 'my_own', 'KES', '', '2026-11-02 09:30:00')"
        ],
        "accounts",
        "ledger_accounts aaaaaaaa-.*",
    ),
    # a session can switch off foreign keys, and checks on MariaDB and SQLite; never triggers
    "checks off: move less than nothing": ([*SWITCHED_OFF, entry(amount="-100"), *SWITCHED_ON], "entries", FORGED),
    "checks off: move within one account": (
        [*SWITCHED_OFF, entry(credit_account_id="{mpesa}"), *SWITCHED_ON],
        "entries",
        FORGED,
    ),
    "checks off: overdraw a customer": (
        [*SWITCHED_OFF, "UPDATE ledger_balances SET credit_balance = -1 WHERE account_id = {held}", *SWITCHED_ON],
        "in_transit",
        "ledger_balances [0-9a-f-]{36} slot 0",
    ),
}
KEYS_OFF = {
    "keys off: dollars between accounts of shillings": (
        [*SWITCHED_OFF, entry(currency="'USD'"), *SWITCHED_ON],
        "entries",
        FORGED,
    ),
    "keys off: an account that there is not": (
        [*SWITCHED_OFF, entry(credit_account_id=f"X'{'c' * 32}'"), *SWITCHED_ON],
        "entries",
        FORGED,
    ),
}

# What only a privileged user can do, who drops the refusals first; the runtime user is refused.
NO_TRIGGERS = [
    f"DROP TRIGGER ledger_{table}_no_{verb}" for table in ("entries", "accounts") for verb in ("update", "delete")
]
PRIVILEGED = {
    "drop a trigger": (["DROP TRIGGER ledger_entries_no_delete"], "guards", "ledger_entries_no_delete"),
    "edit an entry": (
        [*NO_TRIGGERS, "UPDATE ledger_entries SET amount = amount + 1 WHERE seq = {seq}"],
        "balances",
        UNKEPT,
    ),
    "delete the last entry": (
        [*NO_TRIGGERS, "DELETE FROM ledger_entries WHERE reverses IS NOT NULL"],
        "balances",
        UNKEPT,
    ),
    "give an account to another": (
        [*NO_TRIGGERS, "UPDATE ledger_accounts SET owner = 'mine' WHERE id = {deriv}"],
        "accounts",
        f"ledger_accounts {DERIV.id}",
    ),
    "an edited reversal": (
        [*NO_TRIGGERS, "UPDATE ledger_entries SET amount = 1 WHERE reverses IS NOT NULL"],
        "entries",
        r"ledger_entries \d+ \(reversal:.*:1\)",
    ),
}
TRUNCATED = {
    "truncate the entries": (["TRUNCATE TABLE ledger_entries"], "balances", UNKEPT),
    "drop a composite key": (
        ["ALTER TABLE ledger_entries DROP FOREIGN KEY ledger_debit_currency"],
        "guards",
        "ledger_debit_currency",
    ),
}


@pytest.mark.parametrize("who", USERS)
@pytest.mark.parametrize("attack", REFUSED)
def test_is_refused_and_nothing_moved(books, who, attack, capsys):
    post(lambda: DjangoAuditLog().append([AuditRecord("test.attacked", "ledger", str(new_id()), AT)]))
    before = everything()

    with as_user(who) as cursor, pytest.raises(DatabaseError):
        cursor.execute(REFUSED[attack].format(**books))

    assert everything() == before
    assert verified(capsys) == (0, [])


@pytest.mark.parametrize("who", USERS)
@pytest.mark.parametrize("attack", FOUND | (KEYS_OFF if MYSQL else {}))
def test_gets_through_and_is_found(books, who, attack, capsys):
    statements, check, row = (FOUND | KEYS_OFF)[attack]
    with as_user(who) as cursor:
        for sql in statements:
            cursor.execute(sql.format(**books))

    assert_found(verified(capsys), check, row)


@pytest.mark.skipif(MYSQL, reason="there a session can switch these off")
@pytest.mark.parametrize("attack", KEYS_OFF)
def test_what_triggers_look_up_on_sqlite_no_connection_can_switch_off(books, attack):
    statements, _, _ = KEYS_OFF[attack]
    forged = next(sql for sql in statements if sql.startswith("INSERT"))
    with connection.cursor() as cursor:
        for sql in SWITCHED_OFF:
            cursor.execute(sql)
        with pytest.raises(DatabaseError):
            cursor.execute(forged.format(**books))
        for sql in SWITCHED_ON:
            cursor.execute(sql)


@pytest.mark.parametrize("attack", PRIVILEGED | (TRUNCATED if MYSQL else {}))
def test_a_privileged_one_gets_through_and_is_found(books, attack, capsys):
    statements, check, row = (PRIVILEGED | TRUNCATED)[attack]
    with as_user("privileged") as cursor:
        for sql in statements:
            cursor.execute(sql.format(**books))
    told = verified(capsys)

    assert_found(told, check, row)
    append_only.install()


@pytest.mark.parametrize("attack", PRIVILEGED)
def test_triggers_that_were_put_back_hide_no_edit(books, attack, capsys):
    statements, check, _ = PRIVILEGED[attack]
    if check == "guards":
        pytest.skip("nothing is left of it")
    with as_user("privileged") as cursor:
        for sql in statements:
            cursor.execute(sql.format(**books))
    append_only.install()

    code, found = verified(capsys)

    assert code == 1
    assert [finding["check"] for finding in found][:1] == [check]
    assert "guards" not in [finding["check"] for finding in found]


@pytest.mark.skipif(not TWO_USERS, reason="one user does everything here")
@pytest.mark.parametrize("attack", PRIVILEGED | TRUNCATED)
def test_the_runtime_user_is_refused_what_a_privileged_one_can(books, attack, capsys):
    statements, _, _ = (PRIVILEGED | TRUNCATED)[attack]
    before = everything()

    for sql in statements:
        with as_user("runtime") as cursor, pytest.raises(DatabaseError):
            cursor.execute(sql.format(**books))

    assert everything() == before
    assert verified(capsys) == (0, [])


@contextmanager
def as_user(who):
    if who == "privileged":
        with as_owner() as owner, owner.cursor() as cursor:
            yield cursor
    else:
        with connection.cursor() as cursor:
            yield cursor


def everything():
    return [list(model.objects.order_by("pk").values_list()) for model in (LedgerEntry, LedgerAccount, LedgerBalance)]


def verified(capsys):
    """The exit code of `verify_ledger`, and what it found."""
    capsys.readouterr()
    code = 0
    try:
        call_command("verify_ledger", "--json")
    except SystemExit as stopped:
        code = int(str(stopped.code))
    return code, json.loads(capsys.readouterr().out)["findings"]


def assert_found(told, check, row):
    code, found = told
    assert code == 1
    named = [finding["row"] for finding in found if finding["check"] == check]
    assert len(named) >= 1, found
    assert re.fullmatch(row, named[0]), found
