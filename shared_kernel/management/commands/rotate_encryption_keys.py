"""manage.py rotate_encryption_keys: every encrypted value under the newest key of PII_KEYS, and the proof of it."""

from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import Progress

from shared_kernel.facade import Held, Rotated, encryption_key_ids, encryption_keys_held, rotate_encryption_keys
from shared_kernel.management.base import Report, StaffCommand


class Command(StaffCommand):
    help = (
        "Puts every encrypted value under the newest key of PII_KEYS. It may be stopped and started again, and PenPay"
        " runs on. At the end it counts by table, column and key; exit code 1 while a value is under another key."
    )
    changes = True

    def report(self, options: dict[str, Any]) -> Report:
        rotated = Rotated() if options["dry_run"] else _rotated(quiet=options["json"])
        return _told(encryption_keys_held(), rotated, dry_run=options["dry_run"])


def _rotated(*, quiet: bool) -> Rotated:
    waiting: Counter[str] = Counter()
    for held in encryption_keys_held():
        waiting[str(held.column)] += held.count if held.key_id != encryption_key_ids()[0] else 0
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        tasks = {column: bar.add_task(column, total=count) for column, count in waiting.items() if count}

        def progress(column: str, done: int) -> None:
            if column in tasks:  # others may have written under an older key meanwhile
                bar.update(tasks[column], completed=done)

        return rotate_encryption_keys(progress=progress)


def _told(held: list[Held], rotated: Rotated, *, dry_run: bool) -> Report:
    newest, *older = encryption_key_ids()
    behind = [one for one in held if one.key_id != newest]
    left = sum(one.count for one in behind)
    counts = [
        {"table": one.column.table, "column": one.column.name, "key_id": one.key_id, "count": one.count} for one in held
    ]
    data = {
        "ok": not left,
        "newest": newest,
        "dry_run": dry_run,
        "rotated": sum(rotated.changed.values()),
        "left": left,
        "counts": counts,
        "unreadable": rotated.unreadable,
        "findings": rotated.named,
    }
    lines = [f"{one.column}: {one.count} under {_named(one.key_id, newest, older)}" for one in held]
    lines += rotated.named
    if dry_run:
        return Report(data, [*lines, f"{left} values would go to {newest}"], wrong=bool(left))
    if left:
        why = "see above" if rotated.unreadable else "written meanwhile: restart what runs on old keys, repeat"
        return Report(data, [*lines, f"{left} values are not under {newest}: {why}"], wrong=True)
    done = f"all values are under {newest}, {data['rotated']} of them since now"
    more = [f"{', '.join(older)} may leave PII_KEYS, once no backup needs it"] if older else []
    return Report(data, [*lines, done, *more])


def _named(key_id: str, newest: str, older: list[str]) -> str:
    if not key_id:
        return "no key: they are not encrypted"
    return key_id if key_id in {newest, *older} else f"{key_id}, which is not in PII_KEYS"
