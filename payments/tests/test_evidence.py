"""Evidence files of real stories: what they tell, what they never tell, and that an altered one is found."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from payments import models
from payments.domain.evidence import digest
from payments.domain.proposal import Decision
from payments.domain.transaction import TransactionStatus as S
from payments.facade import deposits, evidence, evidence_page
from payments.tests.factories import a_stored_deposit
from payments.tests.told import EMAIL, NAME, PHONE, Story, a_caller, a_told_deposit, a_told_withdrawal, decided
from payments.tests.withdrawing import V3
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.facade import sealing
from shared_kernel.infrastructure.persistence import new_id, now
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("open_for_business")]
User, MpesaRequest, MpesaCallback, DerivTransfer, LedgerEntry = map(
    apps.get_model,
    (
        "identity.User",
        "mpesa_integration.MpesaRequest",
        "mpesa_integration.MpesaCallback",
        "deriv_integration.DerivTransfer",
        "wallet.LedgerEntry",
    ),
)
server = pytest.mark.skipif(connection.vendor == "sqlite", reason="callbacks come in while steps run")
PASSWORD = "correct horse battery staple"


@pytest.fixture
def run(run_evidence):
    return run_evidence


def told(story: Story) -> dict[str, Any]:
    """The sections' rows."""
    made = evidence.tell(TransactionId(story.id), by="staff:auditor")
    return {name: one["rows"] for name, one in made["sections"].items()}


def happened(sections: dict[str, Any]) -> list[str]:
    return [row["what"] for row in sections["story"]]


def left_on(sections: dict[str, Any], kind: str) -> set[str]:
    return {row["left"] for row in sections["accounts"] if row["account"].startswith(kind)}


def in_order(words: list[str], *parts: str) -> bool:
    """Whether lines with these parts come one after the other."""
    rest = iter(words)
    return all(any(part in line for line in rest) for part in parts)


def is_on_disk() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


# --- what is told -----------------------------------------------------------------------------------------------------


@server
def test_a_deposit_is_told_from_the_order_to_the_ledger():
    story = a_told_deposit(a_caller())

    sections = told(story)

    [intent], [quote] = sections["intent"], sections["quote"]
    assert (intent["type"], intent["status"], intent["sends"], intent["gets"]) == (
        "deposit", "COMPLETED", "1300.00 KES", "9.85 USD",
    )  # fmt: skip
    assert intent["asked_by"] == f"user:{story.caller.id}"
    assert intent["device"]
    assert intent["device_platform"]
    assert intent["request"]
    assert quote["offered_rate"] == quote["locked_rate"]
    assert [step["after"] for step in sections["steps"]][-1] == "COMPLETED"
    assert [(row["provider"], row["leg"], row["status"]) for row in sections["requests"]] == [
        ("M-Pesa", "stk_push", "done"), ("Deriv ws_v3", "deriv_credit", "done"),
    ]  # fmt: skip
    assert left_on(sections, "customer_in_transit") == {"0.00 KES"}
    assert left_on(sections, "mpesa_working") == {"1300.00 KES Dr"}
    assert in_order(
        happened(sections), "quote offered", "status CREATED", "M-Pesa is asked: stk_push",
        "Deriv ws_v3 is asked: deriv_credit", "COMPLETED",
    )  # fmt: skip
    assert in_order(happened(sections), "stk_push", "posted deposit_received", "posted deposit_sent")
    times = [row["at"] for row in sections["story"]]
    assert times == sorted(times)


@server
def test_each_entry_shows_what_the_transaction_had_done_to_its_accounts_by_then():
    sections = told(a_told_deposit(a_caller()))

    first, *others = sections["entries"]
    assert (first["debit_stands_at"], first["credit_stands_at"]) == ("1300.00 KES Dr", "1300.00 KES Cr")
    spent = [row["debit_stands_at"] for row in others if row["debit"].startswith("customer_in_transit")]
    assert spent[-1] == "0.00 KES"
    assert len(sections["entries"]) == LedgerEntry.objects.exclude(transaction_id=None).count()


