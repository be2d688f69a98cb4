"""From one key of PII_KEYS to the next: nothing is lost, whoever stops goes on, and the proof tells what is left."""

import json
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, models
from django.test.utils import isolate_apps
from hypothesis import given, strategies as st

from identity.models import DerivAuthorization, DerivLogin, Profile, User
from identity.models.kyc import KycSnapshot
from identity.queries import kyc_submission
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_kyc import signed_in, submit
from mpesa_integration.models import MpesaCallback
from shared_kernel.infrastructure import append_only, rotation
from shared_kernel.infrastructure.encryption import DecryptionFailed, EncryptedField, decrypt, encrypt
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.infrastructure.seals import _tables as sealed_tables
from shared_kernel.models import AuditLog, UuidField
from shared_kernel.tests.users import TWO_USERS, by_owner

OLD, NEW = f"old:{'1a' * 32}", f"new:{'2b' * 32}"
BOTH = f"{NEW},{OLD}"


@pytest.fixture
def old_rows(db, settings):
    """Three customers and a raw message, all under the old key; the ring has both keys from here on."""
    settings.PII_KEYS = OLD
    people = [a_customer(full_name=f"Amina Wanjiru Otieno {number}") for number in range(3)]
    at = datetime.now(UTC)
    login = DerivLogin.objects.get(user_id=people[0].id)
    login.refresh_token = "a-refresh-token"
    login.save()
    DerivAuthorization(
        user=people[0].row, session_id=new_id(), platform="rest", state_hash="a" * 64, verifier="v" * 43, created_at=at,
        expires_at=at,
    ).save()  # fmt: skip
    message = MpesaCallback(
        id=new_id(), kind="s", received_at=at, last_received_at=at, peer="127.0.0.1", sha256="0" * 64, verdict="ok",
        body=json.dumps({"PhoneNumber": people[0].phone.number, "padding": "x" * 60_000}),
    )  # fmt: skip
    message.save()
    settings.PII_KEYS = BOTH
    return people, message


def told(capsys, *arguments, code=0):
    capsys.readouterr()
    ended: object = 0
    try:
        call_command("rotate_encryption_keys", "--json", *arguments)
    except SystemExit as exit:
        ended = exit.code
    assert ended == code
    return json.loads(capsys.readouterr().out)


def counted(answer):
    found: dict[str, dict[str, int]] = {}
    for row in answer["counts"]:
        found.setdefault(row["key_id"], {})[f"{row['table']}.{row['column']}"] = row["count"]
    return found


def stored(model, name):
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name} FROM {table} ORDER BY 1")
        return [value for (value,) in cursor.fetchall()]


def test_every_value_goes_to_the_newest_key_and_reads_as_before(old_rows, settings, capsys):
    people, message = old_rows
    body = message.body

    answer = told(capsys)

    assert (answer["ok"], answer["left"], answer["newest"]) == (True, 0, "new")
    assert counted(answer)["new"]["users.phone"] == 3
    assert set(counted(answer)) == {"new"}
    settings.PII_KEYS = NEW  # the old key can go
    for person in people:
        row = User.objects.get(pk=person.id)
        assert (row.phone, row.email) == (person.phone.number, person.email)
        assert Profile.objects.get(pk=person.id).full_name == person.full_name
        assert DerivLogin.objects.get(user_id=person.id).account == person.deriv_login.account
    assert DerivLogin.objects.get(user_id=people[0].id).refresh_token == "a-refresh-token"
    assert DerivAuthorization.objects.get().verifier == "v" * 43
    assert MpesaCallback.objects.get(pk=message.pk).body == body


def test_a_dry_run_counts_and_changes_nothing(old_rows, capsys):
    before = stored(User, "phone")

    answer = told(capsys, "--dry-run", code=1)

    assert answer["left"] > 0
    assert answer["rotated"] == 0
    assert stored(User, "phone") == before
    assert not AuditLog.objects.filter(action__startswith="encryption_keys").exists()


def test_it_is_audited_before_the_first_change_and_at_the_end(old_rows, capsys):
    told(capsys)

    first, last = AuditLog.objects.filter(target_type="encryption_key").order_by("seq")
    assert (first.action, first.target_id) == ("encryption_keys.rotation_started", "new")
    assert last.action == "encryption_keys.rotated"
    assert last.details["changed"]["users.phone"] == 3
    assert last.actor == "system:command:rotate_encryption_keys"


def test_whoever_stops_goes_on_where_they_stopped(old_rows, capsys, monkeypatch):
    class PowerCut(Exception):
        pass

    monkeypatch.setattr(rotation, "PAGE", 1)
    batches = []

    def cut(column, done):
        batches.append((column, done))
        if len(batches) == 4:
            raise PowerCut

    with pytest.raises(PowerCut):
        rotation.rotate(progress=cut)
    halfway = told(capsys, "--dry-run", code=1)
    answer = told(capsys)

    assert sum(counted(halfway)["new"].values()) == 4
    assert answer["left"] == 0
    assert answer["rotated"] == halfway["left"]
    assert told(capsys)["rotated"] == 0


