"""Deletes what our own tables keep past its time, a bounded number of rows in each transaction.

Owns: which statement prunes which table. Knows neither when nor how long things are kept.

Not here, because somebody sees to it all the time: workers and the archive's days (the worker's housekeeping),
timings (the recorder), alerts (the evaluator), runs of schedules (the scheduler), events (the pump).
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.db.connection import Database

PRUNE_SECONDS = 60.0
STATEMENTS = {
    "job_state": "maintain/job_state",
    "job_unique": "maintain/job_unique",
    "limiter": "maintain/limiter",
}


class CleanupStore:
    """The statements of the cleanup. database: open when they are called."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def archive(self, keep: float) -> int:
        """Drop the days of the archive that ended more than `keep` seconds ago; returns how many."""
        dropped: int = await self._db.fetchval("maintain/archive", keep, timeout=PRUNE_SECONDS)
        return dropped

    async def prune(self, table: str, keep: float, limit: int) -> int:
        """Delete up to `limit` rows of the table that ended more than `keep` seconds ago; returns how many."""
        gone: int = await self._db.fetchval(STATEMENTS[table], keep, limit, timeout=PRUNE_SECONDS)
        return gone

    async def lanes(self, idle: float) -> int:
        """Delete some of the lanes that have been idle for so many seconds; returns how many."""
        gone: int = await self._db.fetchval("maintain/lane", idle, timeout=PRUNE_SECONDS)
        return gone

    async def missing_lanes(self, limit: int) -> int:
        """Ask for lanes of jobs that have none; returns for how many."""
        asked: int = await self._db.fetchval("maintain/lane_missing", limit, timeout=PRUNE_SECONDS)
        return asked

    async def producers(self, among: Sequence[str] | None = None) -> list[str]:
        """The transactions that write jobs now, or those of `among` that still do."""
        found: list[str] = await self._db.fetchval("maintain/producers", among)
        return found
