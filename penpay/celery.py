"""The Celery application: queues `relay`, `sweep`, `steps` and `default`; results are ignored, tasks acknowledged late."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "penpay.settings")

app = Celery("penpay")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["shared_kernel", "payments", "deriv_integration", "mpesa_integration"], related_name="workers")
