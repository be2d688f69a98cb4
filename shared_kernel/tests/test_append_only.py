from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection, transaction
from django.utils import timezone

from shared_kernel.infrastructure import append_only
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.models import AuditLog, DomainEvent
from shared_kernel.tests.users import migrating

DELIVERY = {"published_at", "attempts", "next_attempt_at", "parked_at", "discarded_at", "error"}


@pytest.fixture
def audited(db):
    return AuditLog.objects.create(action="a", target_type="t", target_id="1", actor="system:test", at=timezone.now())


@pytest.fixture
def event(db):
    return DomainEvent.objects.create(
        id=new_id(), type="Created", aggregate_id=new_id(), payload={"a": 1}, occurred_at=timezone.now()
    )


def change(model, **values):
    with transaction.atomic():
        return model.objects.update(**values)


def delete(model):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {model._meta.db_table}")


def test_an_audit_row_is_never_changed(audited):
    with pytest.raises(DatabaseError):
        change(AuditLog, why="something else")


@pytest.mark.parametrize("model", [AuditLog, DomainEvent])
def test_nothing_is_deleted(audited, event, model):
    with pytest.raises(DatabaseError):
        delete(model)

    assert model.objects.count() == 1


def test_of_an_event_all_that_tells_of_its_delivery_may_change(event):
    now = timezone.now()
    times = {"published_at": now, "next_attempt_at": now, "parked_at": now, "discarded_at": now}

    assert change(DomainEvent, attempts=3, error="Traceback ...", **times) == 1
    event.refresh_from_db()
    event.attempts = 4
    event.save(update_fields=sorted(DELIVERY))


def test_every_column_of_an_event_is_fixed_or_of_its_delivery():
    """A column that is added must be put on one side or the other."""
    trigger = append_only.append_only(DomainEvent, may_change=sorted(DELIVERY))[0]
    columns = {field.column for field in DomainEvent._meta.concrete_fields}

    assert columns >= DELIVERY
    assert {column for column in columns if f"`{column}`" in trigger.body["mysql"]} == columns - DELIVERY


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "created"},
        {"type": "Created "},
        {"payload": {"a": 2}},
        {"context": {"actor": "me"}},
        {"aggregate_id": new_id()},
        {"id": new_id()},
        {"occurred_at": timezone.now() - timedelta(days=1)},
        {"seq": 10**6},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_of_an_event_nothing_else_may_change(event, changed):
    with pytest.raises(DatabaseError):
        change(DomainEvent, **changed)


@pytest.mark.django_db(transaction=True)
def test_migrate_puts_missing_triggers_back():
    append_only.remove()
    assert len(append_only.missing()) >= 4

    with migrating():
        call_command("migrate", verbosity=0)

    assert append_only.missing() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("code", "says"), [(1419, "log_bin_trust_function_creators = 1"), (1142, "GRANT TRIGGER")])
def test_a_database_that_refuses_triggers_is_answered_by_what_to_set(code, says):
    """The refusal takes a server with a binary log and a user without SUPER; here its answer stands in for it."""

    def refuse(execute, sql, params, many, context):
        if sql.startswith(("DROP TRIGGER", "CREATE TRIGGER")):
            raise OperationalError(code, "refused")
        return execute(sql, params, many, context)

    append_only.remove()
    with migrating(), connection.execute_wrapper(refuse), pytest.raises(ImproperlyConfigured, match=says):
        append_only.install(by=connection)

    append_only.install()
    assert append_only.missing() == []
