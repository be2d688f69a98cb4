"""Celery's edge of Deriv: one-time codes do not outlive their use."""

from datetime import timedelta

from celery import shared_task

from deriv_integration.facade import deriv
from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as, now, unit_of_work

LIVES = timedelta(hours=1)  # longest that any of Deriv's one-time codes is good


@shared_task(name="deriv_integration.workers.wipe_codes")  # type: ignore[untyped-decorator]
def wipe_codes() -> int:
    """Wipes those that have expired unused; how many there were."""
    with acting_as(Context("system:wipe_codes")), unit_of_work():
        return deriv.wipe_codes(now() - LIVES)
