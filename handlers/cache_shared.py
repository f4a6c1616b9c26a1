"""The cache's second level: one table that all processes share.

Owns: asking it before a value is loaded, writing to it beside the requests, waiting for another process that
loads. What a row may be used for is decided in pipeline/core/cache_shared.py.

A read never fails and hardly waits because of the table: an error or a quarter of a second without an answer
means to load, and to leave the table alone for a while. Writing is done by a Service, from a short queue.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from handlers.cache_seams import Loaded, Use
from pipeline.core.cache import CacheCore
from pipeline.core.cache_codec import Foreign, Unshareable, decode, encode
from pipeline.core.cache_shared import Breaker, HandedOut, SharedRow, lease_seconds, may_use, provable, stands
from pipeline.core.snapshot import Snapshot
from pipeline.core.status import SharedStatus
from pipeline.core.store import Entry
from pipeline.db.cache_shared import Answer, NewRow
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

READ_SECONDS = 0.25
RAISE_SECONDS = 10.0  # a row that is in use is never much older than this, which a process that begins can accept
MOST_QUEUED = 1_000
MOST_A_BATCH = 100
MOST_RAISED = 10_000
LARGEST_VALUE = 1024 * 1024  # bytes, and of a batch
FIRST_LOOK, LONGEST_LOOK = 0.004, 0.1  # seconds between two looks whether another process has loaded it

T = TypeVar("T")
log = structlog.get_logger("pgreflex.cache")


class Table(Protocol):
    """What is needed of the table; pipeline.db.cache_shared.SharedTable is one."""

    async def settings(self) -> str: ...

    async def get(
        self, key: bytes, epoch: str, refused: SharedRow | None, owner: int, lease: float, *, timeout: float
    ) -> Answer: ...

    async def put(self, epoch: str, owner: int, rows: Sequence[NewRow]) -> Snapshot | None: ...

    async def raise_to(self, epoch: str, snapshot: Snapshot, rows: Sequence[tuple[bytes, int]]) -> bool: ...

    async def release(self, owner: int, keys: Sequence[bytes]) -> None: ...

    async def turn(self) -> bool: ...


class SharedLevel:
    """A SharedCache, and the Service that writes. by_default: whether what says nothing of it is shared."""

    name = "cache-shared"

    def __init__(
        self, table: Table, *, by_default: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.by_default = by_default
        self.figures = SharedStatus()
        self.handed_out = HandedOut()
        self._table = table
        self._clock = clock
        self._core: CacheCore | None = None
        self._owner = secrets.randbits(63)
        self._breaker = Breaker()
        self._settings: str | None = None
        self._flushes = -1
        self._queue: dict[bytes, tuple[Use, Entry, float]] = {}
        self._released: set[bytes] = set()
        self._names: dict[Hashable, bytes] = {}
        self._news = asyncio.Event()
        self._stopping = False
        self._failure = ""

    def join(self, core: CacheCore) -> None:
        """Serve the cache that this is the core of."""
        self._core = core

    async def settings(self) -> str | None:
        """A digest of the settings of this program's sessions; asked for once."""
        if self._settings is None and self._breaker.closed(self._clock()):
            try:
                async with asyncio.timeout(READ_SECONDS):
                    self._settings = await self._table.settings()
            except (PgreflexError, TimeoutError) as error:
                self._failed(error)
        return self._settings

    async def get(self, use: Use, tags: frozenset[str] | None, load_seconds: float | None = None) -> Loaded | None:
        """A value that may be served now; None: load it.

        Between the judgement and the return nothing is awaited.
        """
        refused, look = None, FIRST_LOOK
        waited_until = self._clock() + 2 * lease_seconds(load_seconds)
        while True:
            answer = await self._ask(use.name, refused, lease_seconds(load_seconds))
            if answer is None:
                return None
            if answer.row is not None:
                value = self._taken(use, answer.row, tags)
                if value is not None:
                    return value
                refused, load_seconds = answer.row, answer.row.load_ms / 1000
            elif answer.wait is None:
                self.figures.misses += refused is None
                return None
            else:
                self.figures.waited += look == FIRST_LOOK
                if self._clock() > waited_until:
                    return None
                await asyncio.sleep(min(look, answer.wait + 0.001) * random.uniform(0.5, 1))  # noqa: S311
                look = min(2 * look, LONGEST_LOOK)

    def put(self, use: Use, entry: Entry) -> None:
        """Share what stands in the store, soon."""
        if len(self._queue) >= MOST_QUEUED and use.name not in self._queue:
            self.figures.skipped += 1
            return
        self._queue[use.name] = (use, entry, self.handed_out.when(use.key))
        self._news.set()

    def release(self, use: Use) -> None:
        """It was not loaded, or is not to be shared: let others load it."""
        if len(self._released) < MOST_QUEUED:
            self._released.add(use.name)
            self._news.set()

    def loaded(self, use: Use) -> None:
        """It was loaded here, and is handed out."""
        self.handed_out.had(use.key, self._clock())

    def probed(self, asked: float, answer: Snapshot) -> None:
        """The database said where it stands; the question was sent at `asked`."""
        if self._core is not None and self._core.flushes != self._flushes:
            self._flushes = self._core.flushes
            self.handed_out.flush()  # another epoch may have begun
        self.handed_out.probed(asked, answer)

    async def start(self) -> None:
        self._stopping = False

    async def run(self) -> None:
        """Write what was put, and say every ten seconds what is still true, until `stop`."""
        due = self._clock() + RAISE_SECONDS * random.uniform(0.5, 1)  # noqa: S311 - so that processes take turns
        while not self._stopping:
            await wait_for(self._news, max(due - self._clock(), 0.01))
            self._news.clear()
            await self._tried(self._write)
            if self._clock() >= due:
                due = self._clock() + RAISE_SECONDS
                await self._tried(self.raise_rows)

    async def stop(self) -> None:
        self._stopping = True
        self._news.set()

    def healthy(self) -> Health:
        if self._breaker.closed(self._clock()):
            return Health(True)
        return Health(False, f"doing without for a moment: {self._failure}")

    async def raise_rows(self) -> None:
        """Say of the rows whose values stand in the store that they are still true."""
        core = self._core
        if core is None:
            return
        held = [entry for entry in core.store.entries.values() if entry.shared][-MOST_RAISED:]
        for start in range(0, len(held), MOST_A_BATCH):
            position, epoch = core.position, core.epoch
            if position is None or epoch is None:
                return
            rows = [
                (name, entry.shared)
                for entry in held[start : start + MOST_A_BATCH]
                if stands(core, entry) and (name := self._names.get(entry.key)) is not None
            ]
            if rows and not await self._roomy(partial(self._table.raise_to, epoch, position, rows)):
                return
            self.figures.raised += len(rows)
        self._names = {entry.key: self._names[entry.key] for entry in held if entry.key in self._names}

    async def _ask(self, name: bytes, refused: SharedRow | None, lease: float) -> Answer | None:
        """What the table says; None: it says nothing, or nothing that could be served."""
        core = self._core
        now = self._clock()
        if core is None or core.epoch is None or now > core.freshness.valid_until or not self._breaker.closed(now):
            return None
        epoch = core.epoch
        try:
            async with asyncio.timeout(READ_SECONDS):
                answer = await self._table.get(name, epoch, refused, self._owner, lease, timeout=READ_SECONDS)
        except (PgreflexError, TimeoutError) as error:
            self._failed(error)
            return None
        except ValueError as error:
            self._warn_of(error)
            return None
        self._breaker.worked()
        return answer if core.epoch == epoch else None

    def _taken(self, use: Use, row: SharedRow, tags: frozenset[str] | None) -> Loaded | None:
        core, now = self._core, self._clock()
        if core is None or not (may_use(core, tags, row, now) and self.handed_out.allows(use.key, row)):
            self.figures.refused += 1
            return None
        try:
            value = decode(row.value, use.returns)
        except Foreign as error:
            self._warn_of(error)
            return None
        self.figures.hits += 1
        self.handed_out.had(use.key, now, row)
        self._names[use.key] = use.name
        return Loaded(value, row.snapshot, tuple(row.tags), ttl=row.left, row=row)

    async def _write(self) -> None:
        while self._queue or self._released:
            core = self._core
            rows: list[tuple[NewRow, Entry, float]] = []
            size = 0
            while core is not None and self._queue and len(rows) < MOST_A_BATCH and size < LARGEST_VALUE:
                name = next(iter(self._queue))
                row = self._row(core, *self._queue.pop(name))
                if row is None:
                    self._released.add(name)
                else:
                    rows.append(row)
                    size += len(row[0].value)
            if core is not None and rows and core.epoch is not None:
                await self._put(core, core.epoch, rows)
            released, self._released = list(self._released), set()
            if released:
                await self._table.release(self._owner, released)

    def _row(self, core: CacheCore, use: Use, entry: Entry, when: float) -> tuple[NewRow, Entry, float] | None:
        now = self._clock()
        if not stands(core, entry) or entry.expires_at <= now:
            return None
        try:
            value = encode(entry.value, use.returns, at_most=LARGEST_VALUE)
        except Unshareable as error:
            self.figures.unshareable += 1
            if self.figures.unshareable == 1:
                log.warning(
                    "a value cannot be shared with other processes", namespace=use.namespace, reason=str(error)
                )
            return None
        snapshot = provable(core, entry)
        if snapshot is None:
            return None
        ttl = None if entry.expires_at == float("inf") else entry.expires_at - now
        version = secrets.randbits(63) or 1
        tags = tuple(sorted(entry.tags))
        row = NewRow(use.name, version, use.namespace, value, tags, snapshot, ttl, entry.load_seconds * 1000)
        self._names[use.key] = use.name
        return row, entry, when

    async def _put(self, core: CacheCore, epoch: str, rows: list[tuple[NewRow, Entry, float]]) -> None:
        new = [row for row, _entry, _when in rows]
        upper = await self._roomy(partial(self._table.put, epoch, self._owner, new))
        if not upper:
            self.figures.skipped += len(rows)
            return
        self.figures.stored += len(rows)
        for row, entry, when in rows:
            entry.shared = row.version
            if stands(core, entry):
                self.handed_out.wrote(entry.key, when, row.version, upper)

    async def _roomy(self, step: Callable[[], Awaitable[T]]) -> T | None:
        """Do it, and once more after room was made; None, or what it returned: there is none."""
        return await step() or (await step() if await self._table.turn() else None)

    async def _tried(self, step: Callable[[], Any]) -> None:
        if not self._breaker.closed(self._clock()):
            self.figures.skipped += len(self._queue)
            self._queue.clear()
            self._released.clear()
            return
        try:
            await step()
        except PgreflexError as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        now = self._clock()
        self.figures.failures += 1
        if self._breaker.closed(now):
            self._failure = describe(error)
            log.warning("the shared table does not answer; doing without for a moment", error=self._failure)
        self._breaker.failed(now)

    def _warn_of(self, error: Exception) -> None:
        self.figures.foreign += 1
        if self.figures.foreign == 1:
            log.warning("a row of the shared table is not what the cache wrote; ignoring it", error=str(error))
