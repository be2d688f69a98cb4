"""Fixtures of the kernel that other contexts use, too."""

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