def test_what_others_write_meanwhile_stays(old_rows, settings, monkeypatch, capsys):
    """Between reading a batch and its UPDATE somebody writes a row of it: with either key, their word counts."""
    people, _ = old_rows
    read = rotation._under_newest
    beside = {people[0].id: (OLD, "Changed On Older Key"), people[1].id: (NEW, "Changed On Newer Key")}

    def meanwhile(column, id, was, rotated):
        found = read(column, id, was, rotated)
        if str(column) == "user_profile.full_name" and id in beside:
            ring, name = beside.pop(id)
            settings.PII_KEYS = ring
            Profile(user_id=id, full_name=name, updated_at=datetime.now(UTC)).save(update_fields=["full_name"])
            settings.PII_KEYS = BOTH
        return found

    monkeypatch.setattr(rotation, "_under_newest", meanwhile)

    first = told(capsys, code=1)
    second = told(capsys)

    assert counted(first)["old"] == {"user_profile.full_name": 1}
    assert second["left"] == 0
    names = {Profile.objects.get(pk=person.id).full_name for person in people}
    assert names == {"Changed On Older Key", "Changed On Newer Key", people[2].full_name}


def test_a_row_that_was_read_before_and_is_saved_after_brings_no_old_key_back(old_rows, settings, capsys):
    people, _ = old_rows
    row = Profile.objects.get(pk=people[0].id)  # nothing of it is decrypted yet

    told(capsys)
    row.save()
    settings.PII_KEYS = NEW

    assert told(capsys)["left"] == 0
    assert Profile.objects.get(pk=people[0].id).full_name == people[0].full_name


def test_a_value_that_no_key_opens_is_not_lost_by_a_save_of_its_row(old_rows, settings):
    people, _ = old_rows
    settings.PII_KEYS = NEW
    row = Profile.objects.get(pk=people[0].id)

    row.save()

    settings.PII_KEYS = BOTH
    assert Profile.objects.get(pk=people[0].id).full_name == people[0].full_name


def test_a_key_that_is_gone_is_told_by_its_name_and_no_text_comes_of_it(old_rows, settings, capsys):
    people, _ = old_rows
    settings.PII_KEYS = NEW

    answer = told(capsys, code=1)

    assert counted(answer)["old"]["users.phone"] == 3
    assert answer["unreadable"] == answer["left"]
    assert "is its key id in PII_KEYS?" in answer["findings"][0]
    text = json.dumps(answer)
    assert not any(person.phone.number in text or person.full_name in text for person in people)
    with pytest.raises(DecryptionFailed):
        _ = User.objects.get(pk=people[0].id).phone


def test_what_was_never_encrypted_is_told_and_not_shown(old_rows, capsys):
    people, _ = old_rows
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE user_profile SET full_name = 'v1.Wanjiku Kamau.x' WHERE user_id = %s", [people[0].id.bytes]
        )
        cursor.execute("UPDATE users SET phone = '254712345678' WHERE id = %s", [people[0].id.bytes])

    answer = told(capsys, code=1)

    assert counted(answer)[""] == {"user_profile.full_name": 1, "users.phone": 1}
    assert "Wanjiku" not in json.dumps(answer)
    assert "254712345678" not in json.dumps(answer)


def test_a_value_moved_to_another_row_is_not_made_valid_by_rotation(old_rows, capsys):
    people, _ = old_rows
    a, b = people[0].id.bytes, people[1].id.bytes
    with connection.cursor() as cursor:
        cursor.execute("SELECT phone FROM users WHERE id = %s", [b])
        [(other,)] = cursor.fetchall()
        cursor.execute("UPDATE users SET phone = %s WHERE id = %s", [other, a])

    answer = told(capsys, code=1)

    assert (answer["left"], answer["unreadable"]) == (1, 1)
    assert f"users.phone|{people[0].id}" in answer["findings"][0]


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_rotation_keeps_any_text(text):
    from django.test import override_settings

    place = f"t.c|{new_id()}"
    with override_settings(PII_KEYS=OLD):
        before = encrypt(text, place)
    with override_settings(PII_KEYS=BOTH):
        after = encrypt(decrypt(before, place), place)
    with override_settings(PII_KEYS=NEW):
        assert decrypt(after, place) == text
        with pytest.raises(DecryptionFailed):
            decrypt(before, place)


@pytest.mark.parametrize("damage", ["v1.old.", "v1.old.A", "v1.old.***", "v2.old.QUJD", "QUJD", "v1..QUJD"])
def test_a_damaged_value_is_an_error_of_its_own(settings, damage):
    settings.PII_KEYS = OLD

    with pytest.raises(DecryptionFailed):
        decrypt(damage, "t.c|1")


def test_no_seal_covers_a_ciphertext():
    """A seal over a column that rotation changes would call every row of it altered."""
    encrypted = {(column.table, column.name) for column in rotation.encrypted_columns()}

    assert len(encrypted) > 15
    for table in sealed_tables.values():
        columns = {(table.name, column) for layout in table.layouts.values() for column, _ in layout}
        assert not columns & encrypted


