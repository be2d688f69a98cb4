"""Three books item by item, at the real simulators: each planted difference is found by its name, and nothing else."""

import json
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from django.core.management import call_command

from deriv_integration.facade import deriv
from mpesa_integration.facade import mpesa
from payments import facade, models
from payments.application.reconciliation import Day, Reconciliation
from payments.domain.reconciliation import NothingToPost
from payments.domain.transaction import TransactionStatus as S
from payments.facade import reconciliation
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, usd
from payments.tests.test_recovery import pays_the_paybill, prompted, status_of, suspense
from payments.tests.withdrawing import REST
from shared_kernel.domain.outcome import Unreadable
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, Leg, RequestStatus
from shared_kernel.infrastructure.persistence import now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import ledger, verify_ledger

pytestmark = pytest.mark.django_db(transaction=True)
EAT = timedelta(hours=3)
LATER = timedelta(hours=1)  # by then all that moves in a test has settled


@dataclass(frozen=True)
class AroundNow(Reconciliation):
    """Whatever a test moves is of the day that is asked for, at midnight as well."""

    def day(self, date):
        return Day(now() - timedelta(hours=12), now() + timedelta(minutes=40))


@pytest.fixture
def later(mpesa_simulator, deriv_at_simulator, monkeypatch):
    """Both providers, an hour from now."""
    from payments.management.commands import reconcile

    a_float()

    def clock():
        return now() + LATER

    monkeypatch.setattr(facade, "recovery", replace(facade.recovery, clock=clock))
    monkeypatch.setattr(reconcile, "reconciliation", AroundNow(**vars(reconciliation) | {"clock": clock}))
    return SimpleNamespace(mpesa=mpesa_simulator, deriv=deriv_at_simulator, bank=deriv_at_simulator.simulator.bank)


