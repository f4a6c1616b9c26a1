"""The queue of a test: what is in it, and a way to run it here and now.

Owns: the assertions and their messages, and the loop that drains. Jobs are claimed, run and ended by the same code
as in a worker; only the clock and the order are the test's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from handlers.batches import run_batch
from handlers.opening import opened
from handlers.running import run
from pipeline.app.keys import sealer
from pipeline.core.args import to_json
from pipeline.core.job import Job, Outcome, after
from pipeline.core.redact import SEALED_TEXT
from pipeline.core.seal import is_sealed
from pipeline.core.workflow import Batch, Results, Workflow
from pipeline.db.jobs import JobStore
from pipeline.db.testing import OneConnection
from pipeline.db.workflows import WorkflowRun, WorkflowStore
from pipeline.errors import PgreflexError, UsageError
from pipeline.log import as_guest
from pipeline.registry import Registry, Task, default
from pipeline.testing.inline import InlineHost

TaskLike = str | Task | Callable[..., Any]
CLAIM = 100
SAME_TIME_SECONDS = 1.0

_args = msgspec.json.Decoder(dict[str, Any]).decode


class Enqueued(msgspec.Struct, frozen=True):
    """A job that has not ended. due_in: seconds until it may run, 0 or less when it may."""

    id: int
    task: str
    args: dict[str, Any]
    queue: str
    priority: int
    attempt: int
    run_at: datetime
    due_in: float

    def __str__(self) -> str:
        when = "due" if self.due_in <= 0 else f"due in {self.due_in:.0f} s"
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"job {self.id}: {self.task} {_told(self.args)} in queue {self.queue}, {when}{again}"


class Drained(dict[str, int]):
    """How many runs led to each state: {"finished": 2, "delayed": 1}. errors: of the runs that went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def __repr__(self) -> str:
        told = "".join(f"\n  {error}" for error in self.errors)
        return f"{super().__repr__()}{told}"


@asynccontextmanager
async def jobs(
    dsn: str | None = None,
    *,
    conn: Any = None,
    registry: Registry = default,
    encryption_keys: Sequence[str] = (),
) -> AsyncIterator[Testing]:
    """The queue of a test's database, which no other worker works on.

    dsn: its address. conn: a connection of asyncpg in its place; everything is done on it, so that a
    transaction around the test is rolled back with all jobs. encryption_keys: for tasks with `encrypt=True`.
    """
    as_guest()
    database = OneConnection(dsn, conn)
    async with database:
        store = JobStore(database, registry=registry, sealer=sealer(encryption_keys))
        worker = await store.register("test", ["*"])
        try:
            yield Testing(database, store, registry, worker)
        finally:
            with suppress(PgreflexError):  # the transaction was aborted: its end takes everything back
                await store.give_back(worker, [], 0)
                await store.retire(worker)


class QueueHost(InlineHost):
    """What jobs that are drained can talk to. Each has what it saved itself, and the results of those it needs."""

    def __init__(self, database: OneConnection, flows: WorkflowStore) -> None:
        super().__init__()
        self._database = database
        self._flows = flows
        self._kept: dict[int, Any] = {}

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        connection = self._database.connection
        async with connection.transaction():
            yield connection

    async def save(self, job: Job, value: Any) -> None:
        self._kept[job.id] = msgspec.json.decode(msgspec.json.encode(value))

    async def saved(self, job: Job) -> Any:
        return self._kept.get(job.id)

    async def results(self, job: Job) -> Results:
        return await self._flows.results(job)


