"""Reads on standbys whose values the cache may keep.

Owns: when a standby is asked in place of the primary, and what is known of the rows that it gives. Knows nothing
of entries; how far is far enough is told by pipeline/core/replicas.py.

A read goes to a standby that has replayed all that the feed has delivered, so its value is as fresh as what the
cache holds. One that lags gets a few milliseconds; then the read goes to the primary, and for a moment so do all.
While the feed proves nothing they do, too. So the promise holds for every read, and a standby that lags costs the
primary some load, but nobody gets an old value.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from pipeline.core.events import Batch
from pipeline.core.freshness import Probe
from pipeline.core.replicas import Marks
from pipeline.core.snapshot import BEGINNING, Loose, Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Connection, Database, translated
from pipeline.db.foreign import fetchval
from pipeline.db.statements import statement
from pipeline.errors import DatabaseUnavailable, NotInstalled, QueryFailed, UsageError

LOOKS = 4  # at how far the standby is, before the primary is asked
LOOK_SECONDS = 0.003  # between two
REST_SECONDS = 0.25  # without looks, after a standby that lagged or could not be asked
CONFLICT = "40001"  # the standby cancelled the query, since replaying had to remove what it might see

log = structlog.get_logger("pgreflex.replicas")


class Contained(msgspec.Struct, frozen=True):
    """What a session sees at the least; see pipeline.contained. wal: None on a server that takes writes."""

    epoch: str | None
    wal: int | None
    seen: str


_contained = msgspec.json.Decoder(Contained)


class Replicas:
    """A CacheSource that reads on `standbys` where it may, and else as `primary` does; and a FeedSink."""

    def __init__(self, primary: CacheDatabase, standbys: Database | None) -> None:
        self.marks = Marks()
        self.proved: Callable[[], bool] = lambda: True  # whether the cache may serve now
        # role and settings of the primary's sessions, under which keys are made and tags are found; None: unknown
        self.settings: Callable[[], list[str] | None] = lambda: None
        self.standby_reads = 0
        self.primary_reads = 0
        self._primary = primary
        self._standbys = standbys
        self._rest_until = 0.0
        self._failure = ""
        self._settings: list[str] | None = None  # of the standbys' sessions
        if standbys is not None:
            standbys.greet = self._greet

    async def probe(self) -> Probe:
        return await self._primary.probe()

    async def invalidate(self, tags: Sequence[str] | None, prefix: str | None) -> int:
        return await self._primary.invalidate(tags, prefix)

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        """The rows of a query, and a snapshot all of which they contain. Raises our errors only."""
        found = None
        if self._standbys is not None and self.proved() and time.monotonic() >= self._rest_until:
            try:
                found = await self._read_there(self._standbys, query, args, timeout)
                self._failure = "" if found else "it lags"
            except (DatabaseUnavailable, NotInstalled, UsageError) as error:
                self._note(error.message)
            except QueryFailed as error:
                if error.sqlstate != CONFLICT:
                    raise
            if found is None and self._failure:
                self._rest_until = time.monotonic() + REST_SECONDS
        if found is not None:
            self.standby_reads += 1
            return found
        self.primary_reads += 1
        return await self._primary.read(query, args, timeout=timeout)

    async def snapshot_of(self, connection: object) -> Snapshot:
        """All of which is seen by whatever is read on this connection from now on, on a standby, too."""
        known = _contained.decode(await fetchval(connection, statement("cache/contained"), ()))
        return self._known(known) or BEGINNING

    def on_batch(self, batch: Batch) -> None: ...

    def on_position(self, position: Snapshot) -> None:
        self.marks.on_position(position)

    def on_flush(self, reason: str) -> None:
        self.marks.on_flush()

    def on_down(self, reason: str) -> None:
        self.marks.on_flush()

    async def _read_there(
        self, standbys: Database, query: str, args: Sequence[Any], timeout: float | None
    ) -> tuple[list[dict[str, Any]], Snapshot] | None:
        """None: the standby has not come far enough."""
        async with standbys.acquire() as connection:
            ours = self.settings()
            if None not in (ours, self._settings) and ours != self._settings:
                raise UsageError("sessions there have another role or other settings than on the primary")
            reached = await self._reached(connection)
            if reached is None:
                return None
            with translated():
                rows = await connection.fetch(query, *args, timeout=timeout)
        return [dict(row) for row in rows], reached

    async def _greet(self, connection: Connection) -> bool:
        known, self._settings = self._settings, await connection.fetchval(statement("cache/settings"))
        return known is not None and known != self._settings

    async def _reached(self, connection: Connection) -> Snapshot | None:
        needed = self.marks.newest
        for look in range(LOOKS):
            if look:
                await asyncio.sleep(LOOK_SECONDS)
            known = _contained.decode(await connection.fetchval(statement("cache/contained")))
            if needed is not None and (known.wal is None or known.wal >= needed):
                return self._known(known)
        return None

    def _known(self, known: Contained) -> Snapshot | None:
        """None: it may be of another history, or not as far as anything that was delivered."""
        if known.epoch is None or (self.marks.epoch and known.epoch != self.marks.epoch):
            return None
        if known.wal is None:
            return Snapshot.parse(known.seen)
        mark = self.marks.at(known.epoch, known.wal)
        return Loose.of(mark or Snapshot.parse(known.seen))

    def _note(self, failure: str) -> None:
        if not self._failure:
            log.warning("a standby cannot be read; the primary is, instead", error=failure)
        self._failure = failure
