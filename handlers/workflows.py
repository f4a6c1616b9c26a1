"""The resolver: sees to it that jobs which wait for others are told when these have ended.

Owns: when to look, and how often. Knows no SQL and not what a workflow is made of.

Every daemon has one; that only one is at work at a time, the database sees to. It is woken when a job of a
workflow ends in this process, and polls for those that end elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pipeline.db.workflows import WorkflowStore
from pipeline.runtime import Health, wait_for

POLL_SECONDS = 1.0
BUSY_SECONDS = 0.01
PRUNE_SECONDS = 3_600.0

log = structlog.get_logger("pgreflex.workflows")


class WorkflowResolver:
    """The service that lets jobs run once what they need has ended.

    released: called with each queue in which it has let jobs run. poll_seconds: between two looks at everything.
    """

    name = "workflows"

    def __init__(
        self,
        store: WorkflowStore,
        released: Callable[[str], None] = lambda _queue: None,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._store = store
        self._tell = released
        self._poll = poll_seconds
        self._changed = asyncio.Event()
        self._stopping = False
        self._above = 0
        self._next_full = 0.0
        self._next_prune = 0.0
        self.released_total = 0
        self.cancelled_total = 0

    async def start(self) -> None:
        """Nothing to get ready."""

    async def run(self) -> None:
        """Resolve until `stop`. A failing database ends it with that error."""
        while not self._stopping:
            await self.catch_up()
            await self._prune()
            await wait_for(self._changed, max(0.0, self._next_full - time.monotonic()))

    async def stop(self) -> None:
        self._stopping = True
        self._changed.set()

    def wake(self) -> None:
        """A job of a workflow has ended."""
        self._changed.set()

    def healthy(self) -> Health:
        return Health(True, f"{self.released_total} jobs released, {self.cancelled_total} cancelled")

    async def catch_up(self) -> None:
        """Resolve until nothing is left that could be seen when this was called.

        Looks go on where the one before has ended, since what an old snapshot keeps of the notes before would have
        to be stepped over; a note that becomes visible late is found by a look at everything, once in a while."""
        found = False
        while not self._stopping:
            self._changed.clear()
            if time.monotonic() >= self._next_full:
                self._next_full = time.monotonic() + self._poll
                self._above = 0
            everything = not self._above
            done = await self._store.resolve(self._above)
            if done is None:  # it may have looked before our job had ended
                await asyncio.sleep(BUSY_SECONDS)
                continue
            for queue in done.queues:
                self._tell(queue)
            self.released_total += done.released
            self.cancelled_total += done.cancelled
            if done.idle and (found or everything):
                return
            # The last may have dependents left. Where the first look finds nothing, what it was woken for lies
            # lower: a job that ends in a transaction of its own draws its number long before it commits.
            self._above = 0 if done.idle else max(self._above, done.last - 1)
            found = True

    async def _prune(self) -> None:
        if time.monotonic() >= self._next_prune:
            pruned = await self._store.prune()
            if pruned:
                log.info("workflows of long ago were deleted", workflows=pruned)
            else:
                self._next_prune = time.monotonic() + PRUNE_SECONDS
