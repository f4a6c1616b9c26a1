"""The chores of a worker: promote, rescue, expire, count, keep the archive; each in its own time.

Owns: when each is due, and the settings of queues that change while the worker runs. Knows no SQL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from handlers.shift import Shift
from pipeline.core.status import QueueStatus
from pipeline.db.job_admin import JobAdmin
from pipeline.db.jobs import QueueSettings
from pipeline.errors import PgreflexError

RESCUE_SECONDS = 5.0
STATUS_SECONDS = 5.0
ARCHIVE_SECONDS = 3600.0
LOOK_SECONDS = 1.0
UNKNOWN_SECONDS = 60.0  # twice as long as any claim may take, so that none that is under way is meant
PROMOTE = 1_000
ANY = "*"

log = structlog.get_logger("pgreflex.jobs")


class Chores:
    """wanted: how many jobs of each queue run at once; `*` stands for every queue not named. resize: sets
    that for a queue, which it opens. may_judge: whether silence of others means that they are gone. poll:
    seconds between rounds.

    counted: the queues, as they were counted last.
    """

    def __init__(
        self,
        shift: Shift,
        admin: JobAdmin,
        wanted: Mapping[str, int],
        *,
        resize: Callable[[str, int], None],
        may_judge: Callable[[], bool],
        poll: float,
        dead_seconds: float,
    ) -> None:
        self.counted: tuple[QueueStatus, ...] = ()
        self._shift = shift
        self._admin = admin
        self._wanted = wanted
        self._resize = resize
        self._may_judge = may_judge
        self._poll = poll
        self._dead_seconds = dead_seconds
        self._rescue_every = min(RESCUE_SECONDS, dead_seconds / 3)
        self._due = dict.fromkeys(("look", "rescue", "count", "archive"), 0.0)

    async def run(self) -> None:
        """Until the shift ends."""
        while not self._shift.stopping.is_set():
            pause = self._poll
            try:
                if time.monotonic() >= self._due["look"]:
                    self._due["look"] = time.monotonic() + min(self._poll, LOOK_SECONDS)
                    self._follow(await self._shift.store.queues())
                    await self._look_for_cancelled()
                    await self._shift.host.write_log()
                pause = await self._promote()
                await self._now_and_then()
            except PgreflexError as error:
                log.warning("housekeeping of the jobs failed", error=error.message)
            await asyncio.sleep(max(0.01, pause))

    def _follow(self, queues: list[QueueSettings]) -> None:
        """Open queues that are new, and take over what was set for one."""
        for settings in queues:
            own = self._wanted.get(settings.queue, self._wanted.get(ANY))
            if own is None:
                continue
            slots = settings.slots or own
            held = self._shift.queues.get(settings.queue)
            if held is None or held.concurrency != slots:
                self._resize(settings.queue, slots)
            self._shift.queues[settings.queue].weight = settings.weight

    async def _promote(self) -> float:
        promoted, next_in = await self._shift.store.promote(list(self._shift.queues), PROMOTE)
        if promoted:
            self._shift.wake_all()
        if promoted >= PROMOTE:
            return 0
        return self._poll if next_in is None else min(self._poll, next_in)

    async def _look_for_cancelled(self) -> None:
        """A cancel is told on the feed; whoever has none finds out here, within a second."""
        running = [id_ for id_, _lease in self._shift.running]
        if running:
            gone = await self._admin.gone(running)
            still = {id_ for id_, _lease in self._shift.running}
            host = self._shift.host
            self._shift.cancel([id_ for id_ in gone if id_ in still - host.ended - host.ending])

    async def _now_and_then(self) -> None:
        now = time.monotonic()
        if now >= self._due["rescue"]:
            self._due["rescue"] = now + self._rescue_every
            await self._rescue()
            if expired := await self._admin.expire():
                self._shift.totals["expired"] += expired
        if now >= self._due["count"]:
            self.counted = await self._shift.store.status()
            self._due["count"] = now + max(STATUS_SECONDS, 20 * (time.monotonic() - now))
        if now >= self._due["archive"]:
            self._due["archive"] = now + ARCHIVE_SECONDS
            await self._shift.store.maintain_archive()

    async def _rescue(self) -> None:
        shift = self._shift
        lost = await shift.store.give_back(shift.worker, shift.outcomes.leases(), UNKNOWN_SECONDS)
        if lost:
            log.warning("jobs whose claim got lost went back to their queue", jobs=lost)
        if not self._may_judge():
            return
        again, failed = await shift.store.rescue(self._dead_seconds)
        if again or failed:
            log.warning("jobs of a lost worker were rescued", again=again, failed=failed)
            shift.totals.update(rescued=again, failed=failed)
            shift.wake_all()