@server
def test_a_withdrawal_is_told_with_its_callbacks_as_they_came(at_deriv):
    story = a_told_withdrawal(a_caller(), at_deriv)

    sections = told(story)

    [claim] = [row for row in sections["messages"] if row["what"] == "callback, B2C result"]
    [row] = MpesaCallback.objects.filter(request__transaction_id=story.id, kind="b")
    assert claim["claimed"] == "1270.00 KES"
    assert claim["said"]["Result"]["ResultCode"] in {0, "0"}
    assert claim["receipt"] == row.receipt
    assert sections["intent"][0]["status"] == "COMPLETED"
    assert in_order(
        happened(sections), "deriv_debit", "posted withdrawal_debited", "b2c_payout", "callback, B2C result"
    )


@server
def test_dollars_that_go_back_are_told_with_the_entries_that_mirror(at_deriv, mpesa_simulator):
    mpesa_simulator.set_customer(PHONE, receives="unregistered")

    sections = told(a_told_withdrawal(a_caller(), at_deriv))

    assert sections["intent"][0]["status"] == "REVERSED"
    assert {row["leg"] for row in sections["requests"]} >= {"deriv_debit", "b2c_payout", "deriv_credit_back"}
    assert any(row["reverses"] for row in sections["entries"])
    assert left_on(sections, "fx_") | left_on(sections, "customer_in_transit") <= {"0.00 KES", "0.00 USD"}


@server
def test_shillings_that_go_back_are_told_with_deriv_s_refusal_and_the_reversal(at_deriv):
    caller = a_caller()
    at_deriv.simulator.bank.accounts["CR100001"].status.add("disabled")

    sections = told(a_told_deposit(caller))

    assert sections["intent"][0]["status"] == "REFUNDED"
    assert "reversal" in {row["leg"] for row in sections["requests"]}
    assert {row["left"] for row in sections["accounts"]} <= {"0.00 KES"}


@server
def test_what_people_decided_is_told_with_both_of_them_and_why(at_deriv):
    at_deriv.arm("lost_answer_before_effect")
    at_deriv.arm("drop_socket_after_effect", call="statement")
    story = shown(a_caller())
    [transfer] = DerivTransfer.objects.filter(transaction_id=story.id)
    given = {"type": "deposit", "decision": Decision.HAD_NO_EFFECT, "request_id": transfer.id}
    models.Proposal.objects.create(
        id=new_id(), transaction_id=story.id, by="staff:1", why="not in the book", at=now(), rejected_by="staff:2",
        rejected_at=now(), **given,
    )  # fmt: skip

    decided(story, decision=Decision.TOOK_EFFECT, request_id=transfer.id, reference="445566778899")
    deposits.hold(TransactionId(story.id), owner="mlro", why="a court asks")
    sections = told(story)

    [turned_down, decision] = sections["decisions"]
    assert (turned_down["approved_by"], turned_down["rejected_by"]) == ("nobody", "staff:2")
    assert (decision["by"], decision["approved_by"], decision["why"]) == ("mary", "john", "seen in the portal")
    assert decision["evidence"] == "445566778899"
    assert [row["why"] for row in sections["holds"]] == ["a court asks"]
    assert in_order(happened(sections), "NEEDS_ATTENTION", "took_effect proposed", "took_effect approved", "held")


def shown(caller: Any) -> Story:
    """A deposit whose transfer nobody knows the outcome of, before a person."""
    story = a_told_deposit(caller, S.DERIV_TRANSFER_SENT)
    with deposits.unit_of_work():
        stuck = deposits.one(TransactionId(story.id))
        stuck.need_attention("transfer_unknown", at=deposits.clock())
        deposits.save([stuck], ())
    return story


# --- what is never told -----------------------------------------------------------------------------------------------


@server
@pytest.mark.parametrize("job", [a_told_deposit, a_told_withdrawal])
def test_no_secret_and_nothing_personal_is_in_a_masked_file(job, at_deriv, run):
    caller = a_caller()
    story = job(caller, *([at_deriv] if job is a_told_withdrawal else []))
    plant_secrets(story)

    run(story.id, "--out", "f.html")
    _, whole = run(story.id)

    for text in (unescape(Path("f.html").read_text()), json.dumps(whole, ensure_ascii=False)):
        personal = [PHONE, PHONE[3:], PHONE[4:], EMAIL, NAME, *NAME.split(), V3.account, "JANE", "0712 345 678"]
        for private in (*personal, *SECRETS, *story.secrets.values()):
            assert private not in text, private
        assert "+2547****5678" in text


SECRETS = (
    "canary-token",
    "Bearer canarycanarycanary",
    "4711-canary",
    "canary-otp",
    "canary-pin",
    "a1-canaryCANARYcanary1",
)


