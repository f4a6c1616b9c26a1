"""What a running job leaves beside its outcome, and the transaction that is its own.

Owns: the statements behind a job's progress, its saved value, its log, and the connections that tasks use.
Each write is fenced: it goes through the job's lease. Knows neither tasks nor when to write.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from pipeline.core.job import Job, Outcome
from pipeline.core.workflow import Results
from pipeline.db.connection import CONNECT_SECONDS, Connection, Database, translated
from pipeline.db.jobs import finish
from pipeline.db.workflows import WorkflowStore
from pipeline.errors import DatabaseUnavailable, LeaseLost


class LogLine(msgspec.Struct, frozen=True):
    """A line of a job's own log. at: Unix seconds."""

    job: Job
    at: float
    level: str
    message: str


class TaskPool:
    """Connections for the code of tasks: without our settings and limits, and reset after each use."""

    def __init__(self, dsn: str | None, *, max_size: int = 20) -> None:
        self._dsn = dsn
        self._max_size = max_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Open the pool; connects on first use. Raises LoginFailed, DatabaseUnavailable."""
        with translated():
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=self._max_size,
                timeout=CONNECT_SECONDS,
                server_settings={"application_name": "pgreflex task"},
            )

    async def close(self) -> None:
        """Close all; a task that still runs loses its connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of its own; errors inside the block are the task's, and pass as they are."""
        if self._pool is None:
            raise DatabaseUnavailable("the connections of tasks are closed")
        pool = self._pool
        with translated():
            connection = await pool.acquire()
        try:
            yield connection
        finally:
            await pool.release(connection)


class JobNotes:
    """Writes of jobs that run on one worker. worker: its number."""

    def __init__(self, database: Database, pool: TaskPool) -> None:
        self._db = database
        self._pool = pool

    @asynccontextmanager
    async def transaction(self, job: Job, worker: int) -> AsyncIterator[Connection]:
        """A transaction whose commit also finishes the job. Raises LeaseLost, and rolls back, when it may not."""
        began = time.monotonic()
        async with self._pool.connection() as connection, connection.transaction(isolation="read_committed"):
            yield connection
            took = (time.monotonic() - began) * 1000
            ended = [Outcome(job, "finish", began=began, ms=took)]
            if (await finish(connection, worker, ended, ()))["finished"] != 1:
                raise lost(job)

    async def progress(self, job: Job, worker: int, done: float, total: float | None, note: str) -> None:
        """Raises LeaseLost."""
        if await self._db.fetchval("jobs/progress", job.id, job.lease, worker, done, total, note) is None:
            raise lost(job)

    async def save(self, job: Job, worker: int, value: str) -> None:
        """Keep JSON text for the next attempt. Raises LeaseLost."""
        if await self._db.fetchval("jobs/save", job.id, job.lease, worker, value) is None:
            raise lost(job)

    async def saved(self, job: Job) -> Any:
        """What was saved last, or None."""
        text = await self._db.fetchval("jobs/saved", job.id)
        return None if text is None else msgspec.json.decode(text)

    async def results(self, job: Job) -> Results:
        """What the jobs that this one has waited for returned."""
        return await WorkflowStore(self._db).results(job)

    async def log(self, lines: Sequence[LogLine], worker: int) -> None:
        """Write down lines; those of jobs that the worker no longer holds are dropped."""
        await self._db.execute(
            "jobs/log",
            [line.job.id for line in lines],
            [line.job.lease for line in lines],
            worker,
            [line.job.attempt for line in lines],
            [line.at for line in lines],
            [line.level for line in lines],
            [line.message for line in lines],
        )


def lost(job: Job) -> LeaseLost:
    """The error for a job that this worker may no longer touch."""
    return LeaseLost(f"job {job.id} is no longer this worker's: it was cancelled, or given to another one")