@pytest.fixture
def run(capsys):
    """`manage.py reconcile` with `--json`: its exit code, and the object that it printed."""

    def run(provider, *words):
        code: int | str | None = 0
        try:
            call_command("reconcile", provider, "--date", "2026-11-20", *map(str, words), "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return run


def counts(told, account=AGENT):
    [found] = [run for run in told["runs"] if run["account"] == account]
    return {name: number for name, number in found["counts"].items() if number}


def kinds():
    rows = models.ReconciliationBreak.objects.filter(status__in=["open", "proposed"])
    return sorted(rows.values_list("kind", flat=True))


def sent(login=None, agent=AGENT):
    """A deposit whose transfer Deriv booked and the ledger posted: itself, and Deriv's entry."""
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    transfer = deriv.new_transfer(
        deposit.id, Leg.DERIV_CREDIT, 1, login or deposit.login, agent, deposit.payout, at=now()
    )
    with unit_of_work():
        deriv.record([transfer])
    entry = deriv.send(transfer, give_up_at=time.monotonic() + 5).reference
    transfer.status, transfer.provider_transaction_id = RequestStatus.DONE, entry
    split = deposit.rate.split_deposit(deposit.amount)
    with unit_of_work():
        deriv.save([transfer])
        ledger.post_deposit_sent(
            deposit.id, deposit.user_id, split, deposit.payout, agent=agent, provider_key=f"deriv:{agent}:{entry}",
            at=now(),
        )  # fmt: skip
        models.Transaction.objects.filter(pk=deposit.id).update(
            status=S.COMPLETED, outflow="payout", deriv_transfer_id=entry, next_step_at=None, agent=agent
        )
    return deposit, entry


def paid_and_posted(*, receipt=True):
    """A deposit paid by prompt, proven, and posted under its attempt's id; its receipt may not have been learnt."""
    deposit = a_stored_deposit(S.CREATED)
    prompt = prompted(deposit)
    payments = mpesa.received(SHORTCODE, now() - LATER, now() + LATER)
    assert not isinstance(payments, Unreadable)
    prompt.status, prompt.receipt = RequestStatus.DONE, payments[-1].receipt if receipt else ""
    with unit_of_work():
        mpesa.save([prompt])
        ledger.post_deposit_received(
            deposit.id, deposit.user_id, deposit.amount, shortcode=SHORTCODE,
            provider_key=f"mpesa:{SHORTCODE}:{prompt.id}", at=now(),
        )  # fmt: skip
        models.Transaction.objects.filter(pk=deposit.id).update(
            status=S.MPESA_CONFIRMED, next_step_at=None, confirmed_at=now()
        )
    return deposit, payments[-1].receipt


# --- nothing planted, nothing found -----------------------------------------------------------------------------------


def test_books_that_agree_have_no_break_and_the_exit_code_is_0(later, run):
    sent()

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (0, {"matched": 1})
    assert kinds() == []
    report = models.ReconciliationRun.objects.get()
    assert (report.provider, report.matched, report.still_open) == ("deriv", 1, 0)
    assert AuditLog.objects.filter(action="reconciliation.run").count() == 1


def test_a_payment_that_is_in_the_ledger_by_its_attempt_is_matched_by_its_receipt(later, run):
    paid_and_posted()

    code, told = run("mpesa")

    assert (code, counts(told, SHORTCODE)) == (0, {"matched": 1})


def test_a_payment_that_the_query_alone_had_proven_is_matched_by_reference_and_amount(later, run):
    paid_and_posted(receipt=False)

    assert counts(run("mpesa")[1], SHORTCODE) == {"matched": 1}


# --- each difference by its name --------------------------------------------------------------------------------------


def test_what_only_deriv_shows_is_missing_here_opened_once_and_closes_by_itself(later, run):
    sent()
    later.bank.enter(later.bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)

    first, second = run("deriv", "--account", AGENT), run("deriv", "--account", AGENT)

    assert first[0] == second[0] == 1
    assert counts(first[1]) == counts(second[1]) == {"matched": 1, "missing_here": 1}
    [found] = models.ReconciliationBreak.objects.all()
    assert (found.kind, found.theirs, found.ours, found.owner) == ("missing_here", 25_00, None, "finance")
    facade.recovery.find_orphans()  # posts it to suspense, as it does within the hour

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (0, {"matched": 2})
    found.refresh_from_db()
    assert (found.status, found.resolved_by) == ("matched", "")
    assert AuditLog.objects.filter(action="reconciliation.break_matched", target_id=str(found.id)).count() == 1


def test_what_recovery_put_into_suspense_is_matched_and_not_doubled(later, run):
    pays_the_paybill(later.mpesa, 700, "school fees")
    facade.recovery.find_orphans()

    assert counts(run("mpesa")[1], SHORTCODE) == {"matched": 1}
    assert suspense("KES") == 700_00


def test_an_unexplained_payment_is_missing_here(later, run):
    pays_the_paybill(later.mpesa, 700, "school fees")

    code, told = run("mpesa")

    assert (code, counts(told, SHORTCODE), kinds()) == (1, {"missing_here": 1}, ["missing_here"])


def test_what_only_the_ledger_holds_is_missing_there(later, run):
    _, entry = sent()
    later.deriv.arm("statement_gap", "statement")

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (1, {"missing_there": 1})
    [found] = models.ReconciliationBreak.objects.all()
    assert found.known_as == entry
    later.deriv.simulator.faults.clear()
    assert run("deriv", "--account", AGENT)[0] == 0


def test_another_amount_here_than_there_is_named_with_both(later, run):
    entry = later.bank.enter(later.bank.accounts[AGENT], -5_00, "withdrawal", "Fee", None)
    with unit_of_work():
        ledger.post_suspense_out("deriv_agent", AGENT, usd(4_00), provider_key=f"deriv:{AGENT}:{entry.id}", at=now())

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (1, {"different_amount": 1})
    [found] = models.ReconciliationBreak.objects.all()
    assert (found.theirs, found.ours) == (-5_00, -4_00)


def test_a_transfer_that_deriv_takes_back_is_reverted_posted_by_its_saga_once_and_no_orphan(later, run):
    deposit, entry = sent()
    assert run("deriv", "--account", AGENT)[0] == 0
    later.bank.revert(later.bank.by_entry[int(entry)])
    facade.recovery.find_orphans()  # leaves it to its saga
    assert suspense("USD") == 0

    first, second = run("deriv", "--account", AGENT), run("deriv", "--account", AGENT)

    assert (first[0], counts(first[1])) == (1, {"matched": 1, "reverted": 1})
    assert status_of(deposit) == S.REFUND_PENDING
    assert (second[0], counts(second[1])) == (0, {"matched": 2})
    facade.recovery.find_orphans()
    assert suspense("USD") == 0
    assert not verify_ledger(lambda *_: None).findings


def test_what_deriv_takes_back_of_an_orphan_returns_it_and_stays_no_break(later, run):
    bank = later.bank
    entry = bank.enter(bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)
    with unit_of_work():
        key = f"deriv:{AGENT}:{entry.id}"
        ledger.post_suspense_in("deriv_agent", AGENT, usd(25_00), provider_key=key, at=now())
    back = bank.enter(bank.accounts[AGENT], -25_00, "withdrawal", f"Reversal of {entry.id}", None)
    assert run("deriv", "--account", AGENT)[0] == 1
    assert kinds() == ["reverted"]
    asked = facade.Settle(
        name=key, kind=facade.SettlementKind.RETURNED, by="staff:1", why="Deriv took it back", movement=str(back.id)
    )

    facade.suspense.approve(facade.suspense.propose(asked), by="staff:2")

    assert (suspense("USD"), kinds()) == (0, [])
    code, told = run("deriv", "--account", AGENT)
    assert (code, counts(told)) == (0, {"matched": 2})
    facade.recovery.find_orphans()
    assert suspense("USD") == 0


def test_what_our_prompt_was_paid_with_is_never_a_persons_to_post(later, run):
    """The saga posts it under the attempt's own key, which would not refuse it once more."""
    deposit = a_stored_deposit(S.CREATED)
    prompted(deposit)

    code, told = run("mpesa")

    assert (code, counts(told, SHORTCODE)) == (1, {"missing_here": 1})
    [found] = models.ReconciliationBreak.objects.all()
    with pytest.raises(NothingToPost, match=str(deposit.id)):
        facade.breaks.resolve(found.id, facade.Resolution.INTO_SUSPENSE, by="staff:1", why="nobody's")
    assert suspense("KES") == 0


def test_a_part_that_comes_back_is_not_the_transfer_taken_back(later, run):
    deposit, entry = sent()
    later.bank.enter(later.bank.accounts[AGENT], 3_00, "adjustment", f"Reversal of {entry}", None)

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (1, {"matched": 1, "missing_here": 1})
    assert (status_of(deposit), kinds()) == (S.COMPLETED, ["missing_here"])


def test_a_file_alone_opens_no_payment_anew(later, run, tmp_path):
    """Somebody gave it: what Deriv took back is shown, and acted upon once Deriv itself says so."""
    deposit, entry = sent()
    dollars, at = deposit.payout.decimal, f"{now():%Y-%m-%d %H:%M:%S}"
    file = tmp_path / "deriv.csv"
    file.write_text(
        f"Login ID,{AGENT}\nRef. ID,Transaction time,Description,Credit/Debit,Balance,Currency\n"
        f"{entry},{at},Transfer,-{dollars},{1000 - dollars},USD\n"
        f"{int(entry) + 1},{at},Reversal of {entry},{dollars},1000.00,USD\n"
    )

    code, told = run("deriv", "--file", file)

    assert (code, counts(told)) == (1, {"matched": 1, "reverted": 1})
    assert (status_of(deposit), kinds()) == (S.COMPLETED, ["reverted"])


def test_a_transfer_that_deriv_takes_back_on_rest_is_found_by_its_entrys_status(later, run):
    a_float(agent=REST.agent)
    deposit, entry = sent(DerivLogin(DerivPlatform.REST, REST.account), REST.agent)
    assert counts(run("deriv", "--account", REST.agent)[1], REST.agent) == {"matched": 1}
    later.bank.revert(later.bank.by_entry[int(entry)])

    told = [run("deriv", "--account", REST.agent)[1] for _ in range(2)]

    assert [counts(one, REST.agent) for one in told] == [{"matched": 1, "reverted": 1}, {"matched": 2}]
    assert status_of(deposit) == S.REFUND_PENDING


def test_an_attempt_that_is_open_past_its_time_is_overdue_until_it_ends(later, run):
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    at = now() - timedelta(hours=30)
    transfer = deriv.new_transfer(deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, AGENT, deposit.payout, at=at)
    with unit_of_work():
        deriv.record([transfer])

    code, _ = run("deriv", "--account", AGENT)

    assert (code, kinds()) == (1, ["overdue"])
    [found] = models.ReconciliationBreak.objects.all()
    assert (found.known_as, found.owner, found.transaction_id) == (f"attempt {transfer.id}", "ops", deposit.id)
    transfer.status = RequestStatus.CLOSED
    with unit_of_work():
        deriv.save([transfer])
    assert run("deriv", "--account", AGENT)[0] == 0


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_dry_run_finds_the_same_and_stores_nothing(later, run):
    later.bank.enter(later.bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)

    code, told = run("deriv", "--account", AGENT, "--dry-run")

    assert (code, counts(told)) == (1, {"missing_here": 1})
    assert not models.ReconciliationBreak.objects.exists()
    assert not models.ReconciliationRun.objects.exists()
    assert not AuditLog.objects.filter(action__startswith="reconciliation").exists()


def test_a_run_that_dies_before_its_commit_leaves_nothing_and_the_next_one_finds_all(later, run, monkeypatch):
    later.bank.enter(later.bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)

    def dies(self, report):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(reconciliation.breaks), "report", dies)
        with pytest.raises(KeyboardInterrupt):
            call_command("reconcile", "deriv", "--date", (now() + EAT).date().isoformat(), "--account", AGENT)
    assert not models.ReconciliationBreak.objects.exists()

    assert counts(run("deriv", "--account", AGENT)[1]) == {"missing_here": 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("equity", "--date", "2026-11-20"), "PROVIDER"),
        (("deriv", "--date", "yesterday"), "--date"),
        (("deriv", "--date", "2199-01-01"), "has not begun"),
        (("deriv", "--date", "2026-11-20", "--account", "CR1"), "no agent of ours"),
        (("mpesa", "--date", "2026-11-20", "--account", "999999"), "no shortcode of ours"),
        (("mpesa", "--date", "2020-01-01"), "--file"),
        (("deriv", "--date", "9999-12-31"), "give a day that is over"),
        (("mpesa", "--date", "2026-11-20", "--file", "nowhere.csv"), "can't be read"),
    ],
)
def test_what_cannot_run_says_what_to_do_and_ends_with_2(capsys, words, says):
    with pytest.raises(SystemExit) as ended:
        call_command("reconcile", *words, "--json")

    assert ended.value.code == 2
    assert says in json.loads(capsys.readouterr().out)["error"]
    assert not models.ReconciliationRun.objects.exists()


