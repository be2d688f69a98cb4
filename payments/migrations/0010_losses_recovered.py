from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0009_decisions"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="suspensesettlement",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind", "loss_recovered"), _negated=True),
                    models.Q(("amount__gt", 0), models.Q(("proof", ""), _negated=True)),
                    _connector="OR",
                ),
                name="settlement_names_its_loss",
            ),
        ),
    ]
