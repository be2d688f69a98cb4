"""The audit log under attack, and `verify_audit`, as an auditor types it."""

import json

import pytest
from django.core.management import call_command
from django.utils import timezone

from shared_kernel.domain.ports import AuditRecord
from shared_kernel.facade import audit, unit_of_work
from shared_kernel.infrastructure import append_only
from shared_kernel.infrastructure.seals import AUDIT_LOGS
from shared_kernel.tests.chain_attacks import CHANGED, ChainAttacks, documents, texts, times
from shared_kernel.tests.tampering import execute, no_refusals, seal


def append(count):
    with unit_of_work():
        audit.append(
            AuditRecord("user.login", "user", str(number), timezone.now(), details={"b": number, "a": ["é", None]})
            for number in range(count)
        )


class TestAuditLog(ChainAttacks):
    table = AUDIT_LOGS
    false = {
        "action": "'USER.LOGIN'",
        "target_type": "'user '",
        "target_id": "'0192'",
        "before": "'x'",
        "after": "'x'",
        "why": "' '",
        "details": """'{"a": ["é", null], "b": 1.0}'""",
        "actor": "'staff:1'",
        "device": "'other'",
        "address": "'::1'",
        "request_id": "'r'",
        "at": "'2026-01-01 00:00:00'",
    }

    values = {
        **dict.fromkeys(["action", "target_id", "before", "after", "actor", "device", "request_id"], texts(64)),
        "target_type": texts(32),
        "why": texts(255),
        "address": texts(45),
        "details": documents,
        "at": times,
    }

    def append(self, count):
        append(count)


pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(capsys):
    """Runs it with `--json`; its exit code and the object that it printed."""

    def run(*words):
        code: int | str | None = 0
        try:
            call_command("verify_audit", *words, "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_sound_log_is_counted_and_the_exit_code_is_0(run):
    append(5)
    seal("audit_logs")
    append(2)

    code, found = run()

    assert (code, found["ok"], found["findings"]) == (0, True, [])
    assert (found["seals"], found["sealed"], found["unsealed"]) == (1, 5, 2)


def test_an_empty_log_is_sound(run):
    assert run()[0] == 0


def test_the_first_wrong_row_is_named_and_the_exit_code_is_1(run, capsys):
    append(5)
    seal("audit_logs")
    with no_refusals("audit_logs"):
        execute(("UPDATE audit_logs SET actor = 'staff:9' WHERE target_id >= '3'",))

    code, found = run()

    assert (code, found["ok"]) == (1, False)
    [finding] = found["findings"]
    assert (finding["check"], finding["detail"]) == ("chain", CHANGED)
    with pytest.raises(SystemExit):
        call_command("verify_audit")
    assert finding["row"] in capsys.readouterr().out


def test_a_missing_trigger_is_named(run):
    guards = [guard for guard in append_only._kept if guard.name == "seals_no_delete"]
    append_only.remove(guards)

    code, found = run()

    append_only.install(guards)
    assert (code, [finding["row"] for finding in found["findings"]]) == (1, ["seals_no_delete"])


@pytest.mark.parametrize("number", ["0", "-1", "two", "9", "²"])
def test_a_seal_that_cannot_be_begun_from_ends_with_2_and_says_why(run, number):
    append(1)
    seal("audit_logs")

    code, said = run("--from-seal", number)

    assert code == 2
    assert said["error"]


def test_an_anchor_that_cannot_be_read_ends_with_2_and_says_which(run, settings, tmp_path):
    (tmp_path / "file").touch()
    settings.SEAL_ANCHOR = str(tmp_path / "file")

    code, said = run()

    assert (code, "SEAL_ANCHOR" in said["error"]) == (2, True)