def test_a_book_that_cannot_be_read_ends_with_2_and_nothing_is_stored(later, run, settings):
    settings.MPESA_BASE_URL = "http://127.0.0.1:9"

    code, told = run("mpesa")

    assert code == 2
    assert "could not be read" in told["error"]
    assert not models.ReconciliationRun.objects.exists()


def test_the_nightly_task_reads_every_book_and_one_that_fails_stops_no_other(later, settings):
    from payments.workers import reconcile

    settings.MPESA_BASE_URL = "http://127.0.0.1:9"

    told = reconcile()

    assert told[SHORTCODE] == -1
    assert told[AGENT] == 0


# --- faults armed in the simulators, as the control side does ---------------------------------------------------------


def test_two_bookings_of_one_transfer_are_one_match_and_one_that_is_missing_here(later, run):
    later.deriv.arm("double_booking")
    _, entry = sent()

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (1, {"matched": 1, "missing_here": 1})
    assert models.ReconciliationBreak.objects.get().known_as != entry


def test_a_transfer_whose_answer_was_lost_is_missing_here_until_its_saga_posts_it(later, run):
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    transfer = deriv.new_transfer(deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, AGENT, deposit.payout, at=now())
    with unit_of_work():
        deriv.record([transfer])
    later.deriv.arm("drop_socket_after_effect")
    deriv.send(transfer, give_up_at=time.monotonic() + 5)

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (1, {"missing_here": 1})
    assert models.ReconciliationBreak.objects.get().theirs == -deposit.payout.amount


