"""Django's entry for the shared kernel."""

from django.apps import AppConfig


class SharedKernelConfig(AppConfig):
    name = "shared_kernel"
    verbose_name = "Events, audit and keys"
