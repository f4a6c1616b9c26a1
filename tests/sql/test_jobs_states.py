"""Each step in each state, as SQL takes it, leads where the table of transitions says."""

from __future__ import annotations

from typing import Any, get_args

import asyncpg
import pytest

from pipeline.core.job import TRANSITIONS, Job, Outcome, State, Step
from pipeline.core.workflow import Workflow
from pipeline.db.job_view import JobViews
from tests.jobs_kit import lose
from tests.workflow_kit import Hand, by_hand

ENDS: dict[str, Any] = {"finished": "finish", "failed": "fail", "cancelled": "cancel", "expired": "expire"}


class Case:
    """One job on its way, in a queue of its own; `first` is what it waits for where it is blocked."""

    def __init__(self, hand: Hand, sql: asyncpg.Connection, queue: str) -> None:
        self.hand, self.sql, self.queue = hand, sql, queue
        self.first: int | None = None

    async def into(self, state: State) -> None:
        self.worker = await self.hand.jobs.register("w", [self.queue])
        if state == "blocked":
            flow = Workflow("f")
            flow.add("a", name="a", queue=f"{self.queue}-first")
            flow.add("b", name="b", queue=self.queue, after=["a"])
            jobs = await self.hand.flows.jobs((await self.hand.flows.start(flow)).id, 10)
            self.first, self.id = (job.id for job in jobs)
        else:
            wait = "1 hour" if state == "delayed" else "0"
            self.id = await self.sql.fetchval(
                "select pipeline.enqueue('t', queue => $1, run_at => pipeline.now() + $2::text::interval)",
                self.queue, wait,
            )  # fmt: skip
        self.job = Job(self.id, "t", {}, self.queue, 0, 1, 5, None, 0, 0, 0, 0)
        if state == "running" or state in ENDS:
            await self.claim()
        if state in ENDS:
            await self.hand.jobs.write(self.worker, [Outcome(self.job, ENDS[state])], [self.job.lease])

    async def claim(self) -> None:
        await self.hand.jobs.adopt()
        for job in (await self.hand.jobs.claim(self.queue, 9, self.worker)).jobs:
            assert job.id == self.id
            self.job = job

    async def take(self, step: Step) -> None:
        jobs = self.hand.jobs
        match step:
            case "unblock":
                await self.sql.execute("update pipeline.job set run_at = pipeline.now() where id = $1", self.first)
                await jobs.adopt()
                first = (await jobs.claim(f"{self.queue}-first", 9, self.worker)).jobs
                await jobs.write(self.worker, [Outcome(job, "finish") for job in first])
                await self.hand.resolve()
            case "promote":
                await self.sql.execute("update pipeline.job set run_at = pipeline.now() where id = $1", self.id)
                await jobs.promote([self.queue])
            case "claim":
                await self.claim()
            case "cancel":
                await self.sql.execute("select pipeline.cancel_jobs(array[$1::bigint])", self.id)
            case "redrive":
                await self.sql.execute("select pipeline.retry_jobs(array[$1::bigint])", self.id)
            case "rescue":
                await lose(self.sql, self.worker)
                await jobs.rescue()
            case _:
                if step == "expire":
                    past = "update pipeline.job set expires_at = pipeline.now() - interval '1 s' where id = $1"
                    await self.sql.execute(past, self.id)
                    await jobs.adopt()
                    await self.sql.execute("select pipeline.expire_jobs()")
                await jobs.write(self.worker, [Outcome(self.job, step, delay=60.0)])


@pytest.mark.parametrize("state", get_args(State))
async def test_every_step_leads_where_the_table_says_and_nowhere_else(
    dsn: str, sql: asyncpg.Connection, state: State
) -> None:
    async with by_hand(dsn) as hand:
        views = JobViews(hand.jobs.database)
        led: dict[str, str] = {}
        for step in get_args(Step):
            case = Case(hand, sql, step)
            await case.into(state)
            assert (await views.show(case.id)).state == state
            await case.take(step)
            led[step] = (await views.show(case.id)).state
    assert led == {step: TRANSITIONS.get((state, step), state) for step in get_args(Step)}
