"""Loads what production runs and prints the distributions that this took, as JSON; run by `test_requirements.py`."""

import json
import sys
from importlib import import_module, metadata

import django

RUN = [
    "penpay.celery", "penpay.wsgi", "penpay.subscriptions", "kombu.transport.redis", "celery.bin.worker",
    "celery.bin.beat", "celery.concurrency.prefork", "gunicorn.app.wsgiapp", "gunicorn.workers.gthread",
]  # fmt: skip

django.setup()
for name in RUN:
    import_module(name)
of = metadata.packages_distributions()
loaded = {name.partition(".")[0] for name in sys.modules} - {"_distutils_hack"}  # each start of Python loads that
print(json.dumps(sorted({distribution for name in loaded for distribution in of.get(name, [])})))  # noqa: T201
