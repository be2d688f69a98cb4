"""docs/data-inventory.md, made of the inventory."""

from collections.abc import Iterator, Mapping

from django.apps import apps
from django.conf import settings

from penpay.privacy.inventory import INVENTORY
from penpay.privacy.model import KEPT, NOT_SHOWN, Entry, OfStaff, Personal
from shared_kernel.facade import EncryptedField

HEAD = """\
# Data inventory

Made by `manage.py data_inventory` from `penpay/privacy/inventory.py`; `bin/check --fix` makes it anew. What is known of
whom, in which column, why and for how long. An **encrypted** column is sealed under `PII_KEYS`
([ADR 0012](adr/0012-encrypted-columns-bound-to-their-row.md)); what is *not shown* is left out of `export_subject`.
"""


def kept(name: str) -> str:
    """How long, in words."""
    return KEPT[name].format(days=settings.RETENTION_DAYS.get(name, ""))


def markdown(inventory: Mapping[str, Entry] = INVENTORY) -> str:
    """The whole page."""
    return "\n".join([HEAD, *_retention(), *_personal(inventory), *_others(inventory)]) + "\n"


def _retention() -> Iterator[str]:
    yield "## Retention\n\n| name | kept |\n|---|---|"
    yield from (f"| `{name}` | {kept(name)} |" for name in KEPT)


def _personal(inventory: Mapping[str, Entry]) -> Iterator[str]:
    yield "\n## Tables that tell of customers"
    for label, entry in inventory.items():
        if not isinstance(entry, Personal):
            continue
        meta = apps.get_model(label)._meta
        yield f"\n### `{meta.db_table}`\n\n{entry.why}; `{entry.kept}` unless a line says otherwise.\n"
        yield "| column | kind | why | kept | |\n|---|---|---|---|---|"
        for name, datum in entry.data.items():
            marks = ["encrypted"] if isinstance(meta.get_field(name), EncryptedField) else []
            marks += ["not shown"] if datum.kind in NOT_SHOWN else []
            own = f"`{datum.kept}`" if datum.kept else ""
            yield f"| `{name}` | {datum.kind} | {datum.why} | {own} | {', '.join(marks)} |"
        if entry.other:
            yield f"\nOf nobody: {', '.join(f'`{name}`' for name in entry.other)}."


def _others(inventory: Mapping[str, Entry]) -> Iterator[str]:
    yield "\n## Other tables\n\n| table | of | what for |\n|---|---|---|"
    for label, entry in inventory.items():
        if not isinstance(entry, Personal):
            of = "staff" if isinstance(entry, OfStaff) else "nobody"
            yield f"| `{apps.get_model(label)._meta.db_table}` | {of} | {entry.why} |"
