"""Django's entry for the shared kernel."""

from typing import Any

from django.apps import AppConfig


class SharedKernelConfig(AppConfig):
    name = "shared_kernel"
    verbose_name = "Events, audit and keys"

    def ready(self) -> None:
        from django.db import connections
        from django.db.models.signals import post_migrate

        from shared_kernel import models
        from shared_kernel.infrastructure.append_only import append_only, keep_installed, written_once
        from shared_kernel.infrastructure.broker import wake
        from shared_kernel.infrastructure.consents import OF_DRAFTS
        from shared_kernel.infrastructure.grants import grant_runtime
        from shared_kernel.infrastructure.persistence import on_outbox_commit
        from shared_kernel.infrastructure.seals import AUDIT_LOGS, keep_sealed

        on_outbox_commit(wake)
        keep_sealed(AUDIT_LOGS)

        def grant(using: str, **_: Any) -> None:
            grant_runtime(connections[using])

        post_migrate.connect(grant, sender=self, weak=False)  # all tables of all apps are there
        keep_installed(
            self,
            [
                *append_only(models.AuditLog),
                *append_only(models.Seal),
                *append_only(models.AnchorContinuation, may_change=OF_DRAFTS),
                written_once(models.AnchorContinuation, "by", may_change=OF_DRAFTS),
                *append_only(
                    models.DomainEvent,
                    may_change=("published_at", "attempts", "next_attempt_at", "parked_at", "discarded_at", "error"),
                ),
            ],
        )
