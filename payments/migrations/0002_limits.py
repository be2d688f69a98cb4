"""The limits to begin with: the providers' own, and the tiers'. Staff add dated rows; these are never changed."""

from datetime import UTC, datetime
from typing import Any

from django.db import migrations

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
KES, USD = "KES", "USD"
RULES = [  # subject, currency, minimum, maximum, per day, per month; minor units
    ("provider:mpesa_stk", KES, 1_00, 250_000_00, None, None),
    ("provider:mpesa_b2c", KES, 10_00, 250_000_00, None, None),
    ("provider:deriv_transfer", USD, 1_00, 2_000_00, None, None),  # per agent: staff set what Deriv shows for ours
    ("tier:basic", KES, 10_00, 70_000_00, 140_000_00, 500_000_00),
    ("tier:standard", KES, 10_00, 250_000_00, 500_000_00, 5_000_000_00),
]


def add(apps: Any, schema_editor: Any) -> None:
    rule = apps.get_model("payments", "LimitRule")
    columns = ("subject", "currency", "minimum", "maximum", "per_day", "per_month")
    rule.objects.bulk_create(rule(valid_from=BEGIN, **dict(zip(columns, row, strict=True))) for row in RULES)


class Migration(migrations.Migration):
    dependencies = [("payments", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
