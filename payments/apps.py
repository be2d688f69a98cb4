"""Django's entry for this context."""

from datetime import datetime
from uuid import UUID

from django.apps import AppConfig

from shared_kernel.domain.money import Money


class PaymentsConfig(AppConfig):
    name = "payments"

    def ready(self) -> None:
        from payments import models
        from shared_kernel.infrastructure.append_only import append_only, keep_installed
        from shared_kernel.infrastructure.consents import MAY_CHANGE
        from wallet.facade import explain_movements_by

        explain_movements_by(_explained)
        keep_installed(self, append_only(models.Reveal, may_change=MAY_CHANGE))
        decided = ("status", "decided_by", "decided_at")  # what was proposed is what gets approved
        keep_installed(self, append_only(models.SuspenseSettlement, may_change=decided))


def _explained(provider: str, account: str, movement: str, amount: Money, at: datetime) -> UUID | None:
    """Assembles payments with the first question, not in each process that starts."""
    from payments.facade import Provider, breaks

    return breaks.explained(Provider(provider), account, movement, amount, at, other_amounts=False)