def plant_secrets(story: Story) -> None:
    """What a provider, a member of staff or a bug may have left in the rows."""
    said = {
        "token": "canary-token", "Password": "canary-token", "verification_code": "4711-canary", "echo_req": {
            "authorize": "canary-token", "verification_code": "4711-canary", "description": f"for {NAME}"},
        "ResultDesc": f"sent to {PHONE} ({NAME}), Bearer canarycanarycanary, a1-canaryCANARYcanary1",
        "ReferenceData": {"ReferenceItem": {"Key": "QueueTimeoutURL", "Value": "https://x.example/cb/bt/canary-token"}},
        "Initiator": {"SecurityCredential": "canary-token", "PIN": "canary-pin", "otp": "canary-otp"},
        "ResultParameters": {"ResultParameter": [
            {"Key": "ReceiverPartyPublicName", "Value": f"{PHONE} - {NAME}"},
            {"Key": "ReceiptNo", "Value": "UKV7RT61SV"}, {"Key": "SomethingNew", "Value": NAME}]},
    }  # fmt: skip
    for request in MpesaRequest.objects.filter(transaction_id=story.id):
        request.answer = json.dumps(said)
        request.save()
    MpesaCallback.objects.create(
        id=new_id(), request=request, kind="s", received_at=request.created_at, last_received_at=request.created_at,
        peer="127.0.0.1", sha256="0" * 64, verdict="unreadable", body=f"not JSON, {NAME} {PHONE} canary-token",
        headers=json.dumps({"AUTHORIZATION": "canary-token", "USER_AGENT": "x", "X_CLIENT": "canary-token"}),
    )  # fmt: skip
    AuditLog.objects.create(
        action="transaction.noted", target_type="transaction", target_id=str(story.id), actor="staff:mary",
        why=f"{NAME} called from 0712 345 678 and said pin: canary-pin",
        details={"token": "canary-token", "note": [f"mail to {EMAIL}"]}, at=request.created_at,
    )  # fmt: skip


def a_member(name: str, *groups: str) -> Any:
    return User.objects.create_staff(name, f"{name}@example.org", PASSWORD, *groups)


def test_a_text_that_can_not_be_decrypted_is_told_as_such():
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE transactions SET phone = 'v1.gone.AAAA', deriv_account = 'v1.gone.AAAA'")

    [intent] = told(Story(deposit.id, None, {}))["intent"]  # type: ignore[arg-type]

    assert (intent["phone"], intent["deriv_account"]) == ("[cannot be decrypted]", "[cannot be decrypted]")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_new_complete_its_owner_s_and_in_the_audit_log(run):
    deposit = a_stored_deposit(S.COMPLETED)

    code, said = run(deposit.id, "--staff", "mary", "--why", "complaint 17", as_json=False)

    path = Path(f"evidence-{deposit.id}.html")
    text = path.read_text()
    made = evidence_page.document_of(text)
    last = AuditLog.objects.latest("seq")
    assert code == 0
    assert made["sha256"] in said
    assert path.stat().st_mode & 0o077 == 0
    assert is_on_disk() == [path.name]
    assert (last.action, last.target_id, last.actor, last.why) == (
        "evidence.told", str(deposit.id), "staff:mary", "complaint 17",
    )  # fmt: skip
    assert last.details["sha256"] == made["sha256"]
    assert all(digest(one["rows"]) == one["sha256"] for one in made["sections"].values())
    assert "http://" not in text
    assert "https://" not in text


def test_every_part_is_in_one_moment_and_takes_as_many_queries_for_long_stories_as_for_short_ones():
    short, long = a_stored_deposit(S.MPESA_CONFIRMED), a_stored_deposit(S.COMPLETED)

    counts = []
    for deposit, rows in ((short, 1), (long, 6)):
        for _ in range(rows):
            AuditLog.objects.create(action="a", target_type="transaction", target_id=str(deposit.id), at=now())
            for chain in ("ledger_entries", "audit_logs"):
                sealing.seal(chain, sealing.horizon(chain))
    for deposit in (short, long):
        with CaptureQueriesContext(connection) as seen:
            told(Story(deposit.id, None, {}))  # type: ignore[arg-type]
        counts.append(len(seen))

    assert counts[0] == counts[1]


