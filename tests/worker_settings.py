"""PenPay's settings with the tests' subscribers, for a Celery worker that is a process of its own."""

from penpay.settings import *  # noqa: F403

SUBSCRIPTIONS = "shared_kernel.tests.subscribers.SUBSCRIPTIONS"
