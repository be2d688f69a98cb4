"""What keeps PenPay's processes out of each other's way: leases; and threads that make calls side by side."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import Q

from shared_kernel import models
from shared_kernel.domain.ports import Clock
from shared_kernel.infrastructure.persistence import in_transaction, lock_lost, now

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class DjangoLeases:
    """`leases`: one row a name, taken over by an UPDATE that only matches while it is free, so that one of many wins.

    Measured by the hosts' clocks: a `ttl` must be long against the difference between them (NTP: well below a second).
    """

    clock: Clock = now

    def acquire(self, name: str, holder: str, ttl: timedelta) -> bool:
        """A holder that still has it prolongs it. Raises `RuntimeError` in a transaction: nobody else would see it."""
        if in_transaction():
            raise RuntimeError("a lease commits on its own: take it outside of the unit of work")
        at = self.clock()
        try:
            with transaction.atomic():
                free = Q(expires_at__lte=at) | Q(holder=holder)
                if models.Lease.objects.filter(free, name=name).update(holder=holder, expires_at=at + ttl):
                    return True
                if models.Lease.objects.filter(name=name).exists():
                    return False
                models.Lease(name=name, holder=holder, expires_at=at + ttl).save(force_insert=True)
        except IntegrityError:
            return False
        except DatabaseError as error:
            if lock_lost(error):
                return False
            raise
        return True

    def release(self, name: str, holder: str) -> None:
        models.Lease.objects.filter(name=name, holder=holder).update(holder="", expires_at=self.clock())


@dataclass(frozen=True)
class ThreadsSideBySide:
    """Calls on kept threads, `max_workers` at once in a process. Each sees the caller's `Context`."""

    max_workers: int = 32

    def map(self, call: Callable[[A], B], items: Sequence[A]) -> list[B]:
        if len(items) < 2:
            return [call(item) for item in items]
        futures = [pool(self.max_workers).submit(copy_context().run, partial(_call, call, item)) for item in items]
        wait(futures)  # before the first error is raised: nothing goes on behind the caller's back
        return [future.result() for future in futures]


def _call(call: Callable[[A], B], item: A) -> B:
    try:
        return call(item)
    finally:
        connections.close_all()  # this thread's: a kept thread must not keep a connection, nor one that has died


_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def pool(max_workers: int) -> ThreadPoolExecutor:
    """This process's threads: a forked child has none of its parent's, so it makes its own."""
    mine = (os.getpid(), max_workers)
    return _pools.get(mine) or _pools.setdefault(mine, ThreadPoolExecutor(max_workers, "side-by-side"))
