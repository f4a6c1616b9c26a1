"""Schedules in Postgres: making runs, filling in runs, and what an operator asks.

Owns: what makes one step of a schedule, in one transaction. Knows neither when to call it nor what a task does.

The theory is at the head of the migration that makes the tables. What must not be changed lightly: the row is
locked before its mark is read, and jobs and mark are written in that same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any

import msgspec

from pipeline.core.cron import parse
from pipeline.core.redact import shown
from pipeline.core.schedule import Missed, decide
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement
from pipeline.errors import DatabaseUnavailable, PgreflexError, TaskError, UsageError
from pipeline.schedules import Declared

STALE_SECONDS = 86400.0
TROUBLE_SECONDS = 10.0
MOST_FILLED = 10_000


class ScheduleRow(msgspec.Struct, frozen=True):
    """A schedule as it stands. Times are Unix seconds by the server's clock.

    args: redacted, or a word in their place. next_at: its next run; None while it is paused, stale or cannot run.
    skipped: how many scheduled times got no run. stale: it came from code, and no daemon has had it in its code
    for a day; it does not run.
    """

    name: str
    task: str
    args: dict[str, Any] | str
    queue: str | None
    priority: int | None
    cron: str
    timezone: str
    missed: Missed
    max_missed: int
    paused: bool
    source: str
    created_at: float
    last_at: float | None
    next_at: float | None
    skipped: int
    problem: str | None
    stale: bool


class Run(msgspec.Struct, frozen=True):
    """One run. at: the scheduled time. job: its id. state: how the job stands."""

    at: float
    made_at: float
    job: int | None
    state: str


class Tick(msgspec.Struct, frozen=True):
    """What was done with one schedule. made: runs. skipped: scheduled times without a run, at least when `more`.
    problem: why nothing could be done."""

    name: str
    made: int = 0
    skipped: int = 0
    more: bool = False
    problem: str | None = None


class Filled(msgspec.Struct, frozen=True):
    """What a backfill did. made: runs added. known: scheduled times that had their run already."""

    made: int
    known: int


class ScheduleStore:
    """The schedules. database: open. Every method raises our own errors only."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def declare(self, schedules: Sequence[Declared]) -> list[str]:
        """Write down what a program has in its code; returns the names that SQL has taken already."""
        if not schedules:
            return []
        told = msgspec.json.encode(schedules).decode()
        return [row["name"] for row in await self._db.fetch("schedules/declare", told)]

    async def seen(self, names: Sequence[str]) -> None:
        """The program still has these in its code."""
        if names:
            await self._db.execute("schedules/seen", list(names))

    async def next_in(self) -> float | None:
        """Seconds until a schedule is due, at most 0 when one is; None when there is none."""
        seconds: float | None = await self._db.fetchval("schedules/next_in", STALE_SECONDS)
        return seconds

    async def tick(self, passed: Sequence[str] = ()) -> Tick | None:
        """Deal with one schedule that is due; None when there is none that another daemon does not deal with.

        passed: names that are not looked at.
        """
        async with self._db.acquire() as connection, connection.transaction(isolation="read_committed"):
            row = await connection.fetchrow(statement("schedules/lock_due"), STALE_SECONDS, list(passed))
            if row is None:
                return None
            try:
                with translated():
                    async with connection.transaction():
                        return await _advance(connection, row)
            except DatabaseUnavailable:
                raise
            except PgreflexError as error:  # this one cannot run; the others must not wait for it
                await connection.execute(
                    statement("schedules/trouble"), row["name"], error.message, TROUBLE_SECONDS
                )
                return Tick(row["name"], problem=error.message)

    async def backfill(self, name: str, start: float, end: float | None = None) -> Filled:
        """Make the runs of a past span that were not made: from `start` on, before `end`, in Unix seconds.

        end None: up to now. Doing it twice makes nothing twice.
        Raises UsageError for a span that is too long, lies ahead, or is so old that its runs are forgotten.
        """
        row = await self._row(name)
        now = row["now"]
        end = now if end is None else end
        if end > now or start >= end:
            raise UsageError(
                "a backfill goes from one time to a later one, and not beyond now",
                hint="Runs that lie ahead come by themselves.",
            )
        if row["forgotten"] is not None and start <= row["forgotten"]:
            raise UsageError(
                f"runs of {name} up to {datetime.fromtimestamp(row['forgotten'], UTC)} are no longer known, so "
                "they might be made twice",
                hint="Begin later. What was made is known for 400 days.",
            )
        cron = parse(row["cron"], row["timezone"])
        times: list[float] = []
        for at in cron.between(ceil(start) - 1, ceil(end) - 1):
            times.append(float(at))
            if len(times) > MOST_FILLED:
                raise UsageError(
                    f"{name} has more than {MOST_FILLED} runs between these times",
                    hint="Fill in a part at a time.",
                )
        made = await self._db.fetchval("schedules/make", name, times, timeout=120.0)
        return Filled(made, len(times) - made)

    async def all(self) -> list[ScheduleRow]:
        """Every schedule, by name."""
        return [_schedule(row) for row in await self._db.fetch("schedules/list", None, STALE_SECONDS)]

    async def get(self, name: str) -> ScheduleRow:
        """One schedule. Raises TaskError when there is none of that name."""
        return _schedule(await self._row(name))

    async def runs(self, name: str, limit: int = 10) -> list[Run]:
        """Its newest runs, the newest first."""
        rows = await self._db.fetch("schedules/runs", name, limit)
        return [Run(row["at"], row["made_at"], row["job"], row["state"]) for row in rows]

    async def pause(self, name: str) -> None:
        """No more runs until it is resumed. Raises TaskError as `get`."""
        if not await self._db.fetchval("schedules/pause", name):
            raise _unknown(name)

    async def resume(self, name: str) -> None:
        """Run again from now on, and forget its problem. Raises TaskError as `get`."""
        if not await self._db.fetchval("schedules/resume", name):
            raise _unknown(name)

    async def run_now(self, name: str) -> int | None:
        """One run at once; returns the job's id. Raises TaskError as `get`."""
        await self._row(name)
        job: int | None = await self._db.fetchval("schedules/run", name)
        return job

    async def prune(self) -> None:
        """Forget runs that were made more than 400 days ago."""
        await self._db.execute("schedules/prune")

    async def _row(self, name: str) -> Record:
        row = await self._db.fetchrow("schedules/list", name, STALE_SECONDS)
        if row is None:
            raise _unknown(name)
        return row


