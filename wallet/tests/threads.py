"""Things done at once, each in a thread with its own connection."""

import threading
from concurrent.futures import ThreadPoolExecutor

from django.db import connection


def at_once(*calls):
    """Starts all calls together; their results in order, an exception in the place of a result."""
    ready = threading.Barrier(len(calls))

    def run(call):
        try:
            ready.wait()
            return call()
        except Exception as raised:  # noqa: BLE001 - it is the result
            return raised
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
