"""The commands over the outbox, as staff type them."""

import json

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from shared_kernel import models
from shared_kernel.application.delivery import Subscriptions
from shared_kernel.domain.ports import Context
from shared_kernel.infrastructure.persistence import DjangoOutboxRepository, acting_as, new_id, unit_of_work
from shared_kernel.tests.subscribers import attention, callback

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(capsys):
    """Runs a command with `--json`; its exit code and the object that it printed."""

    def run(*words):
        code: int | str | None = 0
        try:
            call_command(words[0], *words[1:], "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return run


def an_event(event=None, **columns):
    with acting_as(Context("user:1")), unit_of_work():
        DjangoOutboxRepository().append([event or callback()])
    row = models.DomainEvent.objects.latest("seq")
    columns = {"published_at": timezone.now()} | columns
    models.DomainEvent.objects.filter(pk=row.pk).update(**columns)
    row.refresh_from_db()
    return row


def a_parked_event():
    return an_event(
        attention("poison"), parked_at=timezone.now(), attempts=9, error="Traceback ...\nPoisoned: cannot digest"
    )


def audited(action):
    return list(models.AuditLog.objects.filter(action=action).values_list("target_id", "actor", "why"))


def test_parked_events_are_listed_and_shown_with_their_traceback(run):
    parked = a_parked_event()
    an_event()

    code, listed = run("dead_letters", "list")
    shown_code, shown = run("dead_letters", "show", str(parked.id))

    assert (code, shown_code) == (0, 0)
    assert [(row["id"], row["error"]) for row in listed["dead_letters"]] == [
        (str(parked.id), "Poisoned: cannot digest")
    ]
    assert "Traceback" in shown["events"][0]["error"]
    assert shown["events"][0]["payload"]["reason"] == "poison"


def test_a_retried_event_waits_for_the_relay_with_all_its_retries_and_an_audit_row(run):
    parked = a_parked_event()

    code, done = run("dead_letters", "retry", str(parked.id), "--staff", "7")

    parked.refresh_from_db()
    assert (code, done["retried"]) == (0, [str(parked.id)])
    assert (parked.parked_at, parked.published_at, parked.attempts) == (None, None, 0)
    assert audited("event.retried") == [(str(parked.id), "staff:7", "")]


def test_all_parked_events_can_be_retried_at_once(run):
    for _ in range(3):
        a_parked_event()

    _, done = run("dead_letters", "retry", "all")

    assert len(done["retried"]) == 3
    assert run("dead_letters", "list") == (0, {"dead_letters": []})


def test_a_discarded_event_keeps_its_reason_is_listed_no_more_and_can_be_retried_still(run):
    parked = a_parked_event()

    code, done = run("dead_letters", "discard", str(parked.id), "--reason", "refunded by hand")

    assert (code, done["discarded"]) == (0, [str(parked.id)])
    assert audited("event.discarded") == [(str(parked.id), "system:command:dead_letters", "refunded by hand")]
    assert run("dead_letters", "list") == (0, {"dead_letters": []})
    assert run("dead_letters", "retry", str(parked.id))[1]["retried"] == [str(parked.id)]


def test_a_dry_run_changes_nothing(run):
    parked, other = a_parked_event(), an_event()

    assert run("dead_letters", "retry", str(parked.id), "--dry-run")[1]["retried"] == [str(parked.id)]
    assert run("dead_letters", "discard", str(parked.id), "--reason", "x", "--dry-run")[0] == 0
    assert run("replay_events", "--event", str(other.id), "--dry-run")[1] == {"replayed": 1, "dry_run": True}

    assert models.DomainEvent.objects.get(pk=parked.pk).parked_at
    assert models.DomainEvent.objects.get(pk=other.pk).published_at
    assert not models.AuditLog.objects.exists()


@pytest.mark.parametrize("action", ["retry", "discard"])
def test_an_event_that_is_not_parked_is_named_and_the_exit_code_is_1(run, action):
    event = an_event()

    code, done = run("dead_letters", action, str(event.id), str(unknown := new_id()), "--reason", "x")

    assert code == 1
    assert set(done["not_parked"]) == {str(event.id), str(unknown)}
    assert not models.AuditLog.objects.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("dead_letters", "retry"),
        ("dead_letters", "show", "not-a-uuid"),
        ("dead_letters", "discard", "0192f000-0000-7000-8000-000000000000"),
        ("replay_events",),
        ("replay_events", "--since", "yesterday"),
        ("replay_events", "--type", "NothingLikeThis"),
    ],
)
def test_what_cannot_be_understood_ends_with_2_and_says_why(run, words):
    code, said = run(*words)

    assert code == 2
    assert said["error"]
    with pytest.raises(CommandError) as told:
        call_command(*words)
    assert told.value.returncode == 2


def test_replayed_events_wait_for_the_relay_again_but_for_parked_ones(run):
    before, inside, other_type, parked = an_event(), an_event(), an_event(attention()), a_parked_event()
    since, until = inside.occurred_at, timezone.now()

    code, done = run(
        "replay_events", "--since", since.isoformat(), "--until", until.isoformat(), "--type", "MpesaCallbackReceived"
    )

    waiting = list(models.DomainEvent.objects.filter(published_at=None).values_list("id", flat=True))
    assert (code, done["replayed"], waiting) == (0, 1, [inside.id])
    assert before.id not in waiting
    assert other_type.id not in waiting
    assert audited("event.replayed") == [("domain_events", "system:command:replay_events", "")]
    assert run("replay_events", "--event", str(parked.id))[0] == 1
    assert run("replay_events", "--event", str(before.id)) == (0, {"replayed": 1, "dry_run": False})


def test_relay_outbox_once_publishes_what_waits(run, settings, tmp_path):
    settings.SUBSCRIPTIONS = "shared_kernel.tests.test_commands.NOBODY"
    an_event(published_at=None)

    assert run("relay_outbox", "--once") == (0, {"published": 1})
    assert run("relay_outbox", "--once") == (0, {"published": 0})


NOBODY: Subscriptions = {}
