"""Django's entry for this context."""

from typing import Any

from django.apps import AppConfig


class IdentityConfig(AppConfig):
    name = "identity"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_out
        from django.db.models.signals import post_migrate

        from identity import models
        from identity.infrastructure import staff_checks  # noqa: F401 - registers itself by being imported
        from identity.infrastructure.kyc import GUARDS
        from identity.infrastructure.staff_groups import keep_groups
        from shared_kernel.infrastructure.append_only import append_only, keep_installed
        from shared_kernel.infrastructure.consents import MAY_CHANGE

        taking_two = (models.TotpRemoval, models.ParticularsReveal)
        consented = [guard for model in taking_two for guard in append_only(model, may_change=MAY_CHANGE)]
        keep_installed(self, [*GUARDS, *consented])
        post_migrate.connect(keep_groups, sender=self)

        def signed_out(**told: Any) -> None:
            from identity.api.staff import note_sign_out  # pages need all apps

            note_sign_out(**told)

        user_logged_out.connect(signed_out, weak=False)
