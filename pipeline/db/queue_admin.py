"""Queues at run time: how they stand, pausing, draining, limits.

Owns: the calls. What a pause or a limit does is told at the functions in SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from pipeline.core.limits import Rate
from pipeline.db.connection import Database
from pipeline.errors import QueryFailed, UsageError

LONGEST_NAME = 200
NO_JOBS: dict[str, Any] = {"ready": 0, "delayed": 0, "running": 0, "oldest": None}
NO_SETTINGS: dict[str, Any] = {
    "state": "running", "concurrency": None, "rate": None, "rate_seconds": None, "slots": None, "weight": 1,
}  # fmt: skip
INVALID = frozenset({"22023", "22003", "22021", "22P05"})  # a parameter, a number out of range, a zero byte


class QueueRow(msgspec.Struct, frozen=True):
    """A queue that has or had jobs or settings. state: running, paused or draining. oldest: seconds that the first
    job that may run has waited. concurrency: over all workers. rate: jobs that may begin in any rate_seconds.
    slots: jobs that one worker runs at once. None: not set. failed: for good, within the last 24 hours."""

    queue: str
    state: str
    ready: int
    delayed: int
    running: int
    failed: int
    oldest: float | None
    concurrency: int | None
    rate: int | None
    rate_seconds: float | None
    slots: int | None
    weight: int


class KeyLimits(msgspec.Struct, frozen=True):
    """The limits of the keys `name` and `name:...`, for each by itself."""

    name: str
    concurrency: int | None
    rate: int | None
    rate_seconds: float | None


class QueueAdmin:
    """database: open. Raises UsageError for what a queue cannot have, and our other errors."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def all(self) -> list[QueueRow]:
        """Every queue; the jobs that have not ended are counted, which takes time in proportion to them."""
        counts = {row["queue"]: dict(row) for row in await self._db.fetch("jobs/status")}
        failed = {row["queue"]: row["failed"] for row in await self._db.fetch("jobs/failed_lately")}
        settings = {row["queue"]: dict(row) for row in await self._db.fetch("jobs/queues")}
        return [
            QueueRow(
                **{
                    "queue": name,
                    "failed": failed.get(name, 0),
                    **NO_JOBS,
                    **NO_SETTINGS,
                    **counts.get(name, {}),
                    **settings.get(name, {}),
                }
            )
            for name in sorted({*counts, *settings})
        ]

    async def known(self, queue: str) -> bool:
        """Whether it has or had a job or a setting."""
        return any(row.queue == queue for row in await self.all())

    async def pause(self, queue: str) -> None:
        """Hand out no more of its jobs; those that run go on."""
        await self._change("jobs/pause_queue", queue)

    async def resume(self, queue: str) -> None:
        """Hand out its jobs again."""
        await self._change("jobs/resume_queue", queue)

    async def drain(self, queue: str) -> None:
        """Hand out the jobs that are in line now, and none that comes later."""
        await self._change("jobs/drain_queue", queue)

    async def left(self, queue: str) -> int | None:
        """How many jobs a queue that drains has still to end; None when it does not drain."""
        row = await self._db.fetchrow("jobs/draining", queue)
        return row["left"] if row is not None and row["state"] == "draining" else None

    async def set(
        self,
        queue: str,
        *,
        concurrency: int | None = None,
        rate: Rate | int | None = None,
        slots: int | None = None,
        weight: int | None = None,
    ) -> None:
        """Set what is given, keep the rest; 0 takes a limit away."""
        limit, seconds = (rate.limit, rate.seconds) if isinstance(rate, Rate) else (rate, None)
        await self._change("jobs/set_queue", queue, concurrency, limit, seconds, slots, weight)

    async def key_limits(self) -> list[KeyLimits]:
        """The limits of all keys that have any."""
        return [KeyLimits(**dict(row)) for row in await self._db.fetch("jobs/key_rules")]

    async def limit_key(
        self, name: str, *, concurrency: int | None = None, rate: Rate | int | None = None
    ) -> None:
        """Set what is given for the keys `name` and `name:...`, keep the rest; 0 takes a limit away."""
        old = next((rule for rule in await self.key_limits() if rule.name == name), None)
        limit, seconds = (rate.limit, rate.seconds) if isinstance(rate, Rate) else (rate, None)
        if rate is None and old is not None:
            limit, seconds = old.rate, old.rate_seconds
        if concurrency is None and old is not None:
            concurrency = old.concurrency
        await self._change("jobs/set_key_rule", name, concurrency or None, limit or None, seconds)

    async def _change(self, statement: str, name: str, *values: Any) -> None:
        if not 0 < len(name) <= LONGEST_NAME or "\0" in name:
            raise UsageError(f"a name has 1 to {LONGEST_NAME} characters", hint="Nothing was changed.")
        with meant():
            await self._db.execute(statement, name, *values)


@contextmanager
def meant() -> Iterator[None]:
    """Turn the database's refusal of a value into a UsageError."""
    try:
        yield
    except QueryFailed as error:
        if error.sqlstate in INVALID:
            raise UsageError(error.message, hint=error.hint or "Nothing was changed.") from error
        raise
