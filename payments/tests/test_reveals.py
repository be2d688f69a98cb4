"""Evidence with personal data in clear: asked for by one, approved by another, given once."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import unescape
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, IntegrityError, connection, transaction

from payments.domain.transaction import TransactionStatus as S
from payments.facade import evidence, evidence_page
from payments.models import Reveal
from payments.tests.factories import a_stored_deposit
from payments.tests.test_evidence import (
    PASSWORD,
    SECRETS,
    User,
    a_browser,
    a_member,
    is_on_disk,
    plant_secrets,
    server,
)
from payments.tests.told import NAME, PHONE, a_caller, a_told_deposit
from shared_kernel.domain.four_eyes import AlreadyUsed, ConsentExpired, NotApproved, SamePerson
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("open_for_business")]
WHY = "court order 12"


@pytest.fixture
def run(run_evidence):
    return run_evidence


def mlro(name: str) -> Any:
    return a_member(name, "compliance manager")


def approve(browser: Any, reveal: Any) -> Any:
    return browser.post(f"/admin/payments/reveal/{reveal}/approve/")


def asked_by(member: Any, deposit: Any) -> Any:
    return evidence.ask(deposit.id, by=f"staff:{member.pk}", why=WHY)


def told() -> int:
    return AuditLog.objects.filter(action="evidence.told").count()


@server
def test_it_is_given_once_to_who_asked_when_another_one_approved_and_tells_no_secret():
    story = a_told_deposit(a_caller())
    plant_secrets(story)
    one, other = (a_browser("compliance manager", name=name) for name in ("wanjiru", "otieno"))
    page, take = (f"/admin/payments/reveal/{what}/{story.id}/" for what in ("ask", "take"))
    one.post(page, {"why": WHY})
    asked = Reveal.objects.get()

    assert b"second person" in one.post(take).content
    assert approve(other, asked.pk).status_code == 302
    assert b"ask for it first" in other.post(take).content
    assert told() == 0
    taken = one.post(take)

    text = unescape(taken.content.decode())
    assert NAME in text
    assert f"+{PHONE}" in text
    for secret in (*SECRETS, *story.secrets.values()):
        assert secret not in text, secret
    first, second = (f"staff:{User.objects.get(username=name).pk}" for name in ("wanjiru", "otieno"))
    last = AuditLog.objects.get(action="evidence.told")
    assert (last.why, last.details["by"], last.details["approved_by"]) == (WHY, first, second)
    assert last.details["reveal"] == str(asked.pk)
    assert b"good for once" in one.post(take).content


@pytest.mark.parametrize("word", ["--ask", "--unmasked"])
def test_a_name_that_is_typed_at_a_shell_neither_asks_nor_takes(run, word):
    """Not even what a signed-in person asked for and another one approved, by who types that person's name."""
    deposit, member = a_stored_deposit(S.COMPLETED), mlro("wanjiru")
    evidence.approve(asked_by(member, deposit).id, by="staff:2")

    code, answer = run(deposit.id, word, "--staff", "wanjiru", "--why", WHY, "--out", "f.html")

    assert (code, is_on_disk()) == (2, [])
    assert f"/admin/payments/reveal/ask/{deposit.id}/" in answer["error"]
    assert (Reveal.objects.count(), told()) == (1, 0)


def test_who_asks_does_not_approve_in_service_page_and_database():
    deposit, member = a_stored_deposit(S.COMPLETED), mlro("wanjiru")
    asked = asked_by(member, deposit)

    with pytest.raises(SamePerson):
        evidence.approve(asked.id, by=asked.by)
    assert b"somebody else has to approve" in approve(signed_in(member), asked.id).content
    wrongs: list[dict[str, Any]] = [{"approved_by": asked.by}, {"used_at": asked.at}]
    for wrong in wrongs:
        with pytest.raises(IntegrityError), transaction.atomic():
            Reveal.objects.filter(pk=asked.id).update(**wrong)
    with pytest.raises(NotApproved):
        evidence.reveal(deposit.id, by=asked.by)
    assert told() == 0


