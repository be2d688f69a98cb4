"""Celery's edge of payments: the sweeper, by which the database alone brings every Transaction to its end."""

import logging
from contextlib import suppress
from datetime import timedelta, timezone

from celery import shared_task

from payments.facade import SAGAS, Provider, balances, now, reconciliation, recovery, transactions
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.budgets import Lane
from shared_kernel.domain.ports import Context
from shared_kernel.facade import acting_as, budgets

log = logging.getLogger(__name__)

GROUP = 100
LEASE = timedelta(seconds=60)
NAIROBI = timezone(timedelta(hours=3))
MOST_GROUPS = 20  # in one run; the next one goes on


@shared_task(name="payments.workers.sweep_sagas")  # type: ignore[untyped-decorator]
def sweep_sagas() -> int:
    """Runs the due steps: for each provider's budget as many as it has room for. Answers how many it looked at."""
    looked = 0
    with acting_as(Context("system:sweeper")):
        for _ in range(MOST_GROUPS):
            now_looked = sum(sweep_lane(lane) for lane in transactions.lanes())
            looked += now_looked
            if not now_looked:
                break
    return looked


def sweep_lane(lane: Lane) -> int:
    """One group of what waits for this budget, the most urgent first; events do not overtake what is left waiting."""
    with budgets.hand({lane: (GROUP, GROUP)} if lane else {}, from_queue=True) as hand:
        room = min(GROUP, hand.left(lane) or hand.left(lane, reads=True)) if lane else GROUP
    found = transactions.claim_due(lane, at=now(), lease=LEASE, most=room) if room else {}
    if lane:
        budgets.queue(lane, on=room < GROUP and len(found) == room)
    for type, saga in SAGAS.items():
        with suppress(StepsFailed):  # logged, and each one put off or shown to a person, by the saga
            saga.drive([id for id in found if found[id] is type], from_queue=True)
    return len(found)


@shared_task(name="payments.workers.find_orphans")  # type: ignore[untyped-decorator]
def find_orphans() -> dict[str, int]:
    """Reads the providers' books for money that nothing here explains."""
    with acting_as(Context("system:recovery")):
        return recovery.find_orphans()


@shared_task(name="payments.workers.reconcile")  # type: ignore[untyped-decorator]
def reconcile() -> dict[str, int]:
    """Every book that can be read by API, for yesterday in Nairobi: how many breaks are open, by account.

    One that can't be read stops no other; -1 stands for it, and the next run, or a person's, reads it.
    """
    told: dict[str, int] = {}
    with acting_as(Context("system:reconciliation")):
        day = reconciliation.day(now().astimezone(NAIROBI).date() - timedelta(days=1))
        for provider in Provider:
            for account in reconciliation.readable(provider):
                try:
                    told[account] = reconciliation.by_api(provider, account, day).still_open
                except Exception as error:
                    told[account] = -1
                    log.exception("not_reconciled", extra={"account": account, "code": type(error).__name__})
    return told


@shared_task(name="payments.workers.look_at_balances")  # type: ignore[untyped-decorator]
def look_at_balances() -> dict[str, int]:
    """Asks the providers what our accounts hold, and holds what they told against the ledger."""
    with acting_as(Context("system:balances")):
        return balances.look()


@shared_task(name="payments.workers.take_balances")  # type: ignore[untyped-decorator]
def take_balances() -> dict[str, int]:
    """What M-Pesa has answered since."""
    with acting_as(Context("system:balances")):
        return balances.take()