# --- append-only tables ---------------------------------------------------------------------------------------------

TABLE = "kept_texts"


@contextmanager
def a_kept_table():
    """A table of encrypted texts that are kept for ever, as the migrating user would make it."""
    with isolate_apps("shared_kernel"):

        class KeptText(models.Model):
            id = UuidField(primary_key=True)
            text = EncryptedField()
            note = models.CharField(max_length=20, default="")

            class Meta:
                app_label = "shared_kernel"
                db_table = TABLE

            def __str__(self):
                return str(self.pk)

        kind = "binary(16)" if connection.vendor == "mysql" else "blob"
        by_owner(f"CREATE TABLE {TABLE} (id {kind} PRIMARY KEY, text LONGTEXT NOT NULL, note VARCHAR(20) NOT NULL)")
        guards, who = append_only.append_only(KeptText), runtime_user()
        try:
            append_only.install(guards)
            if who:
                by_owner(f"GRANT SELECT, INSERT ON {TABLE} TO {who}")
            yield KeptText
        finally:
            if who:  # a right outlives its table
                by_owner(f"REVOKE SELECT, INSERT ON {TABLE} FROM {who}")
            by_owner(f"DROP TABLE {TABLE}")


def runtime_user():
    """As grants name it; empty where one user does everything."""
    if not TWO_USERS:
        return ""
    with connection.cursor() as cursor:
        cursor.execute("SELECT CURRENT_USER()")
        user, _, host = cursor.fetchone()[0].rpartition("@")
    return f"'{user}'@'{host}'"


@pytest.fixture
def kept(transactional_db, settings, monkeypatch):
    settings.PII_KEYS = OLD
    with a_kept_table() as model:
        row = model(id=new_id(), text="Wanjiku Kamau", note="as it was")
        row.save(force_insert=True)
        monkeypatch.setattr(rotation, "encrypted_columns", lambda: [rotation.Column(TABLE, "text", "id", guarded=True)])
        settings.PII_KEYS = BOTH
        yield model, row


def test_a_text_that_is_kept_for_ever_gets_the_new_key_and_stays_the_text(kept, settings, capsys):
    model, row = kept

    answer = told(capsys)

    assert (answer["rotated"], answer["left"]) == (1, 0)
    settings.PII_KEYS = NEW
    again = model.objects.get(pk=row.pk)
    assert (again.text, again.note) == ("Wanjiku Kamau", "as it was")


@pytest.mark.django_db(transaction=True)
def test_what_was_submitted_for_the_identity_check_is_read_with_the_new_key_alone(settings, capsys):
    settings.PII_KEYS = OLD
    submit(signed_in(a_customer(password=PASSWORD, kyc_status="none")))
    [snapshot] = KycSnapshot.objects.values_list("pk", flat=True)
    before = kyc_submission(snapshot)
    settings.PII_KEYS = BOTH

    answer = told(capsys)

    assert {"kyc_snapshots.id_number", "kyc_images.key"} <= set(counted(answer)["new"])
    settings.PII_KEYS = NEW
    assert kyc_submission(snapshot) == before
    assert before["facts"]["id_number"] == "31415926"
    assert all(before["images"].values())


@pytest.mark.skipif(not TWO_USERS, reason="one user does everything here")
def test_the_runtime_user_may_not_even_change_the_key(kept):
    _, row = kept
    new = encrypt("Wanjiku Kamau", f"{TABLE}.text|{row.pk}")

    with pytest.raises(DatabaseError) as refused, connection.cursor() as cursor:
        cursor.execute(f"UPDATE {TABLE} SET text = %s", [new])

    assert refused.value.args[0] in {1142, 1143}


@pytest.mark.parametrize(
    "change",
    [
        "text = ''",
        "text = 'Wanjiku Kamau'",
        "text = CONCAT(text, 'A')" if connection.vendor == "mysql" else "text = text || 'A'",
        "text = REPLACE(text, 'v1.old.', 'v1.new.A')",  # another length, so another text
        "text = REPLACE(text, 'v1.old.', 'v1..')",
        "text = REPLACE(text, 'v1.old.', 'v2.new.')",
        "text = CONCAT('v1.old.', REVERSE(SUBSTR(text, 8)))" if connection.vendor == "mysql" else "text = 'v1.old.x'",
        "note = 'another'",
        "text = REPLACE(text, 'v1.old.', 'v1.new.'), note = 'another'",
    ],
)
def test_the_owner_may_change_the_key_of_a_kept_text_and_nothing_else(kept, change):
    model, row = kept
    with pytest.raises(DatabaseError):
        by_owner(f"UPDATE {TABLE} SET {change}")
    with pytest.raises(DatabaseError):
        by_owner(f"DELETE FROM {TABLE}")

    assert model.objects.get(pk=row.pk).text == "Wanjiku Kamau"
