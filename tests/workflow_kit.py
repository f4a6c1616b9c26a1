"""What the tests of workflows share: a worker and a resolver that take one step at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from pipeline.core.job import Job, Outcome
from pipeline.core.workflow import WorkflowStatus
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.workflows import WorkflowStore
from tests.jobs_kit import claim, leases

Step = Literal["finish", "fail", "cancel"]


class Hand:
    """Runs jobs by hand. ran: the names of the args `n` of all jobs that were handed out, in order."""

    def __init__(self, jobs: JobStore, flows: WorkflowStore, worker: int) -> None:
        self.jobs = jobs
        self.flows = flows
        self.worker = worker
        self.ran: list[str] = []

    async def resolve(self, *, notes: int = 1000, edges: int = 5000) -> int:
        """Until nothing is left; returns how many steps it took."""
        steps = 0
        while True:
            done = await self.flows.resolve(notes=notes, edges=edges)
            assert done is not None
            if done.idle:
                return steps
            steps += 1

    async def take(self, limit: int = 1000) -> list[Job]:
        """What may run now."""
        jobs = await claim(self.jobs, self.worker, limit)
        self.ran += [str(job.args.get("n", job.task)) for job in jobs]
        return jobs

    async def end(self, jobs: list[Job], step: Step = "finish", result: str | None = None) -> None:
        """They end; `result` is JSON."""
        error = None if step == "finish" else "boom"
        written = await self.jobs.write(
            self.worker, [Outcome(job, step, result=result, error=error) for job in jobs], leases(jobs)
        )
        assert written.refused == 0

    async def run(self, step: Callable[[Job], Step] = lambda _job: "finish") -> None:
        """Run everything that can run, and what comes after it."""
        while True:
            await self.resolve()
            jobs = await self.take()
            if not jobs:
                return
            for job in jobs:
                await self.end_one(job, step(job))
            await self.jobs.write(self.worker, [], leases(jobs))

    async def end_one(self, job: Job, step: Step = "finish") -> None:
        """One of several of its lease."""
        written = await self.jobs.write(
            self.worker, [Outcome(job, step, error=None if step == "finish" else "boom")]
        )
        assert written.refused == 0

    async def status(self, flow: int) -> WorkflowStatus:
        found = await self.flows.get(flow)
        assert found is not None
        return found

    async def states(self, flow: int) -> dict[str, str]:
        """Of each job by its name."""
        return {job.name: job.state for job in await self.flows.jobs(flow, 100_000)}


@asynccontextmanager
async def by_hand(dsn: str) -> AsyncIterator[Hand]:
    """On pools of its own."""
    async with job_database(dsn) as database:
        jobs = JobStore(database)
        yield Hand(jobs, WorkflowStore(database), await jobs.register("hand", ["default"]))
