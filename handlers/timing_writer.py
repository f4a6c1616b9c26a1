"""Takes timings out of memory once their window is over, and writes them.

Owns: what has been taken and is not written yet, and its bound. Must not know SQL or how a percentile is computed.

While the database is away what was taken is kept, up to PENDING_BYTES; past that the oldest is given up and
counted. What may have been written, since only the answer was lost, is written again as the same batch. What the
database can never take, such as a name that its encoding does not have, is found by halves and given up alone.
"""

from __future__ import annotations

import asyncio

import structlog

from pipeline.core.window import Part, Windows, window_start
from pipeline.db.latency import Batch, LatencyStore
from pipeline.errors import QueryFailed
from pipeline.runtime import describe

PENDING_BYTES = 48 << 20  # half an hour of 100 series with 30 values each, a window of 10,000 series that are full
UNUSABLE = ("22", "23", "54")  # classes of SQLSTATE: the values are refused, today and tomorrow

log = structlog.get_logger("pgreflex.latency")


class TimingWriter:
    """own: what only this writer takes. shared: what several may take; this one does while it is its turn."""

    def __init__(self, store: LatencyStore, own: Windows, shared: Windows | None = None) -> None:
        self._store = store
        self._own = own
        self._shared = shared
        self.lock = asyncio.Lock()  # held while something is taken or written
        self._pending: list[tuple[Batch, int, Windows]] = []  # with the size, and where it comes from
        self._bytes = 0
        self._window = 0
        self._told = False

    def sources(self) -> list[Windows]:
        """What it takes from now."""
        if self._shared is not None and self._shared.is_read_by(self):
            return [self._own, self._shared]
        return [self._own]

    def enter(self) -> None:
        """Take part in what is shared."""
        if self._shared is not None:
            self._shared.enter(self)

    def leave(self) -> None:
        """No longer take part; what is still pending is given up."""
        if self._shared is not None:
            self._shared.leave(self)
        while self._pending:
            self._give_up()

    def pending(self) -> list[Part]:
        """What was taken and is not known to be written. Hold `lock` meanwhile."""
        return [part for batch, _size, _windows in self._pending for part in batch.parts]

    async def set_up(self) -> None:
        """Follow the database's clock, by which windows are judged, since hosts may be seconds apart."""
        for windows in self.sources():
            windows.slow_ms = self._own.slow_ms
        asked = [(windows, windows.clock()) for windows in self.sources()]
        server = await self._store.clock()
        for windows, before in asked:
            windows.ahead = server - (before + windows.clock()) / 2

    async def flush(self, *, everything: bool = False) -> None:
        """Write the windows that have closed; `everything`: the open ones too. Raises our database errors."""
        async with self.lock:
            window = window_start(self._own.moment())
            if everything or window != self._window:
                self._window = window
                for windows in self.sources():
                    for _ in windows.fold():
                        await asyncio.sleep(0)  # whoever else runs on this loop must not wait for all of it
                    self._keep(windows, windows.take(None if everything else windows.moment()))
            while self._pending:
                batch, size, _windows = self._pending[0]
                try:
                    await self._store.flush([batch])
                except QueryFailed as error:
                    if not error.sqlstate.startswith(UNUSABLE):
                        raise
                    self._halve(error)
                else:
                    del self._pending[0]
                    self._bytes -= size

    def _keep(self, windows: Windows, parts: list[Part]) -> None:
        for batch in self._store.number(parts):
            size = sum(part.size() for part in batch.parts)
            self._pending.append((batch, size, windows))
            self._bytes += size
        while self._bytes > PENDING_BYTES:
            self._give_up()

    def _halve(self, error: QueryFailed) -> None:
        """Try the halves of the first batch, of which nothing was written; one of a single part is given up."""
        batch, _size, windows = self._pending[0]
        if len(batch.parts) == 1:
            if not self._told:
                self._told = True
                log.warning("timings were given up", name=batch.parts[0].series.name, error=describe(error))
            self._give_up()
            return
        middle = len(batch.parts) // 2
        halves = [
            half for parts in (batch.parts[:middle], batch.parts[middle:]) for half in self._store.number(parts)
        ]
        self._pending[:1] = [(half, sum(part.size() for part in half.parts), windows) for half in halves]

    def _give_up(self) -> None:
        batch, size, windows = self._pending.pop(0)
        self._bytes -= size
        windows.give_up(sum(part.digest.count for part in batch.parts))
