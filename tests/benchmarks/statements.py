"""What one Transaction asks of the database: statements and commits from its POST to its end, by the server's own log.

Counted are the API's connections (the POST and the callback) and those of the worker that runs the steps. The relay and
the sweeper have a worker of their own, whose connections are not counted; nor are quote, code and sign-in, which come
before.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared_kernel.infrastructure.append_only import as_owner
from tests.benchmarks.world import rows

SPACES = re.compile(r"\s+")
LOG = (
    "SELECT UNIX_TIMESTAMP(event_time), thread_id, command_type, CAST(argument AS BINARY) "
    "FROM mysql.general_log WHERE command_type IN ('Query', 'Ping', 'Execute')"
)  # every command as the server got it
WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


@dataclass(frozen=True, slots=True)
class Statement:
    """One command as the server got it."""

    at: float  # seconds; when the server got it
    connection: int
    text: str

    @property
    def verb(self) -> str:
        return self.text.lstrip("( ").split(" ", 1)[0].upper()


@dataclass(frozen=True)
class Alone:
    """One Transaction that ran alone."""

    statements: list[Statement]

    @property
    def counts(self) -> dict[str, int]:
        """`statements` (reads and writes of data), `commits` (asked for, or implied by a write outside of a
        transaction), `others` (SET, savepoints, pings: each a round trip as well).
        """
        found: Counter[str] = Counter()
        inside: dict[int, bool] = {}
        for statement in self.statements:
            text, verb = statement.text.lower(), statement.verb
            if verb == "SELECT" and "from" not in text:
                found["others"] += 1
            elif verb == "SELECT" or verb in WRITES:
                found["statements"] += 1
                found["commits"] += verb in WRITES and not inside.get(statement.connection, False)
            elif verb == "COMMIT":
                found["commits"] += 1
            else:
                found["others"] += 1
                if "autocommit" in text:
                    inside[statement.connection] = "0" in text or "off" in text
                elif verb in {"BEGIN", "START"}:
                    inside[statement.connection] = True
        return {name: found[name] for name in ("statements", "commits", "others")}

    @property
    def wake_ms(self) -> float:
        """From the POST's COMMIT as it reached the server, its disk write included, to the next step's first statement:
        relay, broker and worker.
        """
        posting = next(s.connection for s in self.statements if "idempotency_keys" in s.text)
        committed = next(s.at for s in self.statements if s.connection == posting and s.verb == "COMMIT")
        step = next(s.at for s in self.statements if s.connection != posting and s.at >= committed)
        return (step - committed) * 1000


def alone(run: Callable[[], Any]) -> Alone:
    """One Transaction, by `run`, and nothing else on this stack but what it does by itself."""
    with as_owner() as owner, owner.cursor() as cursor:
        for sql in ("SET GLOBAL log_output = 'TABLE'", "TRUNCATE mysql.general_log", "SET GLOBAL general_log = 1"):
            cursor.execute(sql)
        try:
            run()
            time.sleep(0.5)  # what follows the end
        finally:
            cursor.execute("SET GLOBAL general_log = 0")
        cursor.execute(LOG)
        everything = [
            Statement(float(at), int(id), SPACES.sub(" ", (argument or b"").decode(errors="replace") or kind).strip())
            for at, id, kind, argument in cursor.fetchall()
        ]
        cursor.execute("SELECT CONNECTION_ID()")
        left_out = {int(cursor.fetchone()[0]), int(rows("SELECT CONNECTION_ID()")[0][0])}
    left_out |= {statement.connection for statement in everything if _is_relay(statement.text)}
    return Alone([statement for statement in everything if statement.connection not in left_out])


def _is_relay(text: str) -> bool:
    return "leases" in text and "'relay'" in text
