from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0010_losses_recovered"),
    ]

    operations = [
        migrations.AddField(
            model_name="transaction",
            name="ordered_while_waiting",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
