"""The anchor as files: one a chain, to which a line is added for each Seal, in a directory outside of the database.

A line is a JSON object that ends with its `mac`: HMAC-SHA256 over the line before's mac and this line without its own,
by a key that no user of the database can read. So no line can be made, changed, moved or taken out without the key;
lines cut off at the end are missed by the database, which has the Seals. Who can write both, can cut both: keep the
directory where lines can only be added (`chattr +a`, a write-once store), or copy it elsewhere.
"""

import fcntl
import hmac
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from shared_kernel.domain.ports import Clock
from shared_kernel.domain.seals import AnchorBroken, Anchored, AnchorOutOfReach, Seal, SealsContradictAnchor

TAIL = 16 * 1024  # bytes at the end of the file in which the last two lines are looked for


@dataclass(frozen=True)
class FileAnchor:
    """`directory` and `key` (hexadecimal) are asked for at each call."""

    directory: Callable[[], Path]
    key: Callable[[], str]
    clock: Clock

    def head(self, chain: str) -> Anchored | None:
        with _opened(self._file(chain)) as file:
            last = self._last(file, chain) if file else None
        return _anchored(last) if last else None

    def append(self, seal: Seal) -> None:
        with _told(path := self._file(seal.chain)):
            self._append(seal, path)

    def lines(self, chain: str) -> Iterator[Anchored]:
        with _opened(self._file(chain)) as file:
            if file:
                yield from map(_anchored, self._checked(file, chain))

    def _append(self, seal: Seal, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not path.exists()
        with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            last = self._last(file, seal.chain)
            if last and (last["number"], last["hash"]) == (seal.number, seal.hash):
                return
            if seal.number != (last["number"] if last else 0) + 1:
                raise SealsContradictAnchor(f"{seal.chain}: seal {seal.number} does not follow the anchor's last line")
            file.write(_whole_line_before(file) + self._line(seal, last["mac"] if last else ""))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync(path.parent)

    def _checked(self, file: BinaryIO, chain: str) -> Iterator[dict[str, Any]]:
        """Every line, each held against the one before. What a crash has left of a line is passed over: it is not
        whole, and whether one is missing the numbers and macs of those that follow tell.
        """
        number, mac = 0, ""
        for place, written in enumerate(file, 1):
            line = _parsed(written)
            if line is None:
                continue
            if line["number"] != number + 1 or line["chain"] != chain or not self._is_ours(line, mac):
                raise AnchorBroken(
                    f"line {place} is not as it was written, or a line before it is missing, or SEAL_ANCHOR_KEY is"
                    " another one: compare the file with its copy"
                )
            number, mac = line["number"], line["mac"]
            yield line

    def _last(self, file: BinaryIO, chain: str) -> dict[str, Any] | None:
        """The last line, held against the one before: from the end of the file, or else from its beginning."""
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        lines = [line for written in file.readlines()[1 if size > TAIL else 0 :] if (line := _parsed(written))]
        if len(lines) < 2:
            file.seek(0)
            return max(self._checked(file, chain), key=lambda line: int(line["number"]), default=None)
        before, last = lines[-2:]
        if last["number"] != before["number"] + 1 or last["chain"] != chain or not self._is_ours(last, before["mac"]):
            raise AnchorBroken(f"the last line of the anchor of {chain} is not as it was written")
        return last

    def _line(self, seal: Seal, mac_before: str) -> bytes:
        line = {
            "chain": seal.chain,
            "number": seal.number,
            "last_seq": seal.last_seq,
            "rows": seal.row_count,
            "hash": seal.hash,
            "at": self.clock().astimezone(UTC).isoformat(timespec="microseconds"),
        }
        return json.dumps(line | {"mac": self._mac(line, mac_before)}).encode() + b"\n"

    def _is_ours(self, line: Mapping[str, Any], mac_before: str) -> bool:
        return hmac.compare_digest(self._mac(line, mac_before), str(line["mac"]))

    def _mac(self, line: Mapping[str, Any], mac_before: str) -> str:
        content = json.dumps({name: line[name] for name in sorted(line) if name != "mac"})
        return hmac.digest(bytes.fromhex(self.key()), f"{mac_before}\n{content}".encode(), sha256).hex()

    def _file(self, chain: str) -> Path:
        return self.directory() / f"{chain}.seals"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | None]:
    """The file to read; None where there is none."""
    with _told(path):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            yield file


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Has the system's errors told with the file's name and what to do."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise AnchorOutOfReach(f"{path}: {why}: SEAL_ANCHOR must name a directory of this process's user") from error


def _parsed(written: bytes) -> dict[str, Any] | None:
    """A whole line; None for a piece of one."""
    try:
        line = json.loads(written)
        types = {"chain": str, "number": int, "last_seq": int, "rows": int, "hash": str, "at": str, "mac": str}
        whole = isinstance(line, dict) and {name: type(value) for name, value in line.items()} == types
    except ValueError:
        return None
    return line if whole else None


def _anchored(line: Mapping[str, Any]) -> Anchored:
    return Anchored(line["number"], line["last_seq"], line["hash"], datetime.fromisoformat(line["at"]))


def _whole_line_before(file: BinaryIO) -> bytes:
    """What must stand between this line and the one before: a line end, if a crash has left a piece of a line."""
    if not file.seek(0, os.SEEK_END):
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _sync(directory: Path) -> None:
    """Makes a new file's name durable."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
