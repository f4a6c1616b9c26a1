"""Time limits of many runs, at the cost of none.

Owns: which runs must end when, to a tenth of a second. Knows neither jobs nor tasks.

A timer of the event loop for each run costs 2 us, a quarter of what a job costs in all, and nearly every one
is taken back unused. Here a run is an entry in a dict, and one loop looks at all of them ten times a second.
"""

from __future__ import annotations

import asyncio
import time

CHECK_SECONDS = 0.1
SHORTEST_SECONDS = 1.0  # a shorter limit is worth a timer of its own


class Deadline:
    """One run's limit. task: what is cancelled when it is over. over: whether it was."""

    __slots__ = ("at", "over", "task")

    def __init__(self, at: float, task: asyncio.Task[None]) -> None:
        self.at = at
        self.task = task
        self.over = False


class Deadlines:
    """The limits of the runs that are under way."""

    def __init__(self) -> None:
        self._runs: dict[Deadline, None] = {}

    def enter(self, limit: float, task: asyncio.Task[None]) -> Deadline:
        """From now on `task` has `limit` seconds; `leave` must follow."""
        deadline = Deadline(time.monotonic() + limit, task)
        self._runs[deadline] = None
        return deadline

    def leave(self, deadline: Deadline) -> bool:
        """The run has ended; True when its cancellation is over and was for the limit alone."""
        del self._runs[deadline]
        return deadline.over and deadline.task.uncancel() <= 0

    def check(self, now: float) -> None:
        """Cancel what is past its limit, once."""
        for deadline in list(self._runs):
            if deadline.at <= now and not deadline.over:
                deadline.over = True
                deadline.task.cancel()

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.check(time.monotonic())
