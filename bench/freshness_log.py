"""What the processes of the freshness check write down, and how it is read again.

Owns: versions, the records, their files. Knows neither the cache nor what is right.

A VERSION is one number: how often the row has been raised, above TOKEN_BITS bits that name the transaction that
raised it. So versions of a row only grow, two transactions never write the same one, even where the first rolled
back, and two rows that one transaction wrote carry the same token.

Reads are many, so equal reads of one view and key are kept as one RUN: what was read, how often, the LAST time one
began, which is the hardest to satisfy for anything that should have been seen by then, and the FIRST time that
one returned, from which on nothing older may be seen. Both are real reads, so nothing is lost by this.

All times are nanoseconds of CLOCK_MONOTONIC, the same for every process of one machine.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TOKEN_BITS = 24
ABSENT = 0  # the version of a row that is not there, which no committed state lacks
FLUSH_SECONDS = 0.5  # what a process that is killed has not written down yet
SHELF = 10_000  # keys from here on are rows of the table that is truncated and refilled

COMMITTED, ABORTED, UNKNOWN = range(3)
KINDS = ("single", "pair", "bulk", "all", "merge", "copy", "truncate", "hold", "rollback", "plain", "own", "shelf")
VIEWS = ("cached", "query", "get_or_load", "slow", "old", "shelf", "shared", "snapshot", "nested")

_RECORD = struct.Struct("<cBHqqqqII")  # kind, view or outcome, key, version, three times, two counts
_TEXT = struct.Struct("<cxHI36p")  # kind, -, -, count, name
assert _TEXT.size <= _RECORD.size


class Run(NamedTuple):
    """Reads of one key through one view that all returned `version`. loads: those that a load was made for."""

    view: int
    key: int
    version: int
    last_invoke: int
    first_return: int
    first_invoke: int
    count: int
    loads: int


class Write(NamedTuple):
    """One row of one transaction. began: before its first statement. acked: when its end was known; of one that is
    noted as UNKNOWN before it commits, when that was. kind: the place of its name in KINDS."""

    outcome: int
    key: int
    version: int
    began: int
    acked: int
    kind: int = 0


class Own(NamedTuple):
    """From `since` on, this process must see `version` or a newer one of the key, since it wrote it itself."""

    key: int
    version: int
    since: int


class Torn(NamedTuple):
    """Two rows that are always written together were seen in states of different transactions."""

    view: int
    key: int
    first: int
    second: int
    invoke: int
    returned: int


class Note(NamedTuple):
    """Something that was counted."""

    name: str
    count: int


Record = Run | Write | Own | Torn | Note


def raised(version: int, token: int) -> int:
    """The version that follows, written by the transaction of this token."""
    return ((version >> TOKEN_BITS) + 1 << TOKEN_BITS) | token


def token(version: int) -> int:
    """Which transaction wrote it."""
    return version & (1 << TOKEN_BITS) - 1


def told(version: int) -> str:
    """A version for a person."""
    return "absent" if version == ABSENT else f"{version >> TOKEN_BITS} (by {token(version):x})"


class Log:
    """The file of one process. Call `flush` often: what is not flushed is lost with the process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._runs: dict[tuple[int, int], list[int]] = {}
        self._counts: Counter[str] = Counter()
        self._flushed = time.monotonic()

    def read(
        self, view: int, key: int, version: int, invoke: int, returned: int, *, loaded: bool, count: int
    ) -> None:
        """One read. count: 0 for the further rows of a read that returns several."""
        run = self._runs.get((view, key))
        if run is not None and run[0] == version:
            run[1] = max(run[1], invoke)
            run[4] += count
            run[5] += loaded
            return
        if run is not None:
            self._put(view, key, run)
        self._runs[view, key] = [version, invoke, returned, invoke, count, int(loaded)]

    def wrote(self, write: Write) -> None:
        self._write(b"W", write.outcome, write.key, write.version, write.began, write.acked, write.kind)

    def own(self, own: Own) -> None:
        self._write(b"O", 0, own.key, own.version, own.since)

    def torn(self, torn: Torn) -> None:
        self._write(b"T", torn.view, torn.key, torn.first, torn.second, torn.invoke, torn.returned)

    def note(self, name: str, count: int = 1) -> None:
        """Count something, for instance an error by its name."""
        self._counts[name] += count

    def flush(self, *, force: bool = False) -> None:
        """Write down everything, if FLUSH_SECONDS have passed."""
        now = time.monotonic()
        if not force and now - self._flushed < FLUSH_SECONDS:
            return
        self._flushed = now
        for (view, key), run in self._runs.items():
            self._put(view, key, run)
        self._runs.clear()
        for name, count in self._counts.items():
            self._file.write(_TEXT.pack(b"N", 0, count, name.encode()[:35]).ljust(_RECORD.size, b"\0"))
        self._counts.clear()
        self._file.flush()

    def close(self) -> None:
        """Write down everything, and end."""
        self.flush(force=True)
        self._file.close()

    def _put(self, view: int, key: int, run: list[int]) -> None:
        version, last_invoke, first_return, first_invoke, count, loads = run
        self._write(b"R", view, key, version, last_invoke, first_return, first_invoke, count, loads)

    def _write(self, kind: bytes, code: int, key: int, version: int, *rest: int) -> None:
        self._file.write(_RECORD.pack(kind, code, key, version, *rest, *(0,) * (5 - len(rest))))


def records(path: Path) -> Iterator[Record]:
    """What one process wrote, in its order; a last record that was cut off by its death is left out."""
    data = path.read_bytes()
    data = data[: len(data) - len(data) % _RECORD.size]
    for kind, code, key, version, a, b, c, count, loads in _RECORD.iter_unpack(data):
        match kind:
            case b"R":
                yield Run(code, key, version, a, b, c, count, loads)
            case b"W":
                yield Write(code, key, version, a, b, c)
            case b"O":
                yield Own(key, version, a)
            case b"T":
                yield Torn(code, key, version, a, b, c)
    for offset in range(0, len(data), _RECORD.size):
        if data[offset : offset + 1] == b"N":
            _kind, _none, count, name = _TEXT.unpack_from(data, offset)
            yield Note(name.decode(), count)
