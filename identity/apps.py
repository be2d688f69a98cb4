"""Django's entry for this context."""

from django.apps import AppConfig


class IdentityConfig(AppConfig):
    name = "identity"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from identity.infrastructure.staff_groups import keep_groups

        post_migrate.connect(keep_groups, sender=self)