def test_a_superuser_is_one_person_too():
    boss = User.objects.create_superuser("boss", "boss@example.org", PASSWORD)
    asked = asked_by(boss, a_stored_deposit(S.COMPLETED))

    assert b"somebody else has to approve" in approve(signed_in(boss), asked.id).content


def test_what_was_asked_for_can_not_be_rewritten_nor_removed():
    asked = asked_by(mlro("wanjiru"), a_stored_deposit(S.COMPLETED))

    for change in ({"why": "another"}, {"by": "staff:9"}):
        with pytest.raises(DatabaseError), transaction.atomic():
            Reveal.objects.filter(pk=asked.id).update(**change)
    with pytest.raises(DatabaseError), transaction.atomic():
        Reveal.objects.filter(pk=asked.id).delete()


@pytest.mark.parametrize("late", ["to approve", "to take"])
def test_an_approval_is_not_good_for_long(late):
    deposit = a_stored_deposit(S.COMPLETED)
    asked = asked_by(mlro("wanjiru"), deposit)
    if late == "to take":
        evidence.approve(asked.id, by="staff:2")

    act = (
        partial(evidence.reveal, deposit.id, by=asked.by)
        if late == "to take"
        else partial(evidence.approve, asked.id, by="staff:2")
    )
    with time_machine.travel(asked.expires_at), pytest.raises(ConsentExpired):
        act()
    assert told() == 0


@server
def test_of_many_who_take_it_at_once_one_gets_it():
    deposit = a_stored_deposit(S.COMPLETED)
    asked = asked_by(mlro("wanjiru"), deposit)
    evidence.approve(asked.id, by="staff:2")

    def take(_: int) -> str:
        try:
            evidence.reveal(deposit.id, by=asked.by)
        except AlreadyUsed:
            return "used"
        finally:
            connection.close()
        return "taken"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == ["taken", "used", "used", "used"]
    assert told() == 1


def test_in_the_back_office_it_is_asked_for_approved_and_taken_once():
    deposit = a_stored_deposit(S.COMPLETED)
    one, other = (a_browser("compliance manager", "auditor", name=name) for name in ("one", "other"))
    auditor = a_browser("auditor", name="reader")
    ask, take = (f"/admin/payments/reveal/{what}/{deposit.id}/" for what in ("ask", "take"))

    assert ask in one.get(f"/admin/payments/transaction/{deposit.id}/change/").content.decode()
    assert [auditor.post(url, {"why": "so"}).status_code for url in (ask, take)] == [403, 403]
    assert b"This field is required" in one.post(ask, {"why": ""}).content
    page = one.post(ask, {"why": WHY})["Location"]
    [row] = Reveal.objects.all()
    assert f"/admin/payments/reveal/{row.pk}/approve/" in other.get(page).content.decode()
    assert WHY in other.get(f"/admin/payments/reveal/{row.pk}/approve/").content.decode()
    assert approve(auditor, row.pk).status_code == 403
    assert b"second person" in one.post(take).content
    assert approve(other, row.pk).status_code == 302
    assert take in one.get(page).content.decode()
    assert b"ask for it first" in other.post(take).content
    assert one.get(take).status_code == 200  # to look at the page uses nothing up
    assert told() == 0

    taken, again = one.post(take), one.post(take)

    made = evidence_page.document_of(taken.content.decode())
    assert (made["personal_data"], made["why"]) == ("in clear", WHY)
    assert "no-store" in taken["Cache-Control"]
    assert b"good for once" in again.content
    row.refresh_from_db()
    actions = AuditLog.objects.filter(target_id=str(deposit.id), action__startswith="evidence").order_by("seq")
    assert list(actions.values_list("action", "actor")) == [
        ("evidence.reveal_asked", row.by), ("evidence.reveal_approved", row.approved_by), ("evidence.told", row.by),
    ]  # fmt: skip
