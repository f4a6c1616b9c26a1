"""The scheduler: sees to it that runs which are due become jobs.

Owns: when to look, and what is told of it. Knows no SQL and no cron.

Every daemon has one, and none leads: a schedule that is due is dealt with by whoever locks it first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pipeline.db.schedules import ScheduleStore, Tick
from pipeline.registry import Registry
from pipeline.runtime import Health, wait_for
from pipeline.schedules import declared

POLL_SECONDS = 1.0
SEEN_SECONDS = 3600.0
PRUNE_SECONDS = 3600.0

log = structlog.get_logger("pgreflex.schedule")


class Scheduler:
    """The service that makes runs.

    registry: whose schedules this program has in its code. Raises TaskError where one does not fit its task.
    """

    name = "schedule"

    def __init__(
        self,
        store: ScheduleStore,
        registry: Registry,
        *,
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._mine = declared(registry)
        self._poll = poll_seconds
        self._clock = clock
        self._stopping = asyncio.Event()
        self._declared = False
        self._due = {"seen": 0.0, "prune": 0.0}
        self._problems: dict[str, str] = {}
        self.made_total = 0
        self.skipped_total = 0

    async def start(self) -> None:
        """Write down what the program has in its code, the first time."""
        if not self._declared:
            for name in await self._store.declare(self._mine):
                log.warning("a schedule in the code is not used: SQL has made one of that name", schedule=name)
            self._declared = True

    async def run(self) -> None:
        """Make what is due, until `stop`. A failing database ends it with that error."""
        while not self._stopping.is_set():
            await self._keep_house()
            wait = await self._store.next_in()
            if wait is not None and wait <= 0:
                await self.tick()
                wait = await self._store.next_in()
            await self._pause(self._poll if wait is None else min(max(wait, 0.01), self._poll))

    async def stop(self) -> None:
        self._stopping.set()

    def healthy(self) -> Health:
        """Well also while a schedule cannot run: that is no reason to send this daemon no more requests."""
        told = f", {len(self._problems)} schedules cannot run" if self._problems else ""
        return Health(True, f"{self.made_total} runs made{told}")

    async def tick(self) -> int:
        """Deal with everything that is due now; returns how many runs were made."""
        made, passed = 0, list[str]()
        while not self._stopping.is_set():
            done = await self._store.tick(passed)
            if done is None:
                break
            passed.append(
                done.name
            )  # once each, so that one with a second's interval cannot keep the others waiting
            made += done.made
            self._tell(done)
        self.made_total += made
        return made

    def _tell(self, done: Tick) -> None:
        if done.problem is not None:
            if self._problems.get(done.name) != done.problem:
                log.warning("a schedule cannot run", schedule=done.name, problem=done.problem)
            self._problems[done.name] = done.problem
            return
        self._problems.pop(done.name, None)
        self.skipped_total += done.skipped
        if done.skipped:
            skipped = f"more than {done.skipped}" if done.more else done.skipped
            log.warning(
                "runs were missed and are not made up", schedule=done.name, made=done.made, skipped=skipped
            )

    async def _keep_house(self) -> None:
        now = self._clock()
        for chore, seconds in (("seen", SEEN_SECONDS), ("prune", PRUNE_SECONDS)):
            if now >= self._due[chore]:
                self._due[chore] = now + seconds
                names = [schedule.name for schedule in self._mine]
                await (self._store.seen(names) if chore == "seen" else self._store.prune())

    async def _pause(self, seconds: float) -> None:
        await wait_for(self._stopping, seconds)