async def _advance(connection: Connection, row: Record) -> Tick:
    cron = parse(row["cron"], row["timezone"])
    todo = decide(cron, row["missed"], row["until"], row["now"], row["max_missed"])
    made = 0
    if todo.runs:
        made = await connection.fetchval(statement("schedules/make"), row["name"], [float(at) for at in todo.runs])
    newest = float(todo.runs[-1]) if todo.runs else None
    await connection.execute(
        statement("schedules/advance"), row["name"], row["now"], float(todo.next), newest, todo.skipped
    )
    return Tick(row["name"], made, todo.skipped, todo.more)


def _schedule(row: Record) -> ScheduleRow:
    problem, next_at = row["problem"], None
    try:
        cron = parse(row["cron"], row["timezone"])
        if problem is None and not row["paused"] and not row["stale"]:
            next_at = float(cron.next(row["until"]))
    except TaskError as error:
        problem = problem or error.message
    return ScheduleRow(
        name=row["name"],
        task=row["task"],
        args=shown(msgspec.json.decode(row["args"]), tuple(row["redact"] or ())),
        queue=row["queue"],
        priority=row["priority"],
        cron=row["cron"],
        timezone=row["timezone"],
        missed=row["missed"],
        max_missed=row["max_missed"],
        paused=row["paused"],
        source=row["source"],
        created_at=row["created_at"],
        last_at=row["last_at"],
        next_at=next_at,
        skipped=row["skipped"],
        problem=problem,
        stale=row["stale"],
    )


def _unknown(name: str) -> TaskError:
    return TaskError(f"there is no schedule {name}", hint="`pgreflex schedules list` shows them.")