def test_with_json_alone_the_document_is_printed_and_nothing_is_written(run):
    deposit = a_stored_deposit(S.COMPLETED)

    code, made = run(deposit.id)

    assert (code, made["transaction"], is_on_disk()) == (0, str(deposit.id), [])
    assert set(made["sections"]) >= {"story", "intent", "quote", "steps", "messages", "entries", "decisions", "audit"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a TRANSACTION"),
        (["12"], "not understood"),
        ([new_id()], "no such Transaction"),
        (["{id}", "--check", "f"], "name a TRANSACTION"),
        (["{id}", "--out", "there.html"], "there already"),
        (["{id}", "--out", "none/f.html"], "cannot be written to"),
        (["{id}", "--out", "."], "there already"),
        (["--check", "none"], "cannot be read"),
        (["--check", "."], "cannot be read"),
        (["--check", "there.html"], "no evidence file"),
        (["--check", "binary"], "not UTF-8"),
    ],
)
def test_what_can_not_be_done_says_why_with_two_and_leaves_nothing(run, words, said):
    deposit = a_stored_deposit(S.COMPLETED)
    Path("there.html").write_text("kept")
    Path("binary").write_bytes(b"\xff\xfe")

    code, answer = run(*(str(word).replace("{id}", str(deposit.id)) for word in words))

    assert code == 2
    assert said in answer["error"]
    assert is_on_disk() == ["binary", "there.html"]
    assert Path("there.html").read_text() == "kept"
    assert not AuditLog.objects.filter(action="evidence.told").exists()


def test_a_disk_that_is_full_leaves_no_half_a_file(run, monkeypatch):
    deposit = a_stored_deposit(S.COMPLETED)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    code, answer = run(deposit.id, "--out", "f.html")

    assert (code, is_on_disk()) == (2, [])
    assert "No space left" in answer["error"]


def test_where_there_are_no_links_the_file_gets_its_name_all_the_same(run, monkeypatch):
    def none(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", none)
    code, _ = run(a_stored_deposit(S.COMPLETED).id, "--out", "f.html")

    assert (code, is_on_disk()) == (0, ["f.html"])


# --- a file that somebody holds ---------------------------------------------------------------------------------------


def the_file(run: Any) -> tuple[Path, dict[str, Any]]:
    path = Path("f.html")
    run(a_stored_deposit(S.COMPLETED).id, "--out", path)
    return path, evidence_page.document_of(path.read_text())


def test_a_file_as_it_was_made_passes(run):
    path, _ = the_file(run)

    code, answer = run("--check", path)

    assert (code, answer["ok"], answer["findings"]) == (0, True, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("<dd>1300.00 KES</dd>", "<dd>1301.00 KES</dd>"), ["the page does not say"]),
        (lambda text: text.replace('"sends": "1300.00 KES"', '"sends": "1.00 KES"'), ["section intent", "the page"]),
        (
            lambda text: text.replace('"personal_data": "masked"', '"personal_data": "x"'),
            ["the document was", "the page"],
        ),
        (lambda text: text + "<p>more</p>", ["the page does not say"]),
    ],
)
def test_a_file_that_was_altered_is_found(run, change, said):
    path, _ = the_file(run)
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before

    code, answer = run("--check", path)

    assert (code, answer["ok"]) == (1, False)
    assert [any(part in finding for finding in answer["findings"]) for part in said] == [True] * len(said)


def test_a_forged_file_whose_hashes_all_fit_is_unknown_to_the_audit_log(run):
    path, made = the_file(run)
    rows = made["sections"]["intent"]["rows"]
    rows[0]["sends"] = "9999.00 KES"
    made["sections"]["intent"]["sha256"] = digest(rows)
    head = {name: value for name, value in made.items() if name not in {"sections", "sha256"}}
    hashes = {name: one["sha256"] for name, one in made["sections"].items()}
    path.write_text(evidence_page.page(made | {"sha256": digest(head | {"sections": hashes})}))

    code, answer = run("--check", path)

    assert (code, answer["findings"]) == (1, ["the audit log knows of no such document"])


def test_what_customers_and_staff_write_is_text_on_the_page_and_never_markup(run):
    deposit = a_stored_deposit(S.COMPLETED)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"

    run(deposit.id, "--out", "f.html", "--why", evil)

    text = Path("f.html").read_text()
    assert "<script>" not in text
    assert "<img" not in text
    assert text.count("</script>") == 1
    assert evidence_page.document_of(text)["why"] == evil


# --- the back-office --------------------------------------------------------------------------------------------------


