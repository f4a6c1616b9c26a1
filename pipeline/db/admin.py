"""What an operator asks of the database: watch, unwatch, emit, enqueue.

Owns: the calls. Knows nothing of how the answers are shown; the functions in SQL explain their own refusals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from pipeline.db.connection import Database
from pipeline.db.queue_admin import meant
from pipeline.errors import NotWatchable, QueryFailed

NOT_WATCHABLE = {"42P01", "42703", "42809", "0A000"}  # no table, no column, not a table, no such feature
WATCH_SECONDS = 120.0  # a watch waits for long transactions on its table, in short tries


class Watched(msgspec.Struct, frozen=True):
    """One watched table. columns: those whose change counts, None for all. problem: None when all is well."""

    relation: str
    keys: tuple[str, ...]
    columns: tuple[str, ...] | None
    timing: bool
    durable: bool
    problem: str | None = None


async def watch(
    db: Database,
    relation: str,
    *,
    keys: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    timing: bool = False,
    durable: bool = False,
) -> str:
    """Watch a table; returns its tag. keys None takes the primary key.

    Raises NotWatchable, PermissionMissing, NotInstalled, Busy, with the database's own explanation.
    """
    with _explained():
        tag = await db.fetchval("admin/watch", relation, keys, columns, timing, durable, timeout=WATCH_SECONDS)
    return str(tag)


async def unwatch(db: Database, relation: str) -> bool:
    """Stop watching a table; False if it was not watched. Raises as `watch` does."""
    with _explained():
        return bool(await db.fetchval("admin/unwatch", relation, timeout=WATCH_SECONDS))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except QueryFailed as error:
        if error.sqlstate in NOT_WATCHABLE:
            raise NotWatchable(error.message, hint=error.hint) from error
        raise


async def watched(db: Database) -> list[Watched]:
    """The watched tables by name."""
    return [
        Watched(
            relation=row["relation"],
            keys=tuple(row["keys"] or ()),
            columns=None if row["columns"] is None else tuple(row["columns"]),
            timing=row["timing"],
            durable=row["durable"],
            problem=row["problem"],
        )
        for row in await db.fetch("admin/watched")
    ]


async def emit(db: Database, channel: str, payload: str | None = None) -> None:
    """Send an event of one's own on the feed. Raises QueryFailed, PermissionMissing, NotInstalled."""
    await db.execute("admin/emit", channel, payload)


async def enqueue(
    db: Database,
    task: str,
    args: str,
    *,
    queue: str | None = None,
    priority: int | None = None,
    delay: float | None = None,
    run_at: float | None = None,
    max_attempts: int | None = None,
    timeout: float | None = None,
    key: str | None = None,
    expires: float | None = None,
    unique_key: str | None = None,
    unique_for: float | None = None,
    unique_states: Sequence[str] | None = None,
    on_clash: str | None = None,
) -> int:
    """Add a job; returns its id. args: a JSON object. run_at: Unix seconds; all other times are seconds.

    expires: from when it may run. What is not given comes from the task. Raises UsageError, QueryFailed,
    PermissionMissing, NotInstalled.
    """
    with meant():
        job: int = await db.fetchval(
            "admin/enqueue", task, args, queue, priority, delay, run_at, max_attempts, timeout, key, expires,
            unique_key, unique_for, unique_states, on_clash,
        )  # fmt: skip
    return job
