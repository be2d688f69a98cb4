"""An anchor that was lost, restored or contradicted is begun anew by two people, and every check tells of it."""

import json
import shutil
from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from shared_kernel import models
from shared_kernel.application import sealing as logic
from shared_kernel.application.continuing import AnchorChanged, NothingToContinue
from shared_kernel.domain.four_eyes import AlreadyUsed, NotApproved, SamePerson
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.seals import AnchorBroken, SealsContradictAnchor
from shared_kernel.facade import audit, chain_check, continuing, sealing, unit_of_work
from shared_kernel.tests.staff import signed_in
from shared_kernel.tests.tampering import execute, faults, no_refusals, rewrite, seal, seals_of

pytestmark = pytest.mark.django_db(transaction=True)
CHAIN = "audit_logs"
WHY = "the disk of the worker was lost, no copy is left"


@pytest.fixture
def run(capsys):
    """Runs it with `--json`; its exit code and the object that it printed."""

    def run(*words, command="continue_anchor", chain=(CHAIN,)):
        code: int | str | None = 0
        try:
            call_command(command, *chain, *words, "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(autouse=True)
def _small_seals(monkeypatch):
    monkeypatch.setattr(logic, "ROWS", 2)


def append(count):
    with unit_of_work():
        audit.append(AuditRecord("a", "t", str(number), timezone.now()) for number in range(count))


def sealed(count=3):
    """So many seals of two rows each, anchored."""
    append(2 * count)
    assert seal(CHAIN) == count


def member(name, *groups):
    user = get_user_model().objects.create_staff(name, f"{name}@example.org", "a long enough password", *groups)
    return signed_in(user)


def ops():
    return member("otieno", "ops")


def mlro():
    return member("wanjiru", "compliance manager")


def lines_of(anchor, name="audit_logs.seals"):
    return (anchor / name).read_bytes().splitlines(keepends=True)


def decide(client, name):
    row = models.AnchorContinuation.objects.latest("at")
    return client.post(reverse(f"admin:shared_kernel_anchorcontinuation_{name}", args=[row.pk]))


def adopt(client):
    return decide(client, "adopt")


def approve(client):
    return decide(client, "approve")


def asked_by(by):
    """A draft that somebody has made theirs."""
    drafted = continuing.draft(CHAIN, drafted_by="otieno@host", why=WHY)
    continuing.adopt(drafted.id, by=by)
    return drafted


def lose(anchor):
    (anchor / "audit_logs.seals").unlink()


def cut(anchor):
    kept = lines_of(anchor)[:2]
    (anchor / "audit_logs.seals").write_bytes(b"".join(kept))


def restore_database(anchor):
    """To where it was before its last seal."""
    execute(
        ("DELETE FROM audit_logs WHERE seq > %s", seals_of(CHAIN)[-2].last_seq),
        ("DELETE FROM seals WHERE chain = %s AND number >= 4", CHAIN),
    )


def empty_database(anchor):
    execute(("DELETE FROM audit_logs",), ("DELETE FROM seals WHERE chain = %s", CHAIN))


def seals_made_anew(anchor):
    execute(("UPDATE audit_logs SET actor = 'me' WHERE seq = %s", seals_of(CHAIN)[1].first_seq))
    rewrite(CHAIN, 2)


def damage(anchor):
    file = anchor / "audit_logs.seals"
    file.write_text(file.read_text().replace('"rows": 2', '"rows": 3'))


DAMAGES = [lose, cut, restore_database, empty_database, seals_made_anew, damage]


@pytest.mark.parametrize("what", DAMAGES, ids=lambda what: what.__name__)
def test_two_people_begin_the_anchor_anew_and_sealing_goes_on_with_the_new_start_told_for_ever(run, anchor, what):
    sealed(4)
    asker, checker = ops(), mlro()
    with no_refusals(CHAIN):
        what(anchor)
    old = {path.name: path.read_bytes() for path in anchor.iterdir()}
    head = seals_of(CHAIN)[-1].number if seals_of(CHAIN) else 0

    seen = run()
    drafted = run("--why", WHY)
    waits = run()
    asked = adopt(asker)
    approved = approve(checker)
    begun = run()

    assert (seen[0], seen[1]["did"], seen[1]["ends"]["number"]) == (1, "nothing", head)
    assert seen[1]["found"]
    assert (drafted[0], drafted[1]["did"], drafted[1]["asked"]["by"]) == (1, "drafted", "")
    assert "@" in drafted[1]["asked"]["drafted_by"]
    assert (waits[0], waits[1]["did"]) == (1, "waits")
    assert (asked.status_code, approved.status_code) == (302, 302)
    assert (begun[0], begun[1]["did"]) == (0, "begun")
    append(3)
    assert seal(CHAIN)
    report = chain_check.check(CHAIN)
    assert report.faults == []
    [told] = report.new_starts
    assert (told.generation, told.number, told.why) == (2, head, WHY)
    assert told.by != told.approved_by
    assert seen[1]["found"] == told.found
    code, verified = run(command="verify_audit", chain=())
    assert (code, [one["why"] for one in verified["new_starts"]]) == (0, [WHY])
    assert {name: (anchor / name).read_bytes() for name in old} == old  # what was there stays
    actions = models.AuditLog.objects.filter(target_type="anchor", target_id=CHAIN).order_by("seq")
    assert list(actions.values_list("action", flat=True)) == [
        "anchor.continuation_drafted", "anchor.continuation_asked", "anchor.continuation_approved", "anchor.continued",
    ]  # fmt: skip
    assert run()[1]["did"] == "nothing"


def begin_anew(run, asker, checker, why=WHY):
    run("--why", why)
    adopt(asker)
    approve(checker)
    assert run()[1]["did"] == "begun"


def test_what_is_changed_before_the_new_start_afterwards_is_found_and_so_is_what_is_changed_behind_it(run, anchor):
    sealed(3)
    asker, checker = ops(), mlro()
    lose(anchor)
    begin_anew(run, asker, checker)
    sealed_behind = seals_of(CHAIN)[-1].number
    append(4)
    seal(CHAIN)

    with no_refusals(CHAIN):
        for number in (2, sealed_behind + 1):
            row = seals_of(CHAIN)[number - 1].first_seq
            execute(("UPDATE audit_logs SET target_id = '99' WHERE seq = %s", row))
            assert [name for name, _ in faults(CHAIN)] == [f"audit_logs {row}"]
            rewrite(CHAIN, number)  # the whole chain behind it, too
            assert "the anchor has another hash" in faults(CHAIN)[0][1]
            with pytest.raises(SealsContradictAnchor):
                seal(CHAIN)
            return  # one is enough: the chain is lost


def test_a_second_new_start_tells_of_both_also_where_the_database_has_lost_the_first(run, anchor):
    sealed(2)
    asker, checker = ops(), mlro()
    lose(anchor)
    begin_anew(run, asker, checker, "first")
    append(2)
    seal(CHAIN)
    with no_refusals(CHAIN, "anchor_continuations"):
        execute(("DELETE FROM anchor_continuations",))
        execute(("DELETE FROM seals WHERE chain = %s AND number = %s", CHAIN, seals_of(CHAIN)[-1].number))

    begin_anew(run, asker, checker, "second")

    assert [(one.generation, one.why) for one in chain_check.check(CHAIN).new_starts] == [(2, "first"), (3, "second")]
    assert sorted(path.name for path in anchor.iterdir()) == ["audit_logs.2.seals", "audit_logs.3.seals"]
    append(1)
    seal(CHAIN)
    assert faults(CHAIN) == []


def test_who_asks_does_not_approve_in_service_page_and_database(run, anchor):
    sealed()
    both = member("otieno", "ops", "compliance manager")
    lose(anchor)
    run("--why", WHY)
    assert adopt(both).status_code == 302
    [row] = models.AnchorContinuation.objects.all()

    with pytest.raises(SamePerson):
        continuing.approve(row.pk, by=row.by)
    assert b"somebody else has to approve" in approve(both).content
    with pytest.raises(IntegrityError), transaction.atomic():
        models.AnchorContinuation.objects.filter(pk=row.pk).update(approved_by=row.by)
    with pytest.raises(IntegrityError), transaction.atomic():
        models.AnchorContinuation.objects.filter(pk=row.pk).update(used_at=timezone.now())

    assert run()[1]["did"] == "waits"
    assert not (anchor / "audit_logs.2.seals").exists()


def test_a_superuser_is_one_person_too(run, anchor):
    sealed()
    boss = get_user_model().objects.create_superuser("boss", "boss@example.org", "a long enough password")
    client = signed_in(boss)
    lose(anchor)
    run("--why", WHY)
    adopt(client)

    assert b"somebody else has to approve" in approve(client).content


def test_who_has_not_the_right_neither_asks_nor_approves(run, anchor):
    sealed()
    finance, asker, checker = member("mary", "finance"), ops(), mlro()
    lose(anchor)

    run("--why", WHY)
    assert [adopt(client).status_code for client in (finance, checker)] == [403, 403]
    assert adopt(asker).status_code == 302
    assert [approve(client).status_code for client in (finance, asker)] == [403, 403]
    assert run()[1]["did"] == "waits"
    assert not (anchor / "audit_logs.2.seals").exists()


def test_what_is_typed_at_a_shell_is_nobodys_word_until_somebody_who_is_signed_in_asks_for_it(run, anchor):
    """Whoever is named there: one person at a shell and in the back-office would have been two."""
    sealed()
    asker, checker = ops(), mlro()
    lose(anchor)

    run("--why", WHY, "--staff", "otieno")
    [row] = models.AnchorContinuation.objects.all()
    assert (row.by, "@" in row.drafted_by) == ("", True)
    assert b"has to make it theirs first" in approve(checker).content
    for wrong in ({"approved_by": "staff:1"}, {"approved_by": "staff:1", "used_at": timezone.now()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            models.AnchorContinuation.objects.filter(pk=row.pk).update(**wrong)
    assert run()[1]["did"] == "waits"
    page = reverse("admin:shared_kernel_anchorcontinuation_change", args=[row.pk])
    assert b"adopt/" in asker.get(page).content
    assert WHY in asker.get(f"{page[:-7]}adopt/").content.decode()
    assert adopt(asker).status_code == 302
    assert b"asks for it already" in adopt(asker).content
    row.refresh_from_db()
    with pytest.raises(DatabaseError), transaction.atomic():
        models.AnchorContinuation.objects.filter(pk=row.pk).update(by="staff:99")
    assert b"approve/" in checker.get(page).content
    assert approve(checker).status_code == 302
    assert run()[1]["did"] == "begun"


def test_a_draft_that_nobody_has_made_theirs_may_be_drafted_anew_and_runs_out(run, anchor):
    sealed()
    asker = ops()
    lose(anchor)
    run("--why", "a typing error")

    assert run("--why", WHY)[1]["did"] == "drafted"
    with time_machine.travel(timezone.now() + timedelta(days=3)):
        assert b"ask anew" in adopt(member("achieng", "ops")).content  # no session of before is left by then
    assert adopt(asker).status_code == 302
    code, said = run("--why", "once more")
    assert (code, "has asked for it already" in said["error"]) == (2, True)


def test_a_dry_run_changes_nothing(run, anchor):
    sealed()
    asker, checker = ops(), mlro()
    lose(anchor)

    assert run("--why", WHY, "--dry-run")[1]["did"] == "nothing"
    assert not models.AnchorContinuation.objects.exists()
    run("--why", WHY)
    adopt(asker)
    approve(checker)
    assert run("--dry-run")[1]["did"] == "nothing"
    assert not (anchor / "audit_logs.2.seals").exists()


def test_where_all_is_well_there_is_nothing_to_continue(run, anchor):
    sealed()
    ops()

    assert run("--why", WHY) == (
        0, {"ok": True, "chain": CHAIN, "did": "nothing", "ends": None, "found": "", "asked": None}
    )  # fmt: skip
    assert not models.AnchorContinuation.objects.exists()


def test_an_approval_is_for_what_was_found_then_and_not_for_long(run, anchor):
    sealed(4)
    asker, checker = ops(), mlro()
    kept = lines_of(anchor)
    lose(anchor)
    run("--why", WHY)
    adopt(asker)
    approve(checker)
    (anchor / "audit_logs.seals").write_bytes(b"".join(kept[:2]))

    code, said = run()
    assert (code, said["did"], said["asked"]) == (1, "nothing", None)
    lose(anchor)
    with time_machine.travel(timezone.now() + timedelta(days=4)):
        assert run()[1]["asked"] is None
    assert run()[1]["did"] == "begun"


def test_the_service_itself_begins_nothing_else_than_what_was_approved_and_that_once(anchor):
    sealed(4)
    kept = lines_of(anchor)
    lose(anchor)
    asked = asked_by("staff:1")
    with pytest.raises(NotApproved):
        continuing.begin(asked, by="staff:1")
    continuing.approve(asked.id, by="staff:2")
    (anchor / "audit_logs.seals").write_bytes(b"".join(kept[:2]))

    with pytest.raises(AnchorChanged):
        continuing.begin(asked, by="staff:1")
    assert not (anchor / "audit_logs.2.seals").exists()
    assert not models.AuditLog.objects.filter(action="anchor.continued").exists()
    lose(anchor)
    continuing.begin(asked, by="staff:1")
    with pytest.raises(AlreadyUsed):
        continuing.begin(asked, by="staff:1")
    with pytest.raises(NothingToContinue):
        continuing.draft(CHAIN, drafted_by="otieno@host", why=WHY)
    assert len(lines_of(anchor, "audit_logs.2.seals")) == 1


def test_while_a_worker_seals_nothing_is_begun(anchor):
    sealed()
    lose(anchor)
    asked = asked_by("staff:1")
    continuing.approve(asked.id, by="staff:2")
    assert sealing.leases.acquire(f"sealing.{CHAIN}", "another", timedelta(minutes=1))

    with pytest.raises(AnchorChanged, match="worked on at this moment"):
        continuing.begin(asked, by="staff:1")

    assert not (anchor / "audit_logs.2.seals").exists()


def test_a_crash_between_the_audit_row_and_the_new_anchor_is_finished_by_running_it_again(run, anchor, monkeypatch):
    sealed()
    asker, checker = ops(), mlro()
    lose(anchor)
    run("--why", WHY)
    adopt(asker)
    approve(checker)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shared_kernel.infrastructure.anchor.FileAnchor._write", dies)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert (anchor / "audit_logs.2.seals").read_bytes() == b""
    with pytest.raises(SealsContradictAnchor):
        seal(CHAIN)

    assert run()[1]["did"] == "begun"
    assert models.AuditLog.objects.filter(action="anchor.continued").count() == 1
    append(1)
    assert seal(CHAIN) >= 1
    assert faults(CHAIN) == []


@pytest.mark.parametrize("field", ["number", "hash", "generation", "new_starts", "chain", "mac"])
def test_the_record_in_the_anchor_can_not_be_changed_without_its_key(run, anchor, field):
    sealed()
    asker, checker = ops(), mlro()
    lose(anchor)
    begin_anew(run, asker, checker)
    file = anchor / "audit_logs.2.seals"
    first, *others = file.read_text().splitlines()
    line = json.loads(first)
    line[field] = [] if field == "new_starts" else line[field] + 1 if isinstance(line[field], int) else "f" * 64
    file.write_text("\n".join([json.dumps(line), *others]) + "\n")

    assert [name for name, _ in faults(CHAIN)][-1] == f"anchor {CHAIN}"
    with pytest.raises(AnchorBroken):
        seal(CHAIN)


def test_a_new_anchor_that_is_taken_away_is_missed(run, anchor):
    sealed(4)
    kept = lines_of(anchor)[:1]
    asker, checker = ops(), mlro()
    cut(anchor)
    begin_anew(run, asker, checker)
    (anchor / "audit_logs.2.seals").unlink()
    (anchor / "audit_logs.seals").write_bytes(b"".join(kept))

    assert faults(CHAIN)
    with pytest.raises(SealsContradictAnchor):
        seal(CHAIN)


def test_an_anchor_out_of_reach_is_told_as_that(run, anchor, settings, tmp_path):
    sealed()
    ops()
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    (tmp_path / "file").touch()
    settings.SEAL_ANCHOR = str(tmp_path / "file")

    code, said = run("--why", WHY)

    assert (code, "SEAL_ANCHOR" in said["error"]) == (2, True)
