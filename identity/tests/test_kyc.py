"""`me/kyc` over real commits: what is stored of a submission, who may submit, and what attackers send instead."""

import io
import re
import tempfile
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction
from django.test import Client
from PIL import Image

from identity import models
from identity.domain.kyc import KycStatus
from identity.facade import DecideKyc, kyc
from identity.models import kyc as kyc_rows
from identity.tests.clients import FORM, Browser, a_form
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.images import a_photo, with_gps
from shared_kernel.api.uploads import MAX_FILE, MAX_FORM
from shared_kernel.infrastructure import append_only
from shared_kernel.infrastructure.encryption import DecryptionFailed, content_place, open_content
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db
TODAY = now().date()
FIELDS = {
    "id_type": "national_id",
    "id_number": "31415926",
    "id_issued_on": "2020-01-31",
    "id_expires_on": str(TODAY + timedelta(days=900)),
    "date_of_birth": "1990-05-17",
    "gender": "F",
    "nationality": "KE",
    "residence": "KE",
    "kra_pin": "A123456789B",
}
FRONT, SELFIE = with_gps(), a_photo(kind="PNG")
FILES = {"front": ("front.jpg", FRONT, "image/jpeg"), "selfie": ("me.png", SELFIE, "image/png")}
NEW_TABLES = ("kyc_documents", "kyc_snapshots", "kyc_images")


@pytest.fixture
def customer():
    return a_customer(password=PASSWORD, kyc_status="none", tier="none")


@pytest.fixture
def browser(customer) -> Browser:
    return signed_in(customer)


def signed_in(customer) -> Browser:
    browser = Browser()
    assert browser.sign_in(customer.email).status_code == 200
    return browser


def submit(browser: Browser, **changed: Any) -> Any:
    """With the parts changed; None leaves one out."""
    parts = {**FIELDS, **FILES, **changed}
    return browser.post_form("me/kyc", a_form(*((name, part) for name, part in parts.items() if part is not None)))


def code(answer) -> str:
    return answer.json()["code"]


def errors(answer) -> list[tuple[str, str]]:
    return [(found["field"], found["code"]) for found in answer.json()["errors"]]


def nothing_is_stored() -> bool:
    return not any((kyc_rows.KycDocument.objects.exists(), kyc_rows.KycSnapshot.objects.exists()))


def stored(tables=NEW_TABLES) -> bytes:
    """All bytes of these tables as the database holds them."""
    found = []
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT * FROM {table}")
            found += [value for row in cursor.fetchall() for value in row]
    return b"|".join(value if isinstance(value, bytes) else str(value).encode() for value in found)


def image(side: str) -> bytes:
    row = kyc_rows.KycImage.objects.get(side=side)
    return open_content(row.key, bytes(row.content), content_place(row))


# what is stored


def test_a_submission_is_kept_encrypted_with_its_audit_row(browser, customer):
    before = browser.get("me/kyc").json()

    answer = submit(browser, back=("back.png", a_photo((700, 500), kind="PNG"), "image/png"))

    assert before == {"status": "none", "tier": "none"}
    assert (answer.status_code, answer.json()) == (202, {"status": "submitted", "tier": "none"})
    assert browser.get("me/kyc").json() == browser.get("me").json()["kyc"] == {"status": "submitted", "tier": "none"}
    row = kyc_rows.KycSnapshot.objects.get()
    assert {name: str(getattr(row, name)) for name in FIELDS} == FIELDS
    assert (row.user_id, row.version, row.full_name, row.id_country) == (customer.id, 1, customer.full_name, "KE")
    assert set(row.images.values_list("side", "width", "height")) == {
        ("front", 640, 480), ("back", 700, 500), ("selfie", 640, 480),
    }  # fmt: skip
    raw = stored()
    for private in (b"31415926", b"1990-05-17", b"A123456789B", b"Amina", b"Otieno", b"JFIF", b"front.jpg"):
        assert private not in raw
    [told] = AuditLog.objects.filter(action="user.kyc")
    assert (told.target_id, told.before, told.after) == (str(customer.id), "none none", "submitted none")
    assert (told.actor, told.details) == (f"user:{customer.id}", {"snapshot": str(row.id), "version": "1"})
    assert b"31415926" not in stored(("audit_logs", "domain_events"))


