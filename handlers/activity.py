"""Sessions: looks once a second at what those of the database are at.

Owns: when to look, when to look less, and what is told of it. Must not know SQL, and makes no timings: whoever
runs long is found often.

Only the leader looks. Looks take at most 2 % of the time: where one takes longer than 20 ms, the next ones are
farther apart, and past half a second there is none for a minute. A crash loses the open minute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pipeline.core.activity import OFF_SECONDS, Minute, Sample, pause
from pipeline.core.status import ActivityStatus, BlockedSession
from pipeline.db.activity import Activity
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

MINUTE = 60
PRUNE_SECONDS = 3600.0
RETRY_SECONDS = 5.0
BLOCKED_SECONDS = 5.0  # between two looks at who waits behind whom: it takes locks of the server
BLOCKED_TOLD = 20

log = structlog.get_logger("pgreflex.activity")


class ActivitySampler:
    """A Service. leading: whether this process leads. timer: seconds, to measure how long looks take."""

    name = "activity"

    def __init__(
        self,
        activity: Activity,
        *,
        leading: Callable[[], bool] = lambda: True,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._activity = activity
        self._leading = leading
        self._timer = timer
        self._stopping = asyncio.Event()
        self._minute: Minute | None = None
        self._sample: Sample | None = None
        self._at: float | None = None
        self._waiting = 0  # looks in succession at which somebody waited for a lock
        self._blocked: tuple[BlockedSession, ...] = ()
        self._due = {"blocked": 0.0, "prune": 0.0}
        self._problem = ""
        self._slow = ""

    async def start(self) -> None:
        """Nothing to prepare."""

    async def run(self) -> None:
        """Look while this process leads, until `stop`; then keep what was seen."""
        while not self._stopping.is_set():
            wait = await self._tick() if self._leading() else self._rest()
            await wait_for(self._stopping, wait)
        await self.flush()

    async def stop(self) -> None:
        self._stopping.set()

    async def look(self) -> Sample:
        """Look once, and keep the last minute when another one has begun. Raises our database errors."""
        at, sample = await self._activity.sample()
        start = int(at // MINUTE * MINUTE)
        if self._minute is not None and self._minute.start != start:
            await self.flush()
        if self._minute is None:
            self._minute = Minute(start)
        self._minute.add(sample)
        self._sample, self._at = sample, at
        await self._look_at_blocked(sample)
        return sample

    async def flush(self) -> None:
        """Keep the open minute. Raises our database errors; what could not be kept then is kept later."""
        if self._minute is not None:
            await self._activity.add(self._minute)
            self._minute = None

    def healthy(self) -> Health:
        """Well also when nothing can be looked at: nothing here needs it."""
        if self._problem or self._slow:
            return Health(True, self._problem or self._slow)
        if self._sample is None:
            return Health(True, "the leader looks")
        if self._sample.hidden:
            return Health(True, f"{self._sample.hidden} sessions are hidden: grant pg_read_all_stats to this role")
        return Health(True, f"{self._sample.active} active sessions")

    def status(self) -> ActivityStatus | None:
        """What the last look found; None where this process does not look."""
        sample = self._sample
        if sample is None:
            return None
        waits: dict[str, int] = {}
        for (_, wait_type, _), number in sample.waits:
            waits[wait_type or "running"] = waits.get(wait_type or "running", 0) + number
        return ActivityStatus(
            at=self._at,
            sessions=sample.sessions,
            hidden=sample.hidden,
            active=waits,
            blocked=sample.blocked,
            longest_transaction_seconds=sample.longest_transaction_seconds,
            longest_idle_seconds=sample.longest_idle_seconds,
            blocked_sessions=self._blocked,
        )

    def _rest(self) -> float:
        """Nothing is known while another process leads."""
        self._sample = None
        return 1.0

    async def _tick(self) -> float:
        """Look; returns how long to wait until the next look, in seconds."""
        began = self._timer()
        try:
            await self.look()
            if began >= self._due["prune"]:
                self._due["prune"] = began + PRUNE_SECONDS
                await self._activity.prune()
            self._problem = ""
        except PgreflexError as error:
            if not self._problem:
                log.warning("sessions cannot be looked at", error=describe(error))
            self._problem = f"sessions cannot be looked at: {describe(error)}"
            self._sample = None
            return RETRY_SECONDS
        took = self._timer() - began
        self._slow = "" if took <= OFF_SECONDS else f"a look at the sessions took {took:.1f} s: none for a minute"
        return pause(took)

    async def _look_at_blocked(self, sample: Sample) -> None:
        """Who waits behind whom, where somebody waited at two looks in succession."""
        self._waiting = self._waiting + 1 if sample.blocked else 0
        if self._waiting < 2:
            self._blocked = () if self._waiting == 0 else self._blocked
            return
        now = self._timer()
        if now >= self._due["blocked"]:
            self._due["blocked"] = now + BLOCKED_SECONDS
            self._blocked = tuple(await self._activity.blocked(BLOCKED_TOLD))
