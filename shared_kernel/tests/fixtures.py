"""Fixtures of the kernel that other contexts use, too."""

from dataclasses import replace

import pytest
from django.core.management import call_command
from django.db import connection

from shared_kernel.tests.users import migrating


@pytest.fixture
def account():
    """The runtime user as grants name it; afterwards it has its rights again and no more."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT CURRENT_USER()")
        user, host = cursor.fetchone()[0].split("@")
    yield f"'{user}'@'{host}'"
    with migrating():
        call_command("migrate", verbosity=0)


@pytest.fixture
def limits(monkeypatch):
    """Changes rate limits: `limits(login_address=3)`."""
    from shared_kernel.facade import limiter

    def change(**most):
        names = {name.replace(".", "_"): name for name in limiter.limits}
        changed = {names[name]: number for name, number in most.items()}
        new = {name: replace(one, most=changed.get(name, one.most)) for name, one in limiter.limits.items()}
        for name, limit in new.items():  # one table, which the limiter and payments share
            monkeypatch.setitem(limiter.limits, name, limit)

    return change
