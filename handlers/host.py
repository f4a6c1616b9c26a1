"""What the worker does for the jobs that it runs.

Owns: the lines that jobs have logged and that are not written yet, how often progress is written, which jobs have
ended in a transaction of their own. Knows no SQL and not what tasks do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, get_args

import msgspec
import structlog

from handlers.running import clean
from pipeline.core.args import refuse_large
from pipeline.core.job import Job, Level
from pipeline.core.workflow import Results
from pipeline.db.job_notes import JobNotes, LogLine
from pipeline.errors import DatabaseUnavailable, PgreflexError, TaskError

T = TypeVar("T")
PROGRESS_SECONDS = 1.0
MOST_LINES = 10_000
LINE_CHARACTERS = 4_000

log = structlog.get_logger("pgreflex.jobs")


class WorkerHost:
    """See JobHost. worker: its number.

    ended: jobs that their own transaction has finished, until they are asked for.
    ending: those that are in one.
    """

    def __init__(self, notes: JobNotes, worker: int, loop: asyncio.AbstractEventLoop) -> None:
        self._notes = notes
        self._worker = worker
        self._loop = loop
        self._lines: list[LogLine] = []
        self._dropped = 0
        self._writing = asyncio.Lock()
        self._said: dict[int, float] = {}
        self.ended: set[int] = set()
        self.ending: set[int] = set()

    @asynccontextmanager
    async def transaction(self, job: Job) -> AsyncIterator[Any]:
        if job.id in self.ended:
            raise TaskError(
                f"job {job.id} has already ended in a transaction", hint="Use one for all its effects."
            )
        self.ending.add(job.id)
        try:
            async with self._notes.transaction(job, self._worker) as connection:
                yield connection
                await self.write_log()  # once the job has ended nobody may log for it
            self.ended.add(job.id)
        finally:
            self.ending.discard(job.id)

    async def progress(self, job: Job, done: float, total: float | None, note: str) -> None:
        now = time.monotonic()
        if done != total and now - self._said.get(job.id, -PROGRESS_SECONDS) < PROGRESS_SECONDS:
            return
        self._said[job.id] = now
        await self._notes.progress(job, self._worker, done, total, clean(note))

    async def save(self, job: Job, value: Any) -> None:
        try:
            text = msgspec.json.encode(value)
        except (TypeError, ValueError, UnicodeError, RecursionError) as error:
            raise TaskError(f"what job {job.id} saves is not JSON: {error}", hint="Save plain values.") from None
        refuse_large(f"the values that job {job.id} saves", text)
        await self._notes.save(job, self._worker, text.decode())

    async def saved(self, job: Job) -> Any:
        return await self._notes.saved(job)

    async def results(self, job: Job) -> Results:
        return await self._notes.results(job)

    def log(self, job: Job, message: str, level: Level) -> None:
        if level not in get_args(Level):
            raise TaskError(
                f"a job's log has no level {level!r}", hint=f"It is one of {', '.join(get_args(Level))}."
            )
        if len(self._lines) >= MOST_LINES:
            self._dropped += 1
            return
        self._lines.append(LogLine(job, time.time(), level, clean(str(message))[:LINE_CHARACTERS]))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            raise TaskError("job.wait is for plain functions", hint="In an async task: await the call itself.")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def forget(self, job: Job) -> bool:
        """The job has ended here; True if its own transaction has finished it."""
        self._said.pop(job.id, None)
        if job.id in self.ended:
            self.ended.remove(job.id)
            return True
        return False

    async def write_log(self) -> None:
        """Write down the lines so far, also those that another call is writing; they are kept when the database is
        not there, and dropped when it does not take them."""
        async with self._writing:
            lines, self._lines = self._lines, []
            if not lines:
                return
            if self._dropped:
                log.warning(
                    "lines of jobs' own logs were dropped: more than could be written", lines=self._dropped
                )
                self._dropped = 0
            try:
                await self._notes.log(lines, self._worker)
            except DatabaseUnavailable as error:
                log.warning("the jobs' own log cannot be written yet", error=error.message)
                self._lines = [*lines, *self._lines][:MOST_LINES]
            except PgreflexError as error:
                log.warning("lines of jobs' own logs were dropped: refused", lines=len(lines), error=error.message)
