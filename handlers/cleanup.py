"""The task pgreflex.cleanup: forgets what our own tables keep past its time.

Owns: what is kept for how long, the order of the chores, the report. Knows no SQL.

Each batch is a transaction of its own, and the job reports between two of them: a job that was cancelled ends
there, and what is done is done. Two cleanups at a time do no harm; a row that one of them holds, the other skips.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pipeline.core.job import Job
from pipeline.db.cleanup import CleanupStore
from pipeline.errors import DatabaseUnavailable, LeaseLost, PgreflexError, TaskError

DAY = 86_400.0
BATCH = 5_000
MOST_ROWS_A_BATCH = 100_000
ARCHIVE_DAYS = 7.0  # workers drop what is older, whatever this task is told
PRODUCERS_SECONDS = 60.0
POLL_SECONDS = 0.2


class Cleaner:
    """The task. producers_seconds: how long to wait for transactions that may use a lane that was deleted."""

    def __init__(self, store: CleanupStore, *, producers_seconds: float = PRODUCERS_SECONDS) -> None:
        self._store = store
        self._producers_seconds = producers_seconds

    async def cleanup(
        self,
        job: Job,
        *,
        archive_days: float = ARCHIVE_DAYS,
        unique_days: float = 1.0,
        limiter_days: float = 1.0,
        lane_days: float = 1.0,
        batch: int = BATCH,
    ) -> dict[str, int]:
        """Prune every table; returns how many rows went of each, and partitions of the archive.

        ..._days: how long what has ended is kept. batch: rows that one transaction deletes at most.
        Goes on with the other tables when one fails, and raises that error then. Raises TaskError, LeaseLost.
        """
        self._check(archive_days, (unique_days, limiter_days, lane_days), batch)
        gone: dict[str, int] = {}
        problems: list[PgreflexError] = []

        async def chore(table: str, step: Callable[[], Awaitable[int]], full: int | None) -> None:
            """Take steps until one finds less than a full batch; None for a chore of one step."""
            gone[table] = 0
            try:
                while True:
                    count = await step()
                    gone[table] += count
                    await job.progress(sum(gone.values()), None, table)
                    if full is None or count < full:
                        return
            except (LeaseLost, DatabaseUnavailable):
                raise
            except PgreflexError as error:
                job.log(f"{table} could not be pruned: {error.message}", "warning")
                problems.append(error)

        store = self._store
        await chore("partitions", lambda: store.archive(archive_days * DAY), None)
        await chore("job_state", lambda: store.prune("job_state", archive_days * DAY, batch), batch)
        await chore("job_unique", lambda: store.prune("job_unique", unique_days * DAY, batch), batch)
        await chore("limiter", lambda: store.prune("limiter", limiter_days * DAY, batch), batch)
        await chore("lane", lambda: store.lanes(lane_days * DAY), 1)
        if gone["lane"]:
            await self._outwait_producers(job)
        await chore("lanes_missing", lambda: store.missing_lanes(batch), None)
        if problems:
            raise problems[0]
        return gone

    def _check(self, archive_days: float, others: tuple[float, ...], batch: int) -> None:
        if not 1 <= archive_days <= ARCHIVE_DAYS:
            raise TaskError(
                f"the archive cannot be kept for {archive_days:g} days",
                hint=f"Give 1 to {ARCHIVE_DAYS:g}: workers drop what is older.",
            )
        if min(others) < 0 or not 1 <= batch <= MOST_ROWS_A_BATCH:
            raise TaskError(
                "a cleanup has an argument that cannot be meant", hint="Days are 0 or more, batch 1 or more."
            )

    async def _outwait_producers(self, job: Job) -> None:
        """A transaction may have seen a lane before it was deleted, and add a job to it when it commits.

        It holds the lock of a writer by then; whoever comes later sees that the lane is gone, and asks for it.
        """
        deadline = time.monotonic() + self._producers_seconds
        left = await self._store.producers()
        while left:
            if time.monotonic() > deadline:
                job.log(
                    "a long transaction may add a job to a lane that is gone; the next cleanup looks", "warning"
                )
                return
            await asyncio.sleep(POLL_SECONDS)
            await job.progress(0, None, "waits for transactions that add jobs")
            left = await self._store.producers(left)
