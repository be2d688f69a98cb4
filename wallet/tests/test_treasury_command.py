"""manage.py treasury: what waits and what is late; a draft that is nobody's; and no decision by whoever has a shell."""

import json
from datetime import timedelta

import pytest
import time_machine
from django.core.management import CommandError, call_command

from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.domain.ledger import AccountKind
from wallet.domain.treasury import Kind
from wallet.facade import house, ledger, mpesa_utility, treasury_movements
from wallet.models import LedgerEntry, TreasuryMovement
from wallet.tests.factories import AT, kes
from wallet.tests.treasuring import B2C, JOHN, MARY, approved, proposed, today

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(capsys):
    def run(*words):
        code: int | str | None = 0
        try:
            call_command("treasury", *words, "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return run


def words(**over):
    given = {
        "amount": "5000.00", "from": f"mpesa_utility:{B2C}", "reference": "UKM0000001", "day": today().isoformat(),
        "why": "swept",
    } | over  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", value)]


def test_the_list_tells_what_waits_and_what_is_in_transit_with_its_age(run):
    waiting, sent = proposed(), approved(Kind.TOP_UP_AGENT)

    with time_machine.travel(now() + timedelta(days=3, minutes=1)):
        code, told = run("list")

    assert (code, told["ok"]) == (0, True)
    assert [(row["id"], row["status"], row["days"]) for row in told["movements"]] == [
        (str(waiting), "proposed", 3),
        (str(sent), "in_transit", 3),
    ]
    assert told["movements"][1]["amount"] == {"amount": "500.00", "currency": "USD"}
    assert told["cash_in_transit"] == [{"currency": "USD", "ledger": "500.00", "movements": "500.00"}]


def test_what_is_on_its_way_for_too_long_makes_the_exit_code_1(run):
    sent = approved()
    proposed()

    with time_machine.travel(now() + timedelta(days=5, minutes=1)):
        code, told = run("list")

    assert (code, told["late"]) == (1, [str(sent)])


def test_cash_in_transit_that_no_movement_explains_makes_the_exit_code_1(run):
    line = house(AccountKind.CASH_IN_TRANSIT, kes(1).currency), mpesa_utility(B2C), kes(1)
    with unit_of_work():
        ledger._post("test", [line], None, str(new_id()), at=AT)

    code, told = run("list")

    assert (code, told["cash_in_transit"]) == (1, [{"currency": "KES", "ledger": "1.00", "movements": "0.00"}])


def test_what_is_proposed_from_a_shell_is_a_draft_whatever_name_is_typed(run):
    code, told = run("propose", "settlement", *words(), "--staff", "1")

    row = TreasuryMovement.objects.get()
    assert (code, told["id"], told["status"]) == (0, str(row.id), "draft")
    assert (row.status, row.by) == ("draft", "")
    assert row.drafted_by
    assert str(row.id) in told["page"]
    assert AuditLog.objects.get().actor == "staff:1"
    treasury_movements.adopt(row.id, by=MARY)
    treasury_movements.approve(row.id, by=JOHN)
    assert LedgerEntry.objects.get().provider_key == f"mpesa:{B2C}:UKM0000001"


def test_a_dry_run_checks_and_stores_nothing(run):
    code, told = run("propose", "settlement", *words(), "--dry-run")

    assert (code, told["id"], told["dry_run"]) == (0, None, True)
    assert not TreasuryMovement.objects.exists()
    assert not AuditLog.objects.exists()


@pytest.mark.parametrize("action", ["approve", "reject", "arrived"])
def test_nobody_decides_from_a_shell(run, action):
    id = proposed()

    code, told = run(action, str(id))

    assert code == 2
    assert "/admin/wallet/treasurymovement/" in told["error"]
    assert TreasuryMovement.objects.get().status == "proposed"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["launder", *words()], "KIND"),
        (["reversal", *words()], "on the page of what it reverses"),
        (["settlement", *words(amount="5,000")], "as in '1300.00'"),
        (["settlement", *words(currency="EUR")], "--currency"),
        (["settlement", *words(day="yesterday")], "--day"),
        (["settlement", *words(why="")], "say why"),
        (["settlement", *words(**{"from": "mpesa_utility:1"})], "none of ours"),
        (["fx_close_out", *words(**{"from": ""})], "give what is got for it"),
    ],
)
def test_what_is_wrong_ends_with_2_and_says_what_to_do(run, asked, says):
    code, told = run("propose", *asked)

    assert code == 2
    assert says in told["error"]
    assert not TreasuryMovement.objects.exists()


def test_people_read_lines(capsys):
    approved()

    call_command("treasury", "list")
    out = capsys.readouterr().out

    assert "cash in transit: 5000.00 KES" in out
    with pytest.raises(CommandError, match="signed in"):
        call_command("treasury", "approve", str(new_id()))
