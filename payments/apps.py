"""Django's entry for this context."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"

    def ready(self) -> None:
        from payments import models
        from shared_kernel.infrastructure.append_only import append_only, keep_installed
        from shared_kernel.infrastructure.consents import MAY_CHANGE

        keep_installed(self, append_only(models.Reveal, may_change=MAY_CHANGE))
        decided = ("status", "decided_by", "decided_at")  # what was proposed is what gets approved
        keep_installed(self, append_only(models.SuspenseSettlement, may_change=decided))