def test_a_transfer_that_is_reverted_later_is_found_on_the_day_after(later, run):
    later.deriv.arm("reverted_later", after_s=0.5)
    deposit, _ = sent()
    time.sleep(1)

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told)) == (1, {"matched": 1, "reverted": 1})
    assert status_of(deposit) == S.REFUND_PENDING


def test_what_rests_wallet_hides_is_missing_there_until_it_is_shown(later, run):
    a_float(agent=REST.agent)
    later.deriv.arm("hidden_in_wallet", "transfer", platform="rest", after_s=2)
    sent(DerivLogin(DerivPlatform.REST, REST.account), REST.agent)

    first = run("deriv", "--account", REST.agent)
    time.sleep(2.5)
    second = run("deriv", "--account", REST.agent)

    assert (first[0], counts(first[1], REST.agent)) == (1, {"missing_there": 1})
    assert (second[0], counts(second[1], REST.agent), kinds()) == (0, {"matched": 1}, [])


def test_a_payment_of_which_nothing_was_heard_is_missing_here(later, run):
    deposit = a_stored_deposit(S.CREATED)
    prompted(deposit)

    code, told = run("mpesa")

    assert (code, counts(told, SHORTCODE)) == (1, {"missing_here": 1})


def test_a_break_that_comes_back_is_the_old_one_open_again_but_not_one_that_a_person_explained(later, run):
    sent()
    later.deriv.arm("statement_gap", "statement")
    run("deriv", "--account", AGENT)
    later.deriv.simulator.faults.clear()
    run("deriv", "--account", AGENT)
    later.deriv.arm("statement_gap", "statement")

    assert run("deriv", "--account", AGENT)[1]["runs"][0]["opened"] == 1
    [found] = models.ReconciliationBreak.objects.all()
    assert (found.status, found.closed_at) == ("open", None)
    facade.breaks.resolve(found.id, facade.Resolution.EXPLAINED, by="staff:1", why="known gap")

    code, told = run("deriv", "--account", AGENT)

    assert (code, counts(told), told["runs"][0]["opened"]) == (0, {"missing_there": 1}, 0)