def a_browser(*groups: str, name: str = "mary", **over: Any) -> Client:
    member = a_member(name, *groups)
    for name, value in over.items():
        setattr(member, name, value)
    member.save()
    return signed_in(member)


@pytest.mark.parametrize("group", ["auditor", "compliance manager", "finance"])
def test_who_may_sees_the_page_downloads_the_same_and_each_look_is_audited(group):
    deposit, browser = a_stored_deposit(S.COMPLETED), a_browser(group)
    url = f"/admin/payments/transaction/{deposit.id}/evidence/"

    shown, loaded = browser.get(url), browser.get(url + "download/")

    assert (shown.status_code, loaded.status_code) == (200, 200)
    assert shown["Content-Type"].startswith("text/html")
    assert "style-src 'sha256-" in shown["Content-Security-Policy"]
    assert loaded["Content-Disposition"] == f'attachment; filename="evidence-{deposit.id}.html"'
    assert all("no-store" in answer["Cache-Control"] for answer in (shown, loaded))
    assert PHONE not in shown.content.decode()
    hashes = [evidence_page.document_of(answer.content.decode())["sha256"] for answer in (shown, loaded)]
    looks = AuditLog.objects.filter(action="evidence.told").order_by("seq")
    assert [look.details["sha256"] for look in looks] == hashes
    assert {look.actor for look in looks} == {f"staff:{User.objects.get(username='mary').pk}"}


@pytest.mark.parametrize("groups", [[], ["support"], ["ops"], ["compliance officer"]])
def test_who_may_not_see_it_is_refused_and_told_nothing(groups):
    deposit, browser = a_stored_deposit(S.COMPLETED), a_browser(*groups)

    for end in ("", "download/"):
        answer = browser.get(f"/admin/payments/transaction/{deposit.id}/evidence/{end}")
        assert answer.status_code == 403
    assert not AuditLog.objects.filter(action="evidence.told").exists()


def test_a_story_that_is_longer_than_a_file_tells_is_said_to_be_so_and_nothing_is_told(monkeypatch):
    monkeypatch.setattr("payments.infrastructure.evidence.MOST_ENTRIES", 1)
    deposit = a_stored_deposit(S.COMPLETED)
    account, other = (
        LedgerEntry.debit_account.field.related_model.objects.create(
            id=new_id(), kind=kind, currency="KES", owner="", opened_at=now()
        )
        for kind in ("suspense", "margin")
    )
    LedgerEntry.objects.create(
        id=new_id(), journal_id=new_id(), purpose="excess", debit_account=account, credit_account=other, amount=1,
        currency="KES", transaction_id=deposit.id, reference="r", effective_at=now(), recorded_at=now(),
    )  # fmt: skip

    for end in ("", "download/"):
        answer = a_browser("finance", name=f"mary{end}").get(f"/admin/payments/transaction/{deposit.id}/evidence/{end}")
        assert (answer.status_code, answer["Content-Type"]) == (422, "text/plain")
        assert f"{deposit.id} has 1 ledger entries or more" in answer.content.decode()
    assert not AuditLog.objects.filter(action="evidence.told").exists()


def test_a_file_of_the_version_before_is_still_held_against_its_hashes(run):
    path, made = the_file(run)
    sections = {name: one for name, one in made["sections"].items() if name not in {"seals", "breaks"}}
    head = {name: value for name, value in made.items() if name not in {"sections", "sha256"}} | {"version": 1}
    whole = digest(head | {"sections": {name: one["sha256"] for name, one in sections.items()}})
    path.write_text(evidence_page.page(head | {"sections": sections, "sha256": whole}))

    assert run("--check", path)[1]["findings"] == ["the audit log knows of no such document"]


def test_strangers_and_customers_are_sent_to_sign_in_and_nothing_is_changed_here():
    deposit = a_stored_deposit(S.COMPLETED)
    url = f"/admin/payments/transaction/{deposit.id}/evidence/"

    assert Client(headers={"Host": "localhost"}).get(url).status_code == 302
    assert a_browser("finance", name="jane", is_staff=False).get(url).status_code == 302
    browser = a_browser("finance")
    assert [browser.post(url).status_code, browser.put(url).status_code] == [405, 405]
    assert browser.get(f"/admin/payments/transaction/{new_id()}/evidence/").status_code == 404
    assert browser.get("/admin/payments/transaction/12/evidence/").status_code in {302, 404}
