"""Nothing that tells of a customer is stored without a purpose and a time after which it goes."""

import pytest
from django.apps import apps
from django.conf import settings
from django.db import models

from identity.models import User
from penpay.privacy.document import kept, markdown
from penpay.privacy.inventory import INVENTORY
from penpay.privacy.model import KEPT, Personal
from shared_kernel.facade import BlindIndexField, EncryptedField

MODELS = {model._meta.label: model for model in apps.get_models(include_auto_created=True)}
PERSONAL = {label: entry for label, entry in INVENTORY.items() if isinstance(entry, Personal)}
TELLING = {"user_id", "phone", "email", "full_name", "name", "address", "transaction_id"}
OUR_OWN = {"mpesa_integration.MpesaToken": {"token"}, "auth.Permission": {"name"}, "auth.Group": {"name"},
           "mpesa_integration.MpesaInitiator": {"name"}, "payments.SuspenseClaim": {"name"},
           "shared_kernel.Lease": {"name"}, "identity.StaffFactor": {"user", "secret"},
           "identity.StaffSignInTries": {"key"}}  # fmt: skip


def columns(model):
    return {field.name: field for field in model._meta.concrete_fields}


def test_every_table_of_every_app_is_in_the_inventory_as_personal_or_not():
    assert set(MODELS) - set(INVENTORY) == set(), "give each its entry in penpay/privacy/inventory.py"
    assert set(INVENTORY) - set(MODELS) == set(), "these are no tables any more"


@pytest.mark.parametrize("label", PERSONAL)
def test_every_column_of_a_personal_table_has_its_place(label):
    entry = PERSONAL[label]
    named = [*entry.data, *entry.other]

    assert len(named) == len(set(named)), "each column once"
    assert set(columns(MODELS[label])) - set(named) == set(), "say in penpay/privacy/inventory.py what these tell"
    assert set(named) - set(columns(MODELS[label])) == set(), "these are no columns any more"


@pytest.mark.parametrize("label", PERSONAL)
def test_every_column_has_a_purpose_and_a_retention_and_what_is_encrypted_is_personal(label):
    entry = PERSONAL[label]

    assert entry.why
    assert entry.of
    for name, datum in entry.data.items():
        assert (datum.kept or entry.kept) in KEPT, name
    for name, field in columns(MODELS[label]).items():
        if isinstance(field, EncryptedField | BlindIndexField):
            assert name in entry.data, f"{name} is encrypted because it tells of somebody"


@pytest.mark.parametrize("label", sorted(set(INVENTORY) - set(PERSONAL)))
def test_a_table_that_is_not_personal_holds_nothing_that_looks_personal(label):
    for name, field in columns(MODELS[label]).items():
        if name in OUR_OWN.get(label, ()):
            continue
        assert not isinstance(field, EncryptedField | BlindIndexField), name
        assert name not in TELLING
        of_customer = isinstance(field, models.ForeignKey) and field.related_model is User
        assert not of_customer or label.startswith(("admin.", "identity.User_")), name


def test_each_retention_that_speaks_of_days_has_them_in_the_settings():
    for name, words in KEPT.items():
        assert ("{days}" in words) == (name in settings.RETENTION_DAYS), name
        assert "{" not in kept(name)
    assert settings.RETENTION_DAYS["aml_records"] >= 7 * 365 + 2


def test_a_column_that_is_added_is_missed(monkeypatch):
    """That the first tests can fail."""
    entry = PERSONAL["identity.Profile"]
    without = {name: datum for name, datum in entry.data.items() if name != "date_of_birth"}
    monkeypatch.setitem(PERSONAL, "identity.Profile", Personal(entry.why, entry.kept, entry.of, without, entry.other))

    with pytest.raises(AssertionError, match="say in penpay/privacy"):
        test_every_column_of_a_personal_table_has_its_place("identity.Profile")


def test_the_page_names_every_table_and_marks_what_is_encrypted():
    page = markdown()

    for model in MODELS.values():
        assert f"`{model._meta.db_table}`" in page
    assert "| `phone` | contact | M-Pesa pays from and to this number |  | encrypted |" in page
