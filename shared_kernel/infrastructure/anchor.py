"""The anchor as files: one a chain, to which a line is added for each Seal, in a directory outside of the database.

`<chain>.seals` is the first; one that two people had begun anew is `<chain>.<generation>.seals`, whose first line says
from which Seal, and all the new starts so far. Only the newest counts; those before stay as they are.

A line is a JSON object that ends with its `mac`: HMAC-SHA256 over the line before's mac and this line without its own,
by a key that no user of the database can read. So no line can be made, changed, moved or taken out without the key;
lines cut off at the end are missed by the database, which has the Seals. Who can write both, can cut both: keep the
directory where lines can only be added (`chattr +a`, a write-once store), or copy it elsewhere.
"""

import fcntl
import hmac
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from shared_kernel.domain.ports import Clock
from shared_kernel.domain.seals import (
    BEFORE_ALL,
    GENESIS,
    AnchorBroken,
    Anchored,
    AnchorOutOfReach,
    NewStart,
    Seal,
    SealsContradictAnchor,
)

LINE = {"chain": str, "number": int, "last_seq": int, "rows": int, "hash": str, "at": str, "mac": str}
FIRST_LINE = LINE | {"generation": int, "new_starts": list}
TAIL = 16 * 1024  # bytes at the end of the file in which the last two lines are looked for


