"""Celery's edge of payments: the sweeper, by which the database alone brings every Transaction to its end."""

from contextlib import suppress
from datetime import timedelta

from celery import shared_task

from payments.facade import deposits, now, transactions
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as

GROUP = 100
LEASE = timedelta(seconds=60)
MOST_GROUPS = 20  # in one run; the next one goes on


@shared_task(name="payments.workers.sweep_sagas")  # type: ignore[untyped-decorator]
def sweep_sagas() -> int:
    """Runs the due steps, by priority. Answers how many Transactions it looked at."""
    looked = 0
    with acting_as(Context("system:sweeper")):
        for _ in range(MOST_GROUPS):
            ids = transactions.claim_due(at=now(), lease=LEASE, most=GROUP)
            with suppress(StepsFailed):  # logged, and each one put off or shown to a person, by the saga
                deposits.drive(ids)
            looked += len(ids)
            if len(ids) < GROUP:
                break
    return looked
