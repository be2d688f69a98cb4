"""The groups of staff in the database, made as the table in `identity/domain/staff.py` has them."""

import logging
from typing import Any

from django.apps import apps as all_apps
from django.contrib.auth.management import create_permissions
from django.utils import timezone

from identity.domain.staff import GROUPS, RIGHTS

OURS = ("shared_kernel", "wallet", "mpesa_integration", "deriv_integration", "identity", "payments")

log = logging.getLogger(__name__)


def keep_groups(using: str, apps: Any = all_apps, **_: Any) -> None:
    """After `migrate`: each right exists, and each of our groups has what it should have and nothing else.

    May run any number of times. Groups that are not in the table, and who is in which group, are left alone. A group
    that had been changed by hand is told in the log and in the audit log. A database that is migrated only in part,
    and has no such tables yet, is passed over.
    """
    try:
        group, permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
        types = apps.get_model("contenttypes", "ContentType").objects.using(using)
        audit = apps.get_model("shared_kernel", "AuditLog")
    except LookupError:
        return
    for config in all_apps.get_app_configs():  # Django's own come app by app, and later apps' are not there yet
        create_permissions(config, verbosity=0, using=using, apps=apps)
    rights = permission.objects.using(using)
    kinds = {(kind.app_label, kind.model): kind for kind in types.filter(app_label__in=OURS)}
    listed = rights.values_list("content_type__app_label", "codename", "pk")
    known = {f"{app}.{codename}": key for app, codename, key in listed}
    for right, (model, about) in RIGHTS.items():
        app, codename = right.split(".")
        if right not in known and (app, model) in kinds:
            known[right] = rights.create(content_type=kinds[app, model], codename=codename, name=about).pk
    models = [f"{app}.{model}" for app, model in kinds]
    there = {found.name: found for found in group.objects.using(using).prefetch_related("permissions")}
    for name, wanted in GROUPS.items():
        found = there.get(name) or group.objects.using(using).create(name=name)
        has = {right.pk for right in found.permissions.all()} if name in there else set()
        should = {known[right] for right in wanted.permissions(models) if right in known}
        if has == should:
            continue
        found.permissions.set(should)
        if has:
            _told(audit, using, found, added=_named(should - has, known), removed=_named(has - should, known))


def _named(keys: set[int], known: dict[str, int]) -> list[str]:
    return sorted(name for name, key in known.items() if key in keys)


def _told(audit: Any, using: str, group: Any, *, added: list[str], removed: list[str]) -> None:
    """What `migrate` has put right: a new version's table, or somebody's hand."""
    log.warning("staff_group_put_right", extra={"group": group.name, "added": added, "removed": removed})
    audit.objects.using(using).create(
        action="staff_group.put_right", target_type="staff_group", target_id=str(group.pk), actor="system:migrate",
        details={"name": group.name, "added": added, "removed": removed}, at=timezone.now(),
    )  # fmt: skip
