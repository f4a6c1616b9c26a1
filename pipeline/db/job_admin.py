"""Jobs seen from outside: how one ended, cancelling, redriving, and what programs declare of their tasks.

Owns: the statements that any process may send about jobs that it does not run. Knows no worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.db.connection import Database


class Ended(msgspec.Struct, frozen=True):
    """How a job ended. state: finished, failed, cancelled or expired. result: as the task returned it, from JSON.
    finished_at: Unix seconds."""

    state: str
    result: Any
    error: str | None
    attempt: int
    finished_at: float


class Stage(msgspec.Struct, frozen=True):
    """Where a job is that has not ended.

    state: blocked, delayed, ready or running. done, total, note: its progress.
    """

    state: str
    attempt: int
    error: str | None
    done: float | None
    total: float | None
    note: str | None


class JobAdmin:
    """What can be asked and done about jobs by anybody. database: open, made by `job_database`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def stage(self, job: int) -> Stage | None:
        """Where it is; None when it has ended or never was."""
        row = await self._db.fetchrow("jobs/stage", job)
        return None if row is None else Stage(**dict(row))

    async def ended(self, job: int, since: float = 0.0) -> Ended | None:
        """How it ended; None when it has not, or nothing is known of it any more.

        since: Unix seconds before which it cannot have ended; without it every day of the archive is read.
        """
        row = await self._db.fetchrow("jobs/outcome", job, since)
        if row is None:
            return None
        result = None if row["result"] is None else msgspec.json.decode(row["result"])
        return Ended(row["state"], result, row["error"], row["attempt"], row["finished_at"])

    async def cancel(self, jobs: Sequence[int], reason: str | None = None) -> list[int]:
        """End jobs that have not ended, also those that run; returns those that it ended."""
        ids: list[int] = await self._db.fetchval("jobs/cancel", list(jobs), reason)
        return ids

    async def retry(self, jobs: Sequence[int]) -> list[int]:
        """Let jobs run again that failed, were cancelled or expired, and delayed ones at once; returns those."""
        ids: list[int] = await self._db.fetchval("jobs/redrive", list(jobs))
        return ids

    async def gone(self, jobs: Sequence[int]) -> list[int]:
        """Those of the jobs that have ended."""
        return [row["id"] for row in await self._db.fetch("jobs/gone", list(jobs))]

    async def expire(self) -> int:
        """End jobs that have not begun in time; returns how many."""
        count: int = await self._db.fetchval("jobs/expire")
        return count

    async def declare(self, tasks: Sequence[dict[str, Any]], rules: Sequence[tuple[Any, ...]]) -> None:
        """Write down what a program says of its tasks. rules: name, concurrency, rate, and in how many seconds."""
        if tasks:
            await self._db.execute("jobs/declare", msgspec.json.encode(tasks).decode())
        for rule in rules:
            await self._db.execute("jobs/set_key_rule", *rule)
