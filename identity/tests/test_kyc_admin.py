"""Staff look at what was submitted: who may, what each look leaves behind, and that no URL leads to an image."""

import base64
import io
import re

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from PIL import Image

from identity import models
from identity.models import kyc as kyc_rows
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_kyc import signed_in, submit
from shared_kernel.infrastructure.persistence import new_id
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in as staff_signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def submission():
    submit(signed_in(a_customer(password=PASSWORD, kyc_status="none")))
    return kyc_rows.KycSnapshot.objects.get()


def staff(*groups: str, is_superuser: bool = False) -> tuple[Client, models.User]:
    name = (groups or ("boss",))[0].replace(" ", "")
    member = models.User.objects.create_staff(
        name, f"{name}@example.org", "a long enough password", *groups, is_superuser=is_superuser
    )
    return staff_signed_in(member), member


def page(id) -> str:
    return reverse("admin:identity_kycsnapshot_documents", args=[id])


@pytest.mark.parametrize("group", ["compliance officer", "compliance manager"])
def test_compliance_sees_facts_and_images_and_each_look_is_audited(submission, group):
    client, member = staff(group)

    assert b"for the audit log" in client.get(page(submission.id)).content
    assert b"required" in client.post(page(submission.id), {"why": " "}).content
    assert not AuditLog.objects.filter(action="kyc.seen").exists()
    answer = client.post(page(submission.id), {"why": "review"})

    text = answer.content.decode()
    assert answer.status_code == 200
    for fact in ("31415926", "1990-05-17", "A123456789B", "Amina Wanjiru Otieno"):
        assert fact in text
    shown = [base64.b64decode(found) for found in re.findall('src="data:image/jpeg;base64,([^"]+)"', text)]
    assert [Image.open(io.BytesIO(content)).size for content in shown] == [(640, 480)] * 2
    assert "no-store" in answer.headers["Cache-Control"]
    assert "img-src 'self' data:" in answer.headers["Content-Security-Policy"]
    [told] = AuditLog.objects.filter(action="kyc.seen")
    assert (told.actor, told.target_id, told.why) == (f"staff:{member.pk}", str(submission.user_id), "review")
    assert told.details == {"snapshot": str(submission.id)}


@pytest.mark.parametrize("group", ["support", "finance", "ops", "auditor"])
def test_nobody_else_sees_them(submission, group):
    answer = staff(group)[0].post(page(submission.id), {"why": "review"})

    assert answer.status_code == 403
    assert "31415926" not in answer.content.decode()
    assert not AuditLog.objects.filter(action="kyc.seen").exists()


def test_customers_and_strangers_are_sent_to_the_sign_in_of_staff(submission):
    customer = models.User.objects.get(pk=submission.user_id)
    client = Client(headers={"Host": "localhost"})

    assert client.get(page(submission.id)).status_code == 302
    client.force_login(customer)
    assert client.get(page(submission.id)).status_code == 302


def test_the_other_pages_show_nothing_in_clear_and_no_image_has_a_page(submission):
    client, _ = staff(is_superuser=True)
    for url in (
        reverse("admin:identity_kycsnapshot_changelist"),
        reverse("admin:identity_kycsnapshot_change", args=[submission.id]),
    ):
        text = client.get(url).content.decode()
        assert not any(private in text for private in ("31415926", "1990-05-17", "A123456789B", "Amina"))
    assert page(submission.id) in text
    assert kyc_rows.KycImage not in admin.site._registry
    assert not AuditLog.objects.filter(action="kyc.seen").exists()


def test_what_is_not_there_is_404_and_another_method_is_refused(submission):
    client, _ = staff("compliance officer")

    assert client.get(page(new_id())).status_code == 404
    assert client.delete(page(submission.id)).status_code == 405


def test_what_cannot_be_decrypted_is_told_and_the_rest_is_shown(submission, settings):
    settings.PII_KEYS = f"other:{'7' * 64}"

    answer = staff("compliance officer")[0].post(page(submission.id), {"why": "review"})

    assert answer.status_code == 200
    assert answer.content.decode().count("[cannot be decrypted]") >= 5
    assert "national_id" in answer.content.decode()
