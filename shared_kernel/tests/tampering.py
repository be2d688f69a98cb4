"""What somebody could do who may do everything in the database, and nothing outside of it."""

from contextlib import contextmanager

from django.db import connection

from shared_kernel.application import sealing as logic
from shared_kernel.domain.seals import BEFORE_ALL, Seal
from shared_kernel.facade import chain_check, sealing
from shared_kernel.infrastructure import append_only
from shared_kernel.tests.users import SWITCHES, migrating


@contextmanager
def no_refusals(*tables):
    """As the migrating user, without the triggers of these tables and of `seals`, without foreign keys and checks."""
    guards = [guard for guard in append_only._kept if guard.table in {*tables, "seals"}]
    with migrating():
        append_only.remove(guards)
        execute(*((sql,) for sql in SWITCHES[connection.vendor, 0]))
        try:
            yield
        finally:
            execute(*((sql,) for sql in SWITCHES[connection.vendor, 1]))
            append_only.install(guards)


def execute(*statements):
    with connection.cursor() as cursor:
        for sql, *parameters in statements:
            cursor.execute(sql, parameters)


def seal(chain):
    """Seals what is there, without waiting; how many seals were made."""
    return sealing.seal(chain, sealing.horizon(chain))


def seals_of(chain):
    return sealing.book.seals(chain, after=0, up_to=10**9, most=10**6)


def rewrite(chain, number, *, only=False):
    """In `no_refusals`: makes a seal anew for its rows as they are now, and all behind it, or `only` that one."""
    book = sealing.book
    before = book.seal(chain, number - 1)
    for old in book.seals(chain, after=number - 1, up_to=number if only else 10**9, most=10**6):
        after = before.last_seq if before else BEFORE_ALL
        marks = book.marks(chain, old.layout, after=after, up_to=old.last_seq, most=logic.ROWS)
        new = Seal.over(marks, before, chain=chain, layout=old.layout, at=old.sealed_at)
        sets = "first_seq = %s, last_seq = %s, row_count = %s, marks = %s, hash = %s"
        values = new.first_seq, new.last_seq, new.row_count, new.marks, new.hash
        execute((f"UPDATE seals SET {sets} WHERE chain = %s AND number = %s", *values, chain, old.number))
        before = new


def faults(chain, **how):
    return chain_check.check(chain, **how).faults