class Testing:
    """What `jobs` hands out."""

    __test__ = False  # pytest collects classes by their name

    def __init__(self, database: OneConnection, store: JobStore, registry: Registry, worker: int) -> None:
        self._database = database
        self._store = store
        self._registry = registry
        self._worker = worker
        self._rng = Random(0)  # noqa: S311 - jitter that is the same each time
        self._flows = WorkflowStore(database, registry=registry, sealer=store.sealer)
        store.host(QueueHost(database, self._flows))

    async def enqueue(self, task: TaskLike, args: Mapping[str, Any] | None = None, **more: Any) -> int:
        """Add a job, as Client.enqueue does for a task without options; returns its id."""
        await self._database.keep_time()
        return await self._store.enqueue(task, {**(args or {}), **more})

    async def start(self, flow: Workflow | Batch) -> WorkflowRun:
        """Add all jobs of a workflow, as Client.start does; `drain` runs them in their order."""
        await self._database.keep_time()
        return await self._flows.start(flow)

    async def drain(self, queue: str | None = None, *, limit: int = 1_000) -> Drained:
        """Run what is due, one job after the other, until nothing is; returns how many runs led to each state.

        queue: only this one. limit: how many runs at most, so that jobs which add jobs come to an end. What is
        retried runs again only when its time has come: see `advance`.
        """
        drained = Drained()
        left = limit
        while left > 0:
            batch = await self._claim(queue, min(left, CLAIM))
            if not batch:
                break
            left -= len(batch)
            for number, job in enumerate(batch):
                await self._run(job, drained, last=all(job.lease != other.lease for other in batch[number + 1 :]))
        return drained

    async def enqueued(
        self, task: TaskLike | None = None, args: Mapping[str, Any] | None = None, *, queue: str | None = None,
        **more: Any,
    ) -> list[Enqueued]:  # fmt: skip
        """The jobs that have not ended, oldest first: of that task and queue, with at least these arguments."""
        await self._database.keep_time()
        wanted = {**(args or {}), **more}
        rows = await self._database.fetch("testing/enqueued", self._name(task), queue)
        found = [
            Enqueued(
                id=row["id"],
                task=row["task"],
                args=self._clear(row["task"], _args(row["args"])),
                queue=row["queue"],
                priority=row["priority"],
                attempt=row["attempt"],
                run_at=datetime.fromtimestamp(row["run_at"], UTC),
                due_in=row["due_in"],
            )
            for row in rows
        ]
        return [one for one in found if _fits(one.args, wanted)]

    async def assert_enqueued(
        self, task: TaskLike, args: Mapping[str, Any] | None = None, *, queue: str | None = None,
        run_at: datetime | None = None, **more: Any,
    ) -> Enqueued:  # fmt: skip
        """The oldest such job; fails when there is none, and says what there is.

        args, or arguments by name: those that the job must have; it may have others. run_at: to the second.
        """
        found = [
            one
            for one in await self.enqueued(task, args, queue=queue, **more)
            if run_at is None or abs((one.run_at - run_at).total_seconds()) < SAME_TIME_SECONDS
        ]
        if not found:
            wanted = _wanted(self._name(task), {**(args or {}), **more}, queue, run_at)
            raise AssertionError(f"no job {wanted} is enqueued; {await self._what_there_is()}")
        return found[0]

    async def refute_enqueued(
        self, task: TaskLike | None = None, args: Mapping[str, Any] | None = None, *, queue: str | None = None,
        **more: Any,
    ) -> None:  # fmt: skip
        """Fails when there is such a job, and says which."""
        found = await self.enqueued(task, args, queue=queue, **more)
        if found:
            wanted = _wanted(self._name(task), {**(args or {}), **more}, queue, None)
            raise AssertionError(f"a job {wanted} is enqueued:{_listed(found)}")

    async def advance(self, seconds: float) -> None:
        """Put the clock of this block forward, so that what waits for its time becomes due.

        Only what is done through this object sees it, and what is done on `conn`; the clock of this process and
        of other sessions goes on as before. Raises UsageError for a step back.
        """
        if seconds < 0:
            raise UsageError("time cannot be put back: jobs would be due that never were", hint="")
        await self._database.advance(seconds)

    async def _claim(self, queue: str | None, limit: int) -> list[Job]:
        await self._database.keep_time()
        while (done := await self._flows.resolve()) is not None and not done.idle:
            pass
        await self._store.adopt()
        queues = [queue] if queue else [one.queue for one in await self._store.queues()]
        await self._store.promote(queues)
        for name in queues:
            batch = (await self._store.claim(name, limit, self._worker)).jobs
            batch = batch or (await self._store.sweep(name, limit, self._worker, every=0)).jobs
            if batch:
                return batch
        return []

    async def _run(self, job: Job, drained: Drained, *, last: bool) -> None:
        """Run one job and write how it ended. last: of its lease."""
        ready = opened(job, self._store.sealer, self._rng)
        if isinstance(ready, Job):
            async with self._database.sheltered():
                outcome = await self._outcome(ready)
        else:
            outcome = ready
        await self._database.keep_time()
        await self._store.write(self._worker, [outcome], [job.lease] if last else [])
        state = after("running", "finish" if outcome.step == "ended" else outcome.step)
        drained[state] = drained.get(state, 0) + 1
        if outcome.error:
            drained.errors.append(f"job {job.id}, {job.task}, attempt {job.attempt}: {outcome.error}")

    async def _outcome(self, job: Job) -> Outcome:
        task = self._registry.get(job.task)
        if task is None or task.batch is None:
            return await run(job, self._registry, self._rng)
        [outcome] = await run_batch([job], task, self._registry, self._rng)
        return outcome

    def _name(self, task: TaskLike | None) -> str | None:
        if task is None or isinstance(task, str):
            return task
        known = self._registry.find(task)
        return known.name if known else None

    def _clear(self, task: str, args: dict[str, Any]) -> dict[str, Any]:
        if not is_sealed(args):
            return args
        try:
            return self._store.sealer.open(task, args)
        except PgreflexError:
            return args

    async def _what_there_is(self) -> str:
        everything = await self.enqueued()
        return f"there is:{_listed(everything)}" if everything else "there is none at all"


def _fits(args: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether all that is wanted is among the arguments, once both are JSON."""
    plain = _args(to_json(dict(wanted)))
    return all(name in args and args[name] == value for name, value in plain.items())


def _wanted(task: str | None, args: Mapping[str, Any], queue: str | None, run_at: datetime | None) -> str:
    parts = [
        f"for {task}" if task else "",
        f"with {_told(args)}" if args else "",
        f"in queue {queue}" if queue else "",
        f"at {run_at.isoformat()}" if run_at else "",
    ]
    return " ".join(filter(None, parts)) or "of any kind"


def _told(args: Mapping[str, Any]) -> str:
    return SEALED_TEXT if is_sealed(args) else to_json(dict(args)).decode()


def _listed(jobs: Sequence[Enqueued]) -> str:
    return "".join(f"\n  {one}" for one in jobs)
