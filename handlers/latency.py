"""Timings: from events and from this process, through windows in memory, to Postgres.

Owns: what becomes a series, and when windows are written. Must not know SQL or how a percentile is computed.

A window of five seconds is written within a second of its close, one part for each series; that is also what
alerts of short windows are judged on. A crash loses the open window and what was not written yet, at most the
last six seconds while the database answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import structlog

from handlers.timing_writer import TimingWriter
from pipeline.core.events import OP_NAMES, Event
from pipeline.core.status import TimingsStatus, sum_of_timings
from pipeline.core.window import BASE_SECONDS, Windows
from pipeline.db.latency import LatencyStore
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe

TICK_SECONDS = 1.0
AFTER_SECONDS = (0.25, 0.75)  # the close of a window; not all processes at once
CLOCK_SECONDS = 5.0
END_SECONDS = 5.0  # for the last of them, when the process ends

log = structlog.get_logger("pgreflex.latency")


class LatencyRecorder:
    """Records timings. A Service, and an EventConsumer for the feed.

    clock: Unix seconds, for timings that bring no time of their own. windows: for other bounds. slow_ms: the
    threshold for slow. shared: timings of the process, which the recorder that was started first writes, of those
    that still run; its threshold holds.
    """

    name = "latency"

    def __init__(
        self,
        store: LatencyStore,
        *,
        clock: Callable[[], float] = time.time,
        windows: Windows | None = None,
        slow_ms: float = 1000.0,
        shared: Windows | None = None,
    ) -> None:
        self._store = store
        self.windows = windows or Windows(clock, slow_ms=slow_ms)
        self._writer = TimingWriter(store, self.windows, shared)
        self._problem = ""
        self._stopping = asyncio.Event()
        self._clock_due = 0.0
        self._after = random.uniform(*AFTER_SECONDS)  # noqa: S311 - only spreads the load

    # What comes in

    def record(self, name: str, ms: float, *, error: bool = False) -> None:
        """Count one timing of this process, in milliseconds. Returns at once and never raises."""
        self.windows.series(name).add(ms, error=error)

    async def handle(self, events: Sequence[Event]) -> None:
        """Take the timings out of events: statements of watched tables that were timed."""
        now = self.windows.moment()
        for event in events:
            at = now if event.at is None else event.at
            if event.op != "e" and event.ms is not None:
                self.windows.series(f"{event.name}.{OP_NAMES[event.op]}", source="table").add_at(event.ms, at)

    async def missed(self, reason: str) -> None:
        """Timings may be missing; nothing that is stored becomes untrue by it."""
        log.info("timings may be missing", reason=reason)

    # What goes out

    async def flush(self, *, everything: bool = False) -> None:
        """Write the windows that have closed; `everything`: the open ones too. Raises our database errors."""
        await self._writer.flush(everything=everything)

    def totals(self) -> TimingsStatus:
        """What became of the timings that this process takes care of, since its start."""
        return sum_of_timings(windows.totals() for windows in self._writer.sources())

    # The service

    def enter(self) -> None:
        """Take part in what is shared, from now on."""
        self._writer.enter()

    async def start(self) -> None:
        self.enter()
        await self._writer.set_up()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._tick()
                self._problem = ""
            except PgreflexError as error:  # what was recorded is kept; the next tick tries again
                if not self._problem:
                    log.warning("timings cannot be written", error=describe(error))
                self._problem = describe(error)
            try:
                async with asyncio.timeout(self._pause()):
                    await self._stopping.wait()
            except TimeoutError:
                pass
        await self._end()

    def _pause(self) -> float:
        """Seconds until the next tick; a window that closes is written soon after, so that rules find it."""
        return min(TICK_SECONDS, BASE_SECONDS - (self.windows.moment() - self._after) % BASE_SECONDS)

    async def stop(self) -> None:
        self._stopping.set()

    async def close(self) -> None:
        """Write what there is, and leave what is shared to the next one. What cannot be written is counted."""
        try:
            await self._end()
        finally:
            self._writer.leave()

    def healthy(self) -> Health:
        if self._problem:
            return Health(False, self._problem)
        totals = self.totals()
        if totals.dropped_total:
            return Health(True, f"{totals.dropped_total} timings were dropped while nobody wrote them")
        if totals.overflowed_total:
            return Health(True, f"more than {self.windows.max_series} series; the rest goes to 'other'")
        return Health(True, f"{totals.series} series")

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.flush(everything=True)
        except (PgreflexError, TimeoutError) as error:
            lost = sum(part.digest.count for part in self._writer.pending())
            log.warning("timings could not be written", timings=lost, error=describe(error))

    async def _tick(self) -> None:
        await self.flush()
        now = asyncio.get_running_loop().time()
        if now >= self._clock_due:
            self._clock_due = now + CLOCK_SECONDS
            await self._writer.set_up()
