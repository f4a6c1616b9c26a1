"""Workflows in Postgres: starting them, following their edges, telling how they do.

Owns: how a workflow goes into one statement, the resolver's step, what a job gets of those that it waited for.
Knows neither when to resolve nor what tasks do. The theory is at the head of the migration that makes the tables.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from pipeline.core.args import args_json, refuse_large
from pipeline.core.job import Job
from pipeline.core.seal import Sealer
from pipeline.core.workflow import Batch, Results, Step, Workflow, WorkflowJob, WorkflowStatus
from pipeline.db import foreign
from pipeline.db.connection import Database, Record
from pipeline.db.statements import statement
from pipeline.errors import TaskError, UsageError
from pipeline.registry import Registry, Task

NOTES = 1_000
EDGES = 5_000
KEEP_SECONDS = 7 * 86_400.0
SHORTEST_WAIT_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 0.5


class Resolved(msgspec.Struct, frozen=True):
    """What one step of the resolver did. notes: ended jobs that it dealt with, at least in part. released,
    cancelled: jobs that it let run, or ended. queues: where it let some run. last: the newest note it has seen."""

    notes: int
    released: int
    cancelled: int
    queues: tuple[str, ...]
    last: int

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not self.notes and not self.cancelled


class WorkflowStore:
    """Workflows. registry: to check what is started, where known. sealer: for tasks whose arguments are encrypted.

    Every method raises DatabaseUnavailable, QueryFailed and their kin, never an error of the driver.
    """

    def __init__(
        self, database: Database, *, registry: Registry | None = None, sealer: Sealer | None = None
    ) -> None:
        self._db = database
        self._registry = registry
        self._sealer = sealer or Sealer([], os.urandom)

    async def start(self, flow: Workflow | Batch, *, conn: object = None) -> WorkflowRun:
        """Add all jobs of a workflow, or none.

        conn: a connection of the caller's, whose transaction they belong to; see pipeline.db.foreign. Raises
        TaskError for a workflow that is none, and for arguments as `enqueue` does, UsageError for a
        time without a zone."""
        workflow = flow.workflow if isinstance(flow, Batch) else flow
        workflow.check()
        jobs = msgspec.json.encode([self._wire(step) for step in workflow.steps]).decode()
        values = (workflow.name, jobs, workflow.on_failure)
        if conn is not None:
            id_ = int(await foreign.fetchval(conn, statement("workflows/start"), values))
        else:
            id_ = await self._db.fetchval("workflows/start", *values)
        return WorkflowRun(self, id_)

    async def resolve(self, above: int = 0, *, notes: int = NOTES, edges: int = EDGES) -> Resolved | None:
        """Tell those that need jobs which have ended; None while another resolver is at work.

        above: only notes beyond this one. notes, edges: how many ended jobs, and dependents of them, at most: one
        transaction deals with these, and then it is time for the next.
        """
        row = await self._db.fetchrow("workflows/resolve", above, notes, edges)
        if row is None:
            return None
        return Resolved(row["notes"], row["released"], row["cancelled"], tuple(row["queues"] or ()), row["last"])

    async def results(self, job: Job) -> Results:
        """What the jobs that this one has waited for returned, by name; one indexed look however many they are."""
        rows = await self._db.fetch("workflows/results", job.id)
        return Results(
            {
                row["name"]: None if row["result"] is None else msgspec.json.decode(row["result"])
                for row in rows
                if row["state"] == "finished"
            },
            {row["name"]: row["id"] for row in rows if row["state"] != "finished"},
        )

    async def get(self, id_: int) -> WorkflowStatus | None:
        """How a workflow does; None when there is none of that id."""
        row = await self._db.fetchrow("workflows/get", id_)
        return None if row is None else _status(row)

    async def newest(self, state: str | None = None, limit: int = 100) -> list[WorkflowStatus]:
        """The newest workflows, newest first. state: only those in it."""
        return [_status(row) for row in await self._db.fetch("workflows/list", state, limit)]

    async def jobs(self, id_: int, limit: int = 100) -> list[WorkflowJob]:
        """Jobs of a workflow: first those that did not finish, then those that have not ended."""
        return [WorkflowJob(**dict(row)) for row in await self._db.fetch("workflows/jobs", id_, limit)]

    async def cancel(self, id_: int) -> bool:
        """End all its jobs that have not ended, also those that run; False if it has ended, or there is none.

        It is done in steps, by whoever resolves; see `resolve`.
        """
        was: bool = await self._db.fetchval("workflows/cancel", id_)
        return was

    async def retry(self, id_: int) -> int:
        """Let all its jobs run again that have ended and not finished; returns how many."""
        count: int = await self._db.fetchval("workflows/retry", id_)
        return count

    async def prune(self, keep_seconds: float = KEEP_SECONDS) -> int:
        """Delete workflows that ended that long ago, a bounded number of them; returns how many."""
        count: int = await self._db.fetchval("workflows/prune", keep_seconds)
        return count

    def _wire(self, step: Step) -> dict[str, Any]:
        name, known = self._resolve(step)
        args, key = self._sealed(name, known, step.args, step.key)
        fields: dict[str, Any] = {
            "name": step.name,
            "task": name,
            "args": msgspec.Raw(args),
            "after": step.after,
            "on_failure": step.on_failure,
            "queue": step.queue or (known.queue if known else None),
            "priority": step.priority,
            "run_at": _iso("run_at", step.run_at),
            "max_attempts": step.max_attempts or (known.max_attempts if known else None),
            "timeout": step.timeout,
            "key": key,
            "expires_at": _iso("expires_at", step.expires_at),
        }
        return {field: value for field, value in fields.items() if value not in (None, ())}

    def _resolve(self, step: Step) -> tuple[str, Task | None]:
        if self._registry is not None:
            known = self._registry.find(step.task)
        else:
            known = step.task if isinstance(step.task, Task) else None
        if known is not None:
            return known.name, known
        if isinstance(step.task, str) and step.task:
            return step.task, None
        raise TaskError(f"job {step.name} needs a task", hint="Give the task's name, or the function itself.")

    def _sealed(
        self, name: str, known: Task | None, args: Mapping[str, Any], key: str | None
    ) -> tuple[bytes, str | None]:
        """The arguments as they are stored; and the key, where Postgres could not make it from them."""
        if known is not None:
            known.check(args)
        encoded = args_json(name, args)
        if known is not None and known.encrypt:
            encoded = self._sealer.seal(name, encoded)
            key = known.key(args) if key is None else key
        refuse_large(f"the arguments for task {name}", encoded)
        return encoded, key


class WorkflowRun:
    """A workflow that was started. id: its number."""

    def __init__(self, store: WorkflowStore, id_: int) -> None:
        self.id = id_
        self._store = store

    async def status(self) -> WorkflowStatus:
        """How it does. Raises UsageError while the transaction that it was started in has not committed, or when
        it did not, and once it was pruned."""
        found = await self._store.get(self.id)
        if found is None:
            raise UsageError(
                f"there is no workflow {self.id}", hint="Commit the transaction that it was started in first."
            )
        return found

    async def wait(self, timeout: float | None = None) -> WorkflowStatus:
        """Until all its jobs have ended; returns how. Raises TimeoutError after `timeout` seconds, else as
        `status`."""
        async with asyncio.timeout(timeout):
            pause = SHORTEST_WAIT_SECONDS
            while not (status := await self.status()).ended:
                await asyncio.sleep(pause)
                pause = min(LONGEST_WAIT_SECONDS, pause * 1.5)
            return status


def _status(row: Record) -> WorkflowStatus:
    return WorkflowStatus(**dict(row))


def _iso(name: str, at: datetime | None) -> str | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise UsageError(f"{name} has no time zone", hint="Use datetime.now(UTC) + timedelta(...).")
    return at.isoformat()
