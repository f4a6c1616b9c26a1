"""Jobs as people look at them: lists by a filter, one job with all that is known, workers.

Owns: how a page of jobs is found among a million live and ten million ended ones, and that arguments are redacted
before they leave. Knows neither who looks nor how it is shown.

Pages go by id, newest first. Live jobs are found by their primary key. The archive has no ordinary index on ids,
which would cost each job that ends; its block ranges tell where a range of ids may lie. So it is read in ranges
from the newest id down, each twice as long as the one before: a page of the newest jobs reads a few thousand
rows, and what is nowhere to be found reads everything once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from pipeline.core.job_filter import JobFilter
from pipeline.core.redact import shown
from pipeline.db.connection import Database, Record
from pipeline.db.jobs import DEAD_SECONDS
from pipeline.errors import Busy, QueryFailed, TaskError

LOOK_SECONDS = 20
VIEW_SETTINGS = {
    "plan_cache_mode": "force_custom_plan",  # only then do the conditions that are not given vanish
    "statement_timeout": f"{LOOK_SECONDS}s",
    "jit": "off",
}
FIRST_RANGE = 5_000
GROWTH = 2
CANCELED = "57014"
WALK = 10_000
HIGHEST = 2**63 - 1


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a list. Times are Unix seconds by the server's clock. args: redacted, or a word in their place.
    finished_at, ms: None for a job that has not ended; ms: how long its last run took."""

    id: int
    state: str
    task: str
    queue: str
    priority: int
    key: str
    attempt: int
    max_attempts: int
    created_at: float
    run_at: float
    finished_at: float | None = None
    ms: float | None = None
    error: str | None = None
    args: dict[str, Any] | str | None = None


class JobView(JobRow, frozen=True, kw_only=True):
    """All that is known of one job. lost: how many workers vanished with it. needs: how many jobs it waits for.
    timeout: seconds. done, total, note: its progress. lease, worker: who holds it; worker alone: who ended it.
    worker_seen_ago: seconds since its heartbeat."""

    lost: int
    needs: int
    expires_at: float | None
    timeout: float | None
    started_at: float | None
    result: Any
    workflow: int | None
    done: float | None
    total: float | None
    note: str | None
    lease: int | None
    worker: str | None
    worker_seen_ago: float | None


class LogLine(msgspec.Struct, frozen=True):
    """One line of a job's own log. at: Unix seconds."""

    attempt: int
    at: float
    level: str
    message: str


class WorkerRow(msgspec.Struct, frozen=True):
    """A process that runs jobs. alive: its heart beats. seen_ago: seconds. leases, jobs: what it holds."""

    id: int
    name: str
    queues: tuple[str, ...]
    alive: bool
    started_at: float
    seen_ago: float
    leases: int
    jobs: int


def view_database(dsn: str | None, *, purpose: str, max_size: int = 2) -> Database:
    """A pool, still to be opened, whose sessions are set up for these statements."""
    return Database(dsn, purpose=purpose, max_size=max_size, settings=VIEW_SETTINGS)


class JobViews:
    """database: open, made by `view_database`. Every method raises Busy when looking takes LOOK_SECONDS."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def page(
        self, wanted: JobFilter, limit: int, *, after: int | None = None, args: bool = True
    ) -> list[JobRow]:
        """The newest jobs that `wanted` means, by id downwards. after: the last id of the page before."""
        before = HIGHEST if after is None else after
        with _bounded():
            live = await self._live(wanted, limit, before, args=args)
            floor = live[-1].id if len(live) == limit else 0
            ended = await self._ended(wanted, limit, before, floor, args=args)
        return sorted([*live, *ended], key=lambda job: -job.id)[:limit]

    async def walk(self, wanted: JobFilter) -> AsyncIterator[list[int]]:
        """The ids of all jobs that `wanted` means, in lists."""
        after = None
        while page := await self.page(wanted, WALK, after=after, args=False):
            yield [job.id for job in page]
            after = page[-1].id

    async def show(self, job: int) -> JobView:
        """One job. Raises TaskError when nothing is known of it."""
        with _bounded():
            row = None if job > HIGHEST else await self._db.fetchrow("jobs/show", job)
        if row is None:
            raise no_job(job)
        found = dict(row)
        found["args"] = _shown(row)
        found["result"] = None if row["result"] is None else msgspec.json.decode(row["result"])
        del found["redact"]
        return JobView(**found)

    async def log(self, job: int, known: int = 0, limit: int = 1_000) -> list[LogLine]:
        """The lines that a job has logged, after the `known` first ones."""
        return [LogLine(**dict(row)) for row in await self._db.fetch("jobs/log_lines", job, known, limit)]

    async def workers(self) -> list[WorkerRow]:
        """Processes that run jobs, or did within the last day."""
        rows = await self._db.fetch("jobs/workers", DEAD_SECONDS)
        return [WorkerRow(**{**dict(row), "queues": tuple(row["queues"])}) for row in rows]

    async def _live(self, wanted: JobFilter, limit: int, before: int, *, args: bool) -> list[JobRow]:
        states = wanted.live_states
        if states is None:
            return []
        rows = await self._db.fetch("jobs/list_live", before, *_parameters(wanted, states), limit, not args)
        return [_row(row) for row in rows]

    async def _ended(self, wanted: JobFilter, limit: int, before: int, floor: int, *, args: bool) -> list[JobRow]:
        states = wanted.ended_states
        if states is None:
            return []
        below = min(before, await self._db.fetchval("jobs/newest") + 1)
        found: list[JobRow] = []
        length = FIRST_RANGE
        while below > floor and len(found) < limit:
            start = max(floor, below - length)
            rows = await self._db.fetch(
                "jobs/list_ended", below, *_parameters(wanted, states), limit - len(found), not args, start
            )
            found += [_row(row) for row in rows]
            below, length = start, length * GROWTH
        return found


def no_job(job: int) -> TaskError:
    """The error for an id of which nothing is known."""
    return TaskError(
        f"there is no job {job}",
        hint="It was never committed, or it ended so long ago that the archive has dropped it.",
    )


@contextmanager
def _bounded() -> Iterator[None]:
    try:
        yield
    except QueryFailed as error:
        if error.sqlstate != CANCELED:
            raise
        raise Busy(
            f"the jobs could not be found within {LOOK_SECONDS} s, because too many had to be read",
            hint="Narrow the filter: since:1h reads the newest days only, state:failed and state:running have an"
            " index.",
        ) from error


def _parameters(wanted: JobFilter, states: tuple[str, ...]) -> tuple[Any, ...]:
    """$2 to $7 of both lists."""
    error = None if wanted.error is None else wanted.error.lower()
    return (
        list(states) or None, list(wanted.queues) or None, list(wanted.tasks) or None, list(wanted.keys) or None,
        error, wanted.since,
    )  # fmt: skip


def _row(row: Record) -> JobRow:
    found = dict(row)
    found["args"] = None if row["args"] is None else _shown(row)
    del found["redact"]
    return JobRow(**found)


def _shown(row: Record) -> dict[str, Any] | str:
    try:
        return shown(msgspec.json.decode(row["args"]), tuple(row["redact"] or ()))
    except (msgspec.DecodeError, RecursionError):
        return "[unreadable]"
