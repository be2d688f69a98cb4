"""The groups of staff: what each may do, that `migrate` keeps it so, and that no right changes a record."""

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import connection

from identity.domain.staff import ALL, GROUPS, RIGHTS
from identity.infrastructure.staff_groups import OURS, keep_groups
from identity.models import User
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in
from shared_kernel.tests.users import migrating

pytestmark = pytest.mark.django_db


def rights_of(name):
    rows = Permission.objects.filter(group__name=name).values_list("content_type__app_label", "codename")
    return {f"{app}.{codename}" for app, codename in rows}


def in_group(name):
    return User.objects.create_staff(name, f"{name.replace(' ', '')}@example.org", "a long enough password", name)


def test_migrate_has_made_the_groups_with_exactly_what_the_table_says():
    ours = [
        f"{model._meta.app_label}.{model._meta.model_name}"
        for app in OURS
        for model in apps.get_app_config(app).get_models()
    ]

    assert set(Group.objects.values_list("name", flat=True)) == set(GROUPS)
    for name, group in GROUPS.items():
        assert rights_of(name) == group.permissions(ours), name


def test_each_table_and_right_that_is_named_exists():
    for group in GROUPS.values():
        for model in group.sees - {ALL}:
            assert apps.get_model(model)
        assert group.may <= set(RIGHTS)
    for name, (model, _) in RIGHTS.items():
        assert apps.get_model(name.partition(".")[0], model)


def test_nobody_may_add_change_or_delete_anything_by_hand():
    given = {right for name in GROUPS for right in rights_of(name)}

    assert not [right for right in given if right.partition(".")[2].startswith(("add_", "change_", "delete_"))]


def test_the_auditor_sees_every_table_and_decides_nothing():
    auditor = in_group("auditor")
    views = Permission.objects.filter(content_type__app_label__in=OURS, codename__startswith="view_")

    assert all(auditor.has_perm(f"{view.content_type.app_label}.{view.codename}") for view in views)
    assert {right for right in RIGHTS if auditor.has_perm(right)} == {
        "payments.see_evidence", "wallet.see_finance_reports",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("group", "may"),
    [
        ("support", {"identity.ask_totp_removal"}),
        ("compliance officer", {"identity.reveal_particulars", "identity.see_kyc", "payments.hold_transaction"}),
        ("compliance manager", {
            "identity.reveal_particulars", "identity.see_kyc", "payments.approve_transaction_decision",
            "payments.see_evidence", "payments.reveal_evidence", "identity.approve_totp_removal",
            "payments.hold_transaction", "payments.release_transaction", "shared_kernel.approve_anchor"}),
        ("finance", {
            "payments.resolve_reconciliationbreak", "payments.approve_reconciliationbreak", "payments.see_evidence",
            "payments.propose_suspensesettlement", "payments.approve_suspensesettlement",
            "payments.propose_transaction_decision", "payments.approve_transaction_decision",
            "payments.resume_transaction",
            "wallet.propose_treasurymovement", "wallet.approve_treasurymovement", "wallet.see_finance_reports"}),
        ("ops", {
            "payments.propose_transaction_decision", "payments.resume_transaction", "shared_kernel.continue_anchor"}),
    ],
)  # fmt: skip
def test_what_each_group_may_decide(group, may):
    member = in_group(group)

    assert {right for right in RIGHTS if member.has_perm(right)} == may


def test_support_sees_customers_and_neither_the_audit_log_nor_the_ledger():
    support = in_group("support")

    assert support.has_perm("identity.view_user")
    assert not support.has_perm("shared_kernel.view_auditlog")  # a hold may not be told to a customer
    assert not support.has_perm("wallet.view_ledgerentry")


@pytest.mark.django_db(transaction=True)
def test_migrate_heals_a_group_that_was_changed_and_leaves_others_and_members_alone():
    member = in_group("finance")
    finance, own = Group.objects.get(name="finance"), Group.objects.create(name="interns")
    view, delete = (Permission.objects.get(codename=f"{verb}_ledgerentry") for verb in ("view", "delete"))
    own.permissions.set([delete])
    finance.permissions.remove(view)
    finance.permissions.add(delete)
    Group.objects.get(name="support").delete()

    with migrating():
        call_command("migrate", verbosity=0)

    assert "wallet.view_ledgerentry" in rights_of("finance")
    assert "wallet.delete_ledgerentry" not in rights_of("finance")
    assert rights_of("support")
    assert rights_of("interns") == {"wallet.delete_ledgerentry"}
    assert list(User.objects.get(pk=member.pk).groups.all()) == [finance]
    [told] = AuditLog.objects.filter(action="staff_group.put_right")
    assert told.details == {
        "name": "finance", "added": ["wallet.view_ledgerentry"], "removed": ["wallet.delete_ledgerentry"],
    }  # fmt: skip


def test_what_is_as_it_should_be_is_not_written_again_nor_told():
    Permission.objects.filter(codename="see_evidence").delete()
    keep_groups(connection.alias)
    assert "payments.see_evidence" in rights_of("auditor")
    before = AuditLog.objects.count()

    keep_groups(connection.alias)

    assert AuditLog.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_demo_data_has_somebody_in_each_group_and_two_where_two_have_to_agree(settings):
    settings.DERIV_AGENTS = []

    for _ in range(2):
        call_command("create_demo_data", "--staff-password", "a long enough password", "--json")

    members = User.objects.filter(is_staff=True, is_superuser=False)
    found = list(members.values_list("groups__name", flat=True))
    assert set(found) == set(GROUPS)
    assert found.count("finance") == found.count("compliance manager") == 2
    assert all(member.check_password("a long enough password") for member in members)


def test_auditors_read_what_each_group_may_do_and_nobody_changes_it():
    client = signed_in(in_group("auditor"))
    page = f"/admin/auth/group/{Group.objects.get(name='finance').pk}/change/"

    text = client.get(page).content.decode()

    assert "payments.approve_reconciliationbreak" in text
    assert client.post(page, {"name": "finance"}).status_code == 403
