from datetime import timedelta

from django.conf import settings
from django.db import migrations, models
from django.db.models import F
from django.utils import timezone

import shared_kernel.models


def date_what_ended(apps, schema_editor):
    """Erased ones ended with the erasure; of accounts that were closed the years are counted from this update on."""
    ended = apps.get_model("identity", "User").objects.filter(is_active=False, is_staff=False, closed_at=None)
    ended.filter(restricted_at__isnull=False).update(closed_at=F("restricted_at"))
    at = timezone.now()
    ended.filter(restricted_at=None).update(
        closed_at=at, erase_after=at + timedelta(days=settings.RETENTION_DAYS["aml_records"])
    )


class Migration(migrations.Migration):
    dependencies = [
        ("identity", "0007_deriv_oauth"),
    ]

    operations = [
        migrations.CreateModel(
            name="TotpRemoval",
            fields=[
                ("id", shared_kernel.models.UuidField(primary_key=True, serialize=False)),
                ("by", models.CharField(max_length=64)),
                ("why", models.CharField(max_length=255)),
                ("at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("approved_by", models.CharField(blank=True, default="", max_length=64)),
                ("approved_at", models.DateTimeField(null=True)),
                ("used_at", models.DateTimeField(null=True)),
                ("user_id", shared_kernel.models.UuidField()),
            ],
            options={
                "verbose_name": "removal of an authenticator",
                "verbose_name_plural": "removals of authenticators",
                "db_table": "totp_removals",
                "abstract": False,
            },
        ),
        migrations.RemoveConstraint(
            model_name="user",
            name="user_erased_later_is_restricted",
        ),
        migrations.RenameField("totpfactor", "failures", "step_up_failures"),
        migrations.RenameField("totpfactor", "locked_until", "step_up_locked_until"),
        migrations.AddField(
            model_name="totpfactor",
            name="sign_in_failed_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="totpfactor",
            name="sign_in_failures",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="totpfactor",
            name="sign_in_locked_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="totpfactor",
            name="sign_in_locks",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="totpfactor",
            name="step_up_failed_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="totpfactor",
            name="step_up_locks",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="user",
            name="closed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="user",
            name="totp_removed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RunPython(date_what_ended, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(("closed_at", None), ("is_active", False), _connector="OR"),
                name="user_closed_is_not_active",
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(("erase_after", None), ("closed_at__isnull", False), _connector="OR"),
                name="user_erased_later_is_closed",
            ),
        ),
        migrations.AddIndex(
            model_name="totpremoval",
            index=models.Index(fields=["user_id", "at"], name="totp_removals_of"),
        ),
        migrations.AddConstraint(
            model_name="totpremoval",
            constraint=models.CheckConstraint(
                condition=models.Q(("approved_by", models.F("by")), _negated=True), name="totpremoval_four_eyes"
            ),
        ),
        migrations.AddConstraint(
            model_name="totpremoval",
            constraint=models.CheckConstraint(
                condition=models.Q(models.Q(("by", ""), _negated=True), models.Q(("why", ""), _negated=True)),
                name="totpremoval_says_who_and_why",
            ),
        ),
        migrations.AddConstraint(
            model_name="totpremoval",
            constraint=models.CheckConstraint(
                condition=models.Q(("used_at", None), models.Q(("approved_by", ""), _negated=True), _connector="OR"),
                name="totpremoval_used_once_approved",
            ),
        ),
    ]