@dataclass(frozen=True)
class FileAnchor:
    """`directory` and `key` (hexadecimal) are asked for at each call."""

    directory: Callable[[], Path]
    key: Callable[[], str]
    clock: Clock

    def head(self, chain: str) -> Anchored | None:
        with _opened(path := self._file(chain)) as file:
            last = self._last(file, chain, _generation(path)) if file else None
        return _anchored(last) if last else None

    def append(self, seal: Seal) -> None:
        with _told(path := self._file(seal.chain)):
            self._append(seal, path)

    def lines(self, chain: str) -> Iterator[Anchored]:
        with _opened(path := self._file(chain)) as file:
            if file:
                yield from map(_anchored, self._checked(file, chain, _generation(path)))

    def find(self, chain: str, numbers: Collection[int]) -> dict[int, Anchored]:
        with _opened(self._file(chain)) as file:
            if file is None:
                raise AnchorOutOfReach(f"there is no anchor of {chain} here: SEAL_ANCHOR must name its directory")
            found = {number: self._line_of(file, chain, number) for number in numbers}
        return {number: line for number, line in found.items() if line is not None}

    def generation(self, chain: str) -> int:
        return _generation(self._file(chain))

    def begin(self, chain: str, head: Seal | None, new_starts: Sequence[NewStart]) -> None:
        newest, generation = new_starts[-1], new_starts[-1].generation
        path = self.directory() / f"{chain}.{generation}.seals"
        tip = (head.number, head.hash) if head else (0, GENESIS)
        with _told(path):
            there = max(self._generations(chain), default=1)
            if there > generation:
                raise SealsContradictAnchor(f"{chain}: there is an anchor of generation {there} already: look again")
            with self._to_append(path) as file:
                if any(_parsed(written) for written in file.readlines()):
                    first = next(self.lines(chain))
                    if first.new_starts[-1:] == (newest,) and (first.number, first.hash) == tip:
                        return
                    raise SealsContradictAnchor(f"{path} is there already, and begins with another seal: look again")
                line = {
                    "chain": chain,
                    "generation": generation,
                    "number": tip[0],
                    "last_seq": head.last_seq if head else BEFORE_ALL,
                    "rows": head.row_count if head else 0,
                    "hash": tip[1],
                    "at": self._now(),
                    "new_starts": [asdict(one) for one in new_starts],
                }
                self._write(file, line, "")

    def _append(self, seal: Seal, path: Path) -> None:
        with self._to_append(path) as file:
            last = self._last(file, seal.chain, _generation(path))
            if last and (last["number"], last["hash"]) == (seal.number, seal.hash):
                return
            if seal.number != (last["number"] if last else 0) + 1:
                raise SealsContradictAnchor(f"{seal.chain}: seal {seal.number} does not follow the anchor's last line")
            line = {
                "chain": seal.chain,
                "number": seal.number,
                "last_seq": seal.last_seq,
                "rows": seal.row_count,
                "hash": seal.hash,
                "at": self._now(),
            }
            self._write(file, line, last["mac"] if last else "")

    @contextmanager
    def _to_append(self, path: Path) -> Iterator[BinaryIO]:
        """The file, locked, made if it is not there."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not path.exists()
        with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file
        if is_new:
            _sync(path.parent)

    def _write(self, file: BinaryIO, line: Mapping[str, Any], mac_before: str) -> None:
        written = json.dumps({**line, "mac": self._mac(line, mac_before)}).encode() + b"\n"
        file.write(_whole_line_before(file) + written)
        file.flush()
        os.fsync(file.fileno())

    def _checked(self, file: BinaryIO, chain: str, generation: int) -> Iterator[dict[str, Any]]:
        """Every line, each held against the one before. What a crash has left of a line is passed over: it is not
        whole, and whether one is missing the numbers and macs of those that follow tell.
        """
        number, mac = 0, ""
        for place, written in enumerate(file, 1):
            line = _parsed(written)
            if line is None:
                continue
            begins = generation > 1 and not mac
            is_next = line.get("generation") == generation if begins else line["number"] == number + 1
            if (
                not is_next
                or ("new_starts" in line) != begins
                or line["chain"] != chain
                or not self._is_ours(line, mac)
            ):
                raise AnchorBroken(
                    f"line {place} is not as it was written, or a line before it is missing, or SEAL_ANCHOR_KEY is"
                    " another one: compare the file with its copy"
                )
            number, mac = line["number"], line["mac"]
            yield line

    def _last(self, file: BinaryIO, chain: str, generation: int) -> dict[str, Any] | None:
        """The last line, held against the one before: from the end of the file, or else from its beginning."""
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        lines = [line for written in file.readlines()[1 if size > TAIL else 0 :] if (line := _parsed(written))]
        if len(lines) < 2:
            file.seek(0)
            return max(self._checked(file, chain, generation), key=lambda line: int(line["number"]), default=None)
        if not self._follows(lines[-1], lines[-2], chain):
            raise AnchorBroken(f"the last line of the anchor of {chain} is not as it was written")
        return lines[-1]

    def _follows(self, line: Mapping[str, Any], before: Mapping[str, Any], chain: str) -> bool:
        is_next = line["number"] == before["number"] + 1 and line["chain"] == chain and "new_starts" not in line
        return is_next and self._is_ours(line, before["mac"])

    def _line_of(self, file: BinaryIO, chain: str, number: int) -> Anchored | None:
        """Found by halving, for lines stand in the order of their numbers, and held against the line before it."""
        low, high = 0, file.seek(0, os.SEEK_END)
        while high - low > TAIL:
            file.seek(middle := (low + high) // 2)
            file.readline()
            line = next((line for written in file if (line := _parsed(written))), None)
            if line is None or line["number"] >= number:
                high = middle
            else:
                low = middle
        file.seek(max(0, low - TAIL))
        before: dict[str, Any] | None = None
        for place, written in enumerate(file):
            line = _parsed(written) if place or low <= TAIL else None  # the first may be the end of one
            if line is None:
                continue
            if line["number"] >= number:
                follows = self._is_ours(line, "") if before is None else self._follows(line, before, chain)
                if not follows:
                    raise AnchorBroken(f"the line of seal {number} of {chain} is not as it was written")
                return _anchored(line) if line["number"] == number or "new_starts" in line else None
            before = line
        return None

    def _now(self) -> str:
        return self.clock().astimezone(UTC).isoformat(timespec="microseconds")

    def _is_ours(self, line: Mapping[str, Any], mac_before: str) -> bool:
        return hmac.compare_digest(self._mac(line, mac_before), str(line["mac"]))

    def _mac(self, line: Mapping[str, Any], mac_before: str) -> str:
        content = json.dumps({name: line[name] for name in sorted(line) if name != "mac"})
        return hmac.digest(bytes.fromhex(self.key()), f"{mac_before}\n{content}".encode(), sha256).hex()

    def _file(self, chain: str) -> Path:
        """The newest; the first where there is none."""
        with _told(directory := self.directory()):
            newest = max(self._generations(chain), default=1)
        return directory / (f"{chain}.seals" if newest == 1 else f"{chain}.{newest}.seals")

    def _generations(self, chain: str) -> list[int]:
        """Of those that were begun anew. Raises `OSError`."""
        return [_generation(path) for path in self.directory().glob(f"{chain}.*.seals")]


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


def _generation(path: Path) -> int:
    """By its name; one that is not ours is older than all of them."""
    parts = path.name.split(".")
    return int(parts[1]) if len(parts) == 3 and parts[1].isascii() and parts[1].isdigit() else 1


def _parsed(written: bytes) -> dict[str, Any] | None:
    """A whole line; None for a piece of one."""
    try:
        line = json.loads(written)
        whole = isinstance(line, dict) and {name: type(value) for name, value in line.items()} in (LINE, FIRST_LINE)
    except ValueError:
        return None
    return line if whole else None


def _anchored(line: Mapping[str, Any]) -> Anchored:
    new_starts = tuple(NewStart(**one) for one in line.get("new_starts", ()))
    return Anchored(line["number"], line["last_seq"], line["hash"], datetime.fromisoformat(line["at"]), new_starts)


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