def test_the_place_where_a_photo_was_taken_is_not_stored(browser):
    submit(browser)

    kept = Image.open(io.BytesIO(image("front")))

    assert b"CANARY" in FRONT
    assert kept.format == "JPEG"
    assert dict(kept.getexif()) == {}
    assert b"CANARY" not in image("front")


def test_an_image_that_is_moved_to_another_row_or_altered_does_not_open(browser):
    submit(browser)
    front, selfie = (kyc_rows.KycImage.objects.get(side=side) for side in ("front", "selfie"))

    for key, content, row in (
        (front.key, front.content, selfie),
        (selfie.key, front.content, front),
        (front.key, bytes(front.content[:-1]) + bytes([front.content[-1] ^ 1]), front),
        ("", front.content, front),
    ):
        with pytest.raises(DecryptionFailed):
            open_content(key, bytes(content), content_place(row))


@pytest.mark.parametrize("table", NEW_TABLES)
def test_a_submission_is_never_changed_nor_deleted(browser, table):
    submit(browser)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} LIMIT 1")
        columns = [column[0] for column in cursor.description]
    name = connection.ops.quote_name

    for sql in [f"DELETE FROM {table}", *(f"UPDATE {table} SET {name(c)} = SUBSTR({name(c)}, 2)" for c in columns)]:
        with (
            pytest.raises(DatabaseError, match=r"append-only|denied"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
    assert append_only.append_only_tables()[table] == ()


def test_no_history_table_copies_what_is_encrypted():
    """The snapshots are the history (ADR 0025)."""
    assert [model for model in apps.get_models() if hasattr(model, "history") or hasattr(model, "instance_type")] == []


def test_a_submission_takes_a_bounded_number_of_queries(browser, django_assert_max_num_queries):
    with django_assert_max_num_queries(40):
        submit(browser)


# who may submit, and when


def test_what_is_submitted_waits_for_the_decision_and_then_there_is_a_next_version(browser, customer):
    submit(browser)

    assert (submit(browser).status_code, code(submit(browser))) == (409, "kyc_under_review")
    kyc.decide(DecideKyc(user_id=customer.id, status=KycStatus.REJECTED))
    again = submit(browser, id_number="0314-15926", gender="female")

    assert again.status_code == 202
    assert list(kyc_rows.KycSnapshot.objects.order_by("version").values_list("version", flat=True)) == [1, 2]
    assert kyc_rows.KycDocument.objects.count() == 1  # the same document, in another form


@pytest.mark.parametrize(("status", "tier"), [("verified", "standard"), ("expired", "standard"), ("rejected", "none")])
def test_whoever_is_decided_on_may_submit_anew_and_keeps_the_tier(status, tier):
    browser = signed_in(a_customer(password=PASSWORD, kyc_status=status, tier=tier))

    assert submit(browser).json() == {"status": "submitted", "tier": tier}


def test_a_verification_that_has_run_out_is_told_as_expired(browser, customer):
    models.Compliance.objects.filter(pk=customer.id).update(kyc_status="verified", kyc_expires_at=now())

    assert browser.get("me/kyc").json()["status"] == browser.get("me").json()["kyc"]["status"] == "expired"


@pytest.mark.parametrize(
    ("customer", "status", "expected"),
    [
        ({"phone_verified": False}, 403, "phone_not_verified"),
        ({"frozen_at": now()}, 409, "account_frozen"),
    ],
)
def test_whose_phone_is_not_verified_or_who_is_frozen_submits_nothing(customer, status, expected):
    browser = signed_in(a_customer(password=PASSWORD, kyc_status="none", **customer))

    answer = submit(browser)

    assert (answer.status_code, code(answer)) == (status, expected)
    assert nothing_is_stored()
    assert browser.get("me/kyc").status_code == 200


def test_nobody_submits_without_signing_in_or_without_the_csrf_header(browser):
    stranger = Browser()
    assert (submit(stranger).status_code, stranger.get("me/kyc").status_code) == (401, 401)
    browser.cookies["csrftoken"] = "x" * 32
    body = a_form(*FIELDS.items(), *FILES.items(), ("csrfmiddlewaretoken", "x" * 32))
    answer = browser.http.generic("POST", "/api/v1/me/kyc", body, FORM)
    assert (answer.status_code, code(answer)) == (403, "csrf_failed")
    assert nothing_is_stored()


def test_a_document_is_one_customers_and_whose_it_is_is_not_told(browser, customer):
    other = a_customer(password=PASSWORD, kyc_status="none")
    theirs = signed_in(other)
    submit(browser)

    answer = submit(theirs, id_number="031415926")

    assert (answer.status_code, code(answer)) == (409, "identity_document_taken")
    assert set(answer.json()) == {"type", "title", "status", "detail", "code", "request_id"}
    assert not re.search(rf"{customer.id}|Amina|{customer.phone.number}|31415926", answer.content.decode())
    assert theirs.get("me/kyc").json()["status"] == "none"
    assert kyc_rows.KycSnapshot.objects.count() == 1
    [told] = AuditLog.objects.filter(action="user.kyc_refused")
    assert (told.target_id, told.details) == (str(other.id), {"owner": str(customer.id)})
    assert submit(theirs, id_number="27182818").status_code == 202


def test_a_document_of_another_kind_or_country_with_the_same_number_is_another(browser):
    submit(browser)
    theirs = signed_in(a_customer(password=PASSWORD, kyc_status="none"))

    assert submit(theirs, id_type="alien_card", nationality="UG").status_code == 202


def test_who_tries_many_documents_of_others_is_stopped(browser):
    submit(browser)
    theirs = signed_in(a_customer(password=PASSWORD, kyc_status="none"))

    answers = [submit(theirs) for _ in range(6)]

    assert [code(answer) for answer in answers] == ["identity_document_taken"] * 5 + ["too_many_kyc_refusals"]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) > 3600
    assert code(submit(theirs, id_number="27182818")) == "too_many_kyc_refusals"  # nor is a free one told


def test_who_sends_many_images_that_cannot_be_read_is_stopped_before_the_next_is_read(browser, customer):
    bad = ("f.jpg", FRONT[:1000], "image/jpeg")

    first = submit(browser, front=bad, selfie=bad)

    [told] = AuditLog.objects.filter(action="user.kyc_images_refused")
    assert (first.status_code, told.why) == (422, "front damaged_image, selfie damaged_image")
    assert told.target_id == str(customer.id)
    assert [submit(browser, front=bad).status_code for _ in range(20)] == [422] * 19 + [429]
    assert code(submit(browser)) == "too_many_kyc_refusals"
    assert AuditLog.objects.filter(action="user.kyc_images_refused").count() == 20


def test_refusals_of_the_day_before_are_not_counted(browser, customer):
    AuditLog.objects.bulk_create(
        AuditLog(action=action, target_type="user", target_id=str(customer.id), actor="a", at=now() - timedelta(days=1))
        for action in ("user.kyc_refused", "user.kyc_images_refused")
        for _ in range(30)
    )

    assert submit(browser).status_code == 202


# what is wrong about it


@pytest.mark.parametrize(
    ("changed", "status", "expected"),
    [
        *(({name: None}, 400, (name, "required")) for name in (*FIELDS, *FILES) if name != "kra_pin"),
        ({"id_type": "driving_licence"}, 400, ("id_type", "invalid_choice")),
        ({"gender": "Q"}, 400, ("gender", "invalid_choice")),
        ({"nationality": "XX"}, 400, ("nationality", "invalid_choice")),
        ({"residence": "Kenya"}, 400, ("residence", "invalid_choice")),
        ({"id_issued_on": "31/01/2020"}, 400, ("id_issued_on", "invalid")),
        ({"id_issued_on": "2020-02-30"}, 400, ("id_issued_on", "invalid")),
        ({"date_of_birth": "1990-05-17T00:00:00"}, 400, ("date_of_birth", "invalid")),
        ({"date_of_birth": "0000-00-00"}, 400, ("date_of_birth", "invalid")),
        ({"date_of_birth": "0001-01-01"}, 422, ("date_of_birth", "invalid_date_of_birth")),
        ({"date_of_birth": str(TODAY - timedelta(days=17 * 365))}, 422, ("date_of_birth", "under_age")),
        ({"id_expires_on": str(TODAY - timedelta(days=1))}, 422, ("id_expires_on", "document_expired")),
        ({"id_expires_on": "2019-01-01"}, 422, ("id_expires_on", "expires_before_issue")),
        ({"kra_pin": "Z123456789B"}, 422, ("kra_pin", "invalid_kra_pin")),
        ({"id_number": ""}, 400, ("id_number", "blank")),
        ({"id_number": "314\x0015926"}, 400, ("id_number", "null_characters_not_allowed")),
        ({"id_number": "314\x1b15926"}, 422, ("id_number", "invalid_id_number")),
        ({"id_number": "=31415926"}, 422, ("id_number", "invalid_id_number")),
        ({"id_number": b"\xff\xfe31415"}, 422, ("id_number", "invalid_id_number")),
        ({"id_number": "9" * 33}, 400, ("id_number", "max_length")),
        ({"id_number": ("x.txt", b"31415926", "text/plain")}, 400, ("id_number", "invalid")),
        ({"gender": ("x.txt", b"F", "text/plain")}, 400, ("gender", "invalid_choice")),
        ({"front": "not a file"}, 400, ("front", "not_a_file")),
        ({"front": ("f.jpg", b"", "image/jpeg")}, 400, ("front", "empty")),
        ({"front": ("f.jpg", bytes(MAX_FILE + 1), "image/jpeg")}, 400, ("front", "file_too_large")),
        ({"front": ("f.jpg", FRONT[:1000], "image/jpeg")}, 422, ("front", "damaged_image")),
        ({"selfie": ("me.jpg", a_photo((100, 100)), "image/jpeg")}, 422, ("selfie", "too_few_pixels")),
        ({"back": ("b.jpg", a_photo(kind="GIF"), "image/jpeg")}, 422, ("back", "not_an_image")),
        ({"tier": "standard"}, 400, ("tier", "unknown_field")),
        ({"kyc_status": "verified"}, 400, ("kyc_status", "unknown_field")),
        ({"user_id": "1"}, 400, ("user_id", "unknown_field")),
        ({"fourth": ("x.jpg", FRONT, "image/jpeg")}, 400, ("fourth", "unknown_field")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_stored(browser, changed, status, expected):
    answer = submit(browser, **changed)

    assert answer.status_code == status
    assert expected in errors(answer)
    assert nothing_is_stored()
    assert browser.get("me/kyc").json()["status"] == "none"
    assert not AuditLog.objects.filter(action__in=["user.kyc", "user.kyc_refused"]).exists()


def test_no_value_that_was_sent_is_repeated_in_a_refusal(browser):
    answer = submit(browser, id_number="314159260000", kra_pin="B314159265C", gender="CANARY", id_issued_on="CANARY2")
    again = submit(browser, id_number="314159260000", kra_pin="B314159265C")

    for text in (answer.content.decode(), again.content.decode()):
        assert not re.search("3141|CANARY2|1990", text)


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "..\\..\\windows\\system32\\drivers\\etc\\hosts",
        "/etc/cron.d/penpay",
        "front.php",
        "front.jpg.html",
        "con",
        "x" * 900,
        "fr\0ont.jpg",
        "<script>.jpg",
        "=cmd.jpg",
        "%2e%2e%2ffront",
    ],
)
def test_file_names_and_declared_types_are_never_used(browser, name):
    answer = submit(browser, front=(name, FRONT, "text/html"))

    assert answer.status_code == 202
    assert b"passwd" not in stored()
    assert image("front").startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize(
    "extra",
    [b"<script>alert(1)</script>", b"<?php system('id'); ?>", b"PK\x03\x04payload", b"%PDF-1.7", b"GIF89a"],
)
def test_of_a_polyglot_only_the_picture_is_stored(browser, extra):
    assert submit(browser, front=("f.jpg", FRONT + extra, "image/jpeg")).status_code == 202
    assert extra not in image("front")


@pytest.mark.parametrize(
    ("body", "kind", "status", "expected"),
    [
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (FRONT, "image/jpeg", 415, "unsupported_media_type"),
        (a_form(*FIELDS.items()), "multipart/form-data", 400, "malformed_form"),
        (a_form(*FIELDS.items()), "multipart/form-data; boundary=", 400, "malformed_form"),
        (a_form(*FIELDS.items()), f"multipart/form-data; boundary={'x' * 300}", 400, "malformed_form"),
        (a_form(*FIELDS.items()), "multipart/form-data; boundary=another", 400, "invalid_request"),
        (b"", FORM, 400, "invalid_request"),
        (b"--a-boundary", FORM, 400, "invalid_request"),
        (a_form(*FIELDS.items())[:200], FORM, 400, "invalid_request"),
        (a_form(*FIELDS.items(), ("id_number", "2"), *FILES.items()), FORM, 400, "invalid_request"),
        (a_form(*FIELDS.items(), *FILES.items(), ("front", "2")), FORM, 400, "invalid_request"),
        (a_form(("id_number", "9" * 70_000)), FORM, 413, "body_too_large"),
        (a_form(*((f"f{i}", "x") for i in range(1100))), FORM, 400, "bad_request"),
        (a_form(*((f"f{i}", ("x", b"x", "image/png")) for i in range(150))), FORM, 400, "bad_request"),
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused(browser, body, kind, status, expected):
    answer = browser.post_form("me/kyc", body, kind)

    assert (answer.status_code, code(answer)) == (status, expected)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert nothing_is_stored()


def test_a_part_that_comes_twice_is_named(browser):
    answer = browser.post_form("me/kyc", a_form(*FIELDS.items(), *FILES.items(), ("front", "2"), ("gender", "M")))
    assert errors(answer) == [("front", "sent_twice"), ("gender", "sent_twice")]


def test_the_wrong_kind_of_body_is_told_which_one_is_taken(browser):
    assert browser.post("me/kyc", {}).json()["detail"] == "Send multipart/form-data."
    assert browser.post_form("auth/login", b"x").json()["detail"] == "Send application/json."


# bodies that are huge


class Unread(io.BytesIO):
    """A body that must not be read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")

    readline = read


def huge(length: int) -> dict[str, Any]:
    return {"CONTENT_LENGTH": str(length), "wsgi.input": Unread()}


def test_a_huge_form_is_refused_by_its_length_without_being_read(browser):
    answer = browser.post_form("me/kyc", b"x", **huge(MAX_FORM + 1))

    assert (answer.status_code, code(answer)) == (413, "body_too_large")
    assert str(MAX_FORM) in answer.json()["detail"]


@pytest.mark.parametrize("path", ["me/kyc", "auth/login", "auth/register", "auth/refresh"])
def test_a_strangers_form_is_not_read_at_all(path):
    stranger = Browser()

    answer = stranger.post_form(path, b"x", **huge(10**9))

    assert answer.status_code in {401, 415}


@pytest.mark.parametrize("path", ["/admin/login/", "/admin/", "/api/v1/auth/login", "/cb/s/x"])
def test_no_other_page_takes_a_file(path, monkeypatch):
    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file")

    monkeypatch.setattr("django.core.files.uploadedfile.tempfile.NamedTemporaryFile", opened)
    body = a_form(("username", "boss"), ("file", ("x", bytes(3_000_000), "image/png")))
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "x" * 32  # anybody can have one

    answer = client.generic("POST", path, body, FORM, headers={"Host": "localhost"})

    assert answer.status_code in {302, 403, 404, 413, 415}


def test_nothing_of_a_form_touches_the_disk(browser, monkeypatch):
    def opened(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file")

    for name in ("NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, opened)
    monkeypatch.setattr("django.core.files.uploadedfile.tempfile.NamedTemporaryFile", opened)
    large = ("f.png", a_photo((1400, 1400), kind="PNG", compress_level=0), "image/png")
    assert len(large[1]) > 5_000_000

    assert submit(browser, front=large).status_code == 202
