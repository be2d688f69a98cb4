"""Django's entry for this context."""

from django.apps import AppConfig


class IdentityConfig(AppConfig):
    name = "identity"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from identity.infrastructure.kyc import GUARDS
        from identity.infrastructure.staff_groups import keep_groups
        from shared_kernel.infrastructure.append_only import keep_installed

        keep_installed(self, GUARDS)
        post_migrate.connect(keep_groups, sender=self)
