"""Timings: from events and from this process, through windows in memory, to Postgres.

Owns: what becomes a series, when windows are written, rolled up and pruned. Must not know SQL or how a
percentile is computed.

A window of five seconds is written within a second of its close, one part for each series; that is also what
alerts of short windows are judged on. A crash loses the open window and what was not written yet, at most the
last six seconds while the database answers. While it does not, parts are kept, up to MAX_PENDING of them;
past that the newest are dropped and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from pipeline.core.digest import Digest
from pipeline.core.events import OP_NAMES, Event
from pipeline.core.status import Quantiles, SeriesStatus
from pipeline.core.window import Part, Windows
from pipeline.db.latency import Batch, LatencyStore
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe

TIMING_CHANNEL = "pipeline.timing"
TICK_SECONDS = 1.0
ROLL_SECONDS = 10.0
PRUNE_SECONDS = 300.0
STATUS_SECONDS = 5.0
STATUS_WINDOW_SECONDS = 300.0
STATUS_SERIES = 100  # the busiest; the status is for people, the full list is pipeline.latency()
MAX_PENDING = 60_000  # parts; about 200 MB at the very worst, far less with usual traffic

log = structlog.get_logger("pgreflex.latency")


class _Timing(msgspec.Struct):
    """The payload of an event on TIMING_CHANNEL."""

    name: str
    ms: float
    labels: dict[str, object] = {}


class LatencyRecorder:
    """Records timings. A Service, and an EventConsumer for the feed.

    leading: whether this process leads; only the leader rolls up and prunes. clock: Unix seconds, for timings
    that bring no time of their own. windows: for another threshold or bound.
    """

    name = "latency"

    def __init__(
        self,
        store: LatencyStore,
        *,
        leading: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        windows: Windows | None = None,
    ) -> None:
        self._store = store
        self._leading = leading
        self._clock = clock
        self.windows = windows or Windows(clock)
        self.dropped_total = 0
        self.unreadable_total = 0
        self._pending: list[Batch] = []
        self._status: tuple[SeriesStatus, ...] = ()
        self._problem = ""
        self._stopping = asyncio.Event()
        self._due = {"roll_up": 0.0, "prune": 0.0, "status": 0.0}
        self._flushing = asyncio.Lock()

    # What comes in

    def record(self, name: str, ms: float, *, error: bool = False) -> None:
        """Count one timing of this process, in milliseconds. Returns at once and never raises."""
        self.windows.series(name).add(ms, error=error)

    async def handle(self, events: Sequence[Event]) -> None:
        """Take the timings out of events: statements that were timed, and `pipeline.record_timing`."""
        now = self._now()
        for event in events:
            at = now if event.at is None else event.at
            if event.op == "e":
                if event.name == TIMING_CHANNEL:
                    self._take_timing(event.payload, at)
            elif event.ms is not None:
                self.windows.series(f"{event.name}.{OP_NAMES[event.op]}", source="table").add_at(event.ms, at)

    async def missed(self, reason: str) -> None:
        """Timings may be missing; nothing that is stored becomes untrue by it."""
        log.info("timings may be missing", reason=reason)

    def _take_timing(self, payload: str | None, at: float) -> None:
        try:
            timing = msgspec.json.decode(payload or "", type=_Timing)
        except msgspec.DecodeError:
            self.unreadable_total += 1
            return
        self.windows.series(timing.name, timing.labels, source="sql").add_at(timing.ms, at)

    # What goes out

    async def flush(self, *, everything: bool = False) -> None:
        """Write the windows that have closed; `everything`: the open ones too. Raises our database errors."""
        async with self._flushing:
            taken = self.windows.take(None if everything else self._now())
            room = max(MAX_PENDING - sum(len(batch.parts) for batch in self._pending), 0)
            self.dropped_total += sum(part.digest.count for part in taken[room:])
            self._pending += self._store.number(taken[:room])
            while self._pending:
                await self._store.flush(self._pending[:1])
                del self._pending[:1]

    async def quantiles(self, window_seconds: float) -> dict[str, SeriesStatus]:
        """Every series over the last `window_seconds` (at most 900), from the database and this memory."""
        since = self._now() - window_seconds
        merged: dict[str, Part] = {}
        async with self._flushing:  # or a part that is just being written would count twice
            written = await self._store.recent(window_seconds)
            with self.windows.lock:
                unwritten = [part for batch in self._pending for part in batch.parts] + self.windows.parts()
                for part in written + [part for part in unwritten if part.start > since]:
                    _merge(merged, part)
        return {name: _status(part, window_seconds) for name, part in merged.items()}

    def status(self) -> tuple[SeriesStatus, ...]:
        """The busiest series over the last five minutes, from all processes; at most a few seconds old."""
        return self._status

    # The service

    async def start(self) -> None:
        await self._set_clock()

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
                async with asyncio.timeout(TICK_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                pass
        await self.flush(everything=True)

    async def stop(self) -> None:
        self._stopping.set()

    def healthy(self) -> Health:
        if self._problem:
            return Health(False, self._problem)
        if self.dropped_total:
            return Health(True, f"{self.dropped_total} timings were dropped while the database was away")
        if self.windows.overflowed_total:
            return Health(True, f"more than {self.windows.max_series} series; the rest goes to 'other'")
        return Health(True, f"{self.windows.live_series()} series")

    async def _tick(self) -> None:
        await self.flush()
        if self._is_due("status", STATUS_SECONDS):
            await self._set_clock()
            found = await self.quantiles(STATUS_WINDOW_SECONDS)
            busiest = sorted(found.values(), key=lambda series: (-series.latency.count, series.name))
            self._status = tuple(busiest[:STATUS_SERIES])
        if self._leading():
            if self._is_due("roll_up", ROLL_SECONDS):
                await self._store.roll_up()
            if self._is_due("prune", PRUNE_SECONDS):
                await self._store.prune()

    def _now(self) -> float:
        return self._clock() + self.windows.ahead

    async def _set_clock(self) -> None:
        """Follow the database's clock: windows are judged by it, and hosts may be seconds apart."""
        before = self._clock()
        server = await self._store.clock()
        self.windows.ahead = server - (before + self._clock()) / 2

    def _is_due(self, what: str, every: float) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._due[what]:
            return False
        self._due[what] = now + every
        return True


def _merge(into: dict[str, Part], part: Part) -> None:
    held = into.get(part.series.text)
    if held is None:
        held = into[part.series.text] = Part(part.series, part.start, Digest())
    held.merge(part)


def _status(part: Part, window_seconds: float) -> SeriesStatus:
    p50, p95, p99 = part.digest.quantiles((0.5, 0.95, 0.99))
    found = Quantiles(p50, p95, p99, part.digest.count, window_seconds)
    return SeriesStatus(part.series.text, found, part.errors, part.digest.high)