def test_m_pesa_booked_another_amount_than_was_posted(later, run):
    order = {"call": "stk_push", "fault": "wrong_amount", "amount": "1250", "in_books": True}
    httpx.post(f"{later.mpesa.base_url}/_control/faults", json=order).raise_for_status()
    paid_and_posted()

    code, told = run("mpesa")

    assert (code, counts(told, SHORTCODE)) == (1, {"different_amount": 1})
    found = models.ReconciliationBreak.objects.get()
    assert (found.theirs, found.ours) == (1250_00, 1300_00)


def test_a_payment_that_m_pesa_took_back_and_told_nobody_is_found_in_its_statement(later, run, tmp_path):
    order = {"call": "stk_push", "fault": "reverted_later", "after_s": 0.1}
    httpx.post(f"{later.mpesa.base_url}/_control/faults", json=order).raise_for_status()
    deposit, receipt = paid_and_posted()
    time.sleep(0.5)
    file = tmp_path / "statement.csv"
    file.write_text(statement_of(later.mpesa))

    code, told = run("mpesa", "--file", file)

    assert (code, counts(told, SHORTCODE)) == (1, {"matched": 1, "reverted": 1})
    assert models.ReconciliationBreak.objects.get().known_as == f"{receipt}:reverted"
    assert status_of(deposit) == S.REFUNDED


def statement_of(simulator):
    """What M-Pesa's own books say of our working account, in the form that is assumed."""
    lines, balance = [], 0
    for moved in httpx.get(f"{simulator.base_url}/_control/books").json():
        came = moved["to"].startswith(f"{SHORTCODE}/")
        amount = round(float(moved["amount"]))
        balance += amount if came else -amount
        at = datetime.fromisoformat(moved["at"]) + EAT
        about, linked = ("Pay Bill", "") if came else ("Pay Bill Reversal", moved["reverses"])
        sums = f"{amount},," if came else f",-{amount},"
        lines.append(f"{moved['id']},{at:%Y-%m-%d %H:%M:%S},{about},Completed,{sums}{balance},{linked}")
    heads = "Receipt No.,Completion Time,Details,Transaction Status,Paid In,Withdrawn,Balance,Linked Transaction ID"
    return "\n".join([f"Short Code:,{SHORTCODE}", "Account:,Working Account", heads, *lines, ""])
