"""Jobs as a program sees them: adding, finding, cancelling.

Owns: the way from a call to the store. Knows no SQL, and no worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline.app.handle import JobHandle
from pipeline.db.job_admin import JobAdmin
from pipeline.db.jobs import JobStore
from pipeline.errors import UsageError
from pipeline.registry import Task


class Jobs:
    """The jobs of one database."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.admin = JobAdmin(store.database)

    async def enqueue(
        self,
        task: str | Task | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        run_at: datetime | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        key: str | None = None,
        expires_at: datetime | None = None,
        unique_key: str | None = None,
        unique_for: float | None = None,
        unique_states: Sequence[str] | None = None,
        on_clash: str | None = None,
        conn: object = None,
        **more: Any,
    ) -> JobHandle:
        """Add a job. The task's arguments are given by name, or as `args`, where they are named as an option is.

        What is not given comes from the task. The lower priority number runs first. run_at: not before.
        timeout: seconds that one run may take. key: whose job it is, for limits and turns. expires_at: a job
        that has not begun by then never will. unique_*, on_clash: as of the SQL function `enqueue`. conn: a
        connection or session of asyncpg, psycopg 3 or SQLAlchemy; the job is part of its transaction, which
        stays the caller's to commit. Raises TaskError when a known task does not take these arguments,
        UsageError when `conn` is something else or a time has no zone.
        """
        id_ = await self.store.enqueue(
            task, {**(args or {}), **more}, queue=queue, run_at=run_at, priority=priority,
            max_attempts=max_attempts, timeout=timeout, key=key, expires_at=expires_at, unique_key=unique_key,
            unique_for=unique_for, unique_states=unique_states, on_clash=on_clash, conn=conn,
        )  # fmt: skip
        return JobHandle(self.admin, id_)

    async def enqueue_many(
        self, task: str | Task | Callable[..., Any], args: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[int]:
        """Add a job for each of `args`, in one statement; their ids in that order. Options as of `enqueue`."""
        return await self.store.enqueue_many(task, args, **options)

    async def copy(
        self, task: str | Task | Callable[..., Any], args: Iterable[Mapping[str, Any]], **options: Any
    ) -> int:
        """Add a job for each of `args` by COPY, all or none; how many. See JobProducer.copy."""
        return await self.store.copy(task, args, **options)

    def get(self, id_: int) -> JobHandle:
        """The job of that number, whoever added it."""
        return JobHandle(self.admin, id_)


_current: list[Jobs] = []


def enter(jobs: Jobs) -> None:
    """From now on `pipeline.enqueue` means these."""
    _current.append(jobs)


def leave(jobs: Jobs) -> None:
    """No longer; what was meant before is meant again."""
    if jobs in _current:
        _current.remove(jobs)


def current() -> Jobs:
    """The jobs of the client or worker that is open in this process, the newest of several. Raises UsageError."""
    if not _current:
        raise UsageError(
            "no client is open in this process",
            hint="Open one around the call: async with pipeline.connect() as client: ...",
        )
    return _current[-1]


async def enqueue(
    task: str | Task | Callable[..., Any], args: Mapping[str, Any] | None = None, **options: Any
) -> JobHandle:
    """Add a job through the client that is open in this process; see Jobs.enqueue."""
    return await current().enqueue(task, args, **options)
