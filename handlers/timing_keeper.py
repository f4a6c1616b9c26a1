"""What one process does for the timings of all: the leader takes in what SQL recorded, rolls up and prunes.

Owns: when this happens. Must not know SQL, nor how timings are merged.

It runs apart from the recorder, so that a long roll-up, as after a day without a leader, delays no flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from pipeline.core.status import TimingsStatus
from pipeline.core.window import BASE_SECONDS, Windows
from pipeline.db.latency import LatencyStore
from pipeline.db.timing_inbox import TimingInbox
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

TICK_SECONDS = 1.0
AFTER_SECONDS = 0.05  # the close of a window
ROLL_SECONDS = 10.0
ROLL_AT_ONCE = 5.0  # then the inbox has its turn again
PRUNE_SECONDS = 300.0

log = structlog.get_logger("pgreflex.timings")


class TimingKeeper:
    """A Service. leading: whether this process leads. windows: where what SQL recorded is counted."""

    name = "timings"

    def __init__(
        self,
        store: LatencyStore,
        inbox: TimingInbox,
        windows: Windows,
        *,
        leading: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._windows = windows
        self._leading = leading
        self._counts: tuple[int, int] | None = None  # at the first look
        self._rejected = self._dropped = 0
        self._problem = ""
        self._due = {"roll_up": 0.0, "prune": 0.0}
        self._stopping = asyncio.Event()

    async def drain(self) -> int:
        """Count what SQL recorded since the last time; returns how many timings it was."""
        total = 0
        for one in await self._inbox.drain():
            self._windows.series(one.name, one.labels, source="sql").add_all_at(one.ms, one.start)
            total += len(one.ms)
        await self._inbox.turn()
        rejected, dropped = await self._inbox.counts()
        if self._counts is None:
            self._counts = rejected, dropped
        self._rejected, self._dropped = rejected - self._counts[0], dropped - self._counts[1]
        return total

    def totals(self) -> TimingsStatus:
        """What SQL could not record since this process leads: rejected, and dropped as nobody took it in."""
        return TimingsStatus(rejected_total=self._rejected, dropped_total=self._dropped)

    async def start(self) -> None:
        pass

    async def run(self) -> None:
        while not self._stopping.is_set():
            if self._leading():
                try:
                    await self._tick()
                    self._problem = ""
                except PgreflexError as error:  # everything is still there; the next tick tries again
                    if not self._problem:
                        log.warning("timings cannot be kept", error=describe(error))
                    self._problem = describe(error)
            else:
                self._counts = None
            await wait_for(self._stopping, self._pause())

    def _pause(self) -> float:
        """Seconds until the next tick; when a window closes, what belongs to it is drained at once."""
        return min(TICK_SECONDS, BASE_SECONDS - (self._windows.moment() - AFTER_SECONDS) % BASE_SECONDS)

    async def stop(self) -> None:
        self._stopping.set()

    def healthy(self) -> Health:
        return Health(False, self._problem) if self._problem else Health(True)

    async def _tick(self) -> None:
        await self.drain()
        if self._is_due("roll_up", ROLL_SECONDS):
            await self._store.roll_up(seconds=ROLL_AT_ONCE)
        if self._is_due("prune", PRUNE_SECONDS):
            await self._store.prune()

    def _is_due(self, what: str, every: float) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._due[what]:
            return False
        self._due[what] = now + every
        return True
