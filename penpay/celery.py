"""The Celery application: queues `relay`, `sweep`, `steps` and `default`.

Results are ignored, tasks acknowledged late. A task keeps its process's database connection, after a look at whether it
still lives.
"""

import os
from typing import Any

from celery import Celery
from celery.signals import task_prerun
from django.db import close_old_connections

from shared_kernel.infrastructure.transports import use_mended_transports

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "penpay.settings")
use_mended_transports()

app = Celery("penpay")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["shared_kernel", "payments", "deriv_integration", "mpesa_integration"], related_name="workers")


@task_prerun.connect  # type: ignore[untyped-decorator]
def drop_dead_connections(**_: Any) -> None:
    """A database that was restarted costs no task its first query."""
    close_old_connections()
