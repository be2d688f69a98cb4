from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("identity", "0005_contacts"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="phone_changed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
