"""A few seconds of everything at once: producers with open transactions, workers that vanish or report late."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import asyncpg

from pipeline.core.job import Job, Outcome
from pipeline.db.jobs import JobStore
from tests.conftest import eventually
from tests.jobs_kit import finished, job_store, leases

SECONDS = 5.0
DEAD_SECONDS = 0.3


class Run:
    """What happened. handed: to whom each attempt of each job was given, as often as it was."""

    def __init__(self) -> None:
        self.committed: set[int] = set()
        self.handed: dict[tuple[int, int], list[int]] = {}
        self.counts: Counter[str] = Counter()
        self.producing = True
        self.working = True


async def produce(dsn: str, rng: Random, run: Run) -> None:
    connection = await asyncpg.connect(dsn)
    while run.producing:
        transaction = connection.transaction()
        await transaction.start()
        rows = await connection.fetch(
            "select pipeline.enqueue('t', priority => $1) as id from generate_series(1, $2)",
            rng.choice((0, 0, 5)),
            rng.randint(1, 20),
        )
        made = [row["id"] for row in rows]
        await asyncio.sleep(0 if rng.random() < 0.6 else rng.random() * 0.3)
        if rng.random() < 0.1:
            await transaction.rollback()
        else:
            await transaction.commit()
            run.committed.update(made)
        await asyncio.sleep(rng.random() * 0.01)
    await connection.close()


async def work(store: JobStore, rng: Random, run: Run, late: set[asyncio.Task[None]]) -> None:
    """A worker that now and then dies, and comes back under another number."""
    worker = await store.register("w", ["default"])
    while run.working:
        await store.adopt()
        jobs = (await store.claim("default", 20, worker)).jobs
        if not jobs:
            jobs = (await store.sweep("default", 20, worker, every=0.001)).jobs
            run.counts["stragglers"] += len(jobs)
        # A job that was once lost runs only when that could be noted; without the note nothing happened to it.
        jobs = [job for job in jobs if not job.lost or await store.begin(job, worker)]
        for job in jobs:
            run.handed.setdefault((job.id, job.attempt), []).append(worker)
        if not jobs:
            await asyncio.sleep(0.003)
            continue
        fate = rng.random()
        if fate < 0.02:  # it dies with all it holds
            run.counts["abandoned"] += len(jobs)
            await store.retire(worker)
            worker = await store.register("w", ["default"])
        elif fate < 0.08:  # it is thought dead, and reports late
            await store.retire(worker)
            after = rng.choice((0, 0, rng.random() * 2))  # 0: in the same moment as its rescue
            late.add(asyncio.create_task(report_late(store, worker, jobs, after, run)))
            run.counts["rescued"] += (await store.rescue(DEAD_SECONDS))[0]
            worker = await store.register("w", ["default"])
        else:
            await report(store, worker, jobs, rng, run)


async def report(store: JobStore, worker: int, jobs: list[Job], rng: Random, run: Run) -> None:
    half = rng.randint(1, len(jobs))
    for part, freed in ((jobs[:half], []), (jobs[half:], leases(jobs))):
        outcomes = [
            Outcome(job, "finish")
            if (fate := rng.random()) < 0.9
            else Outcome(job, "retry", error="again", delay=rng.random() * 0.2)
            if fate < 0.95 and not job.last_attempt
            else Outcome(job, "release")
            for job in part
        ]
        for outcome in outcomes:
            if outcome.step == "release":  # the same attempt will be handed out again, and may be
                run.handed[outcome.job.id, outcome.job.attempt].remove(worker)
        written = await store.write(worker, outcomes, freed)
        run.counts.update(finished=written.finished, retried=written.retried, refused=written.refused)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.01)


async def report_late(store: JobStore, worker: int, jobs: list[Job], after: float, run: Run) -> None:
    if after:
        await asyncio.sleep(after)
    written = await store.write(worker, finished(jobs), leases(jobs))
    run.counts.update(late_finished=written.finished, late_refused=written.refused)


async def keep_house(store: JobStore, run: Run) -> None:
    while run.working:
        again, _ = await store.rescue(DEAD_SECONDS)
        run.counts["rescued"] += again
        await store.promote(["default"])
        await asyncio.sleep(0.05)


async def test_nothing_is_lost_and_nothing_is_handed_out_twice(dsn: str, sql: asyncpg.Connection) -> None:
    run, late = Run(), set[asyncio.Task[None]]()
    async with job_store(dsn) as store:
        producers = [asyncio.create_task(produce(dsn, Random(n), run)) for n in range(4)]
        workers = [asyncio.create_task(work(store, Random(100 + n), run, late)) for n in range(4)]
        house = asyncio.create_task(keep_house(store, run))
        await asyncio.sleep(SECONDS)
        run.producing = False
        await asyncio.gather(*producers)
        await eventually(
            lambda: sql.fetchval("select not exists (select from pipeline.job)"), within=20, why="an empty queue"
        )
        run.working = False
        await asyncio.gather(*workers, house, *late)

    rows = await sql.fetch("select id, state, attempt, worker from pipeline.job_archive")
    archived = Counter(row["id"] for row in rows)
    print(dict(run.counts), "committed", len(run.committed))
    assert run.committed - set(archived) == set(), "lost"
    assert set(archived) - run.committed == set(), "never committed"
    assert [id_ for id_, n in archived.items() if n > 1] == [], "archived twice"
    assert {key: to for key, to in run.handed.items() if len(to) > 1} == {}, "handed out twice"
    strangers = [
        row
        for row in rows
        if row["state"] == "finished" and row["worker"] not in run.handed[row["id"], row["attempt"]]
    ]
    assert strangers == [], "ended by a worker that did not hold this attempt"
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0
    for what in ("stragglers", "rescued", "late_refused", "retried"):
        assert run.counts[what] > 0, f"the run never saw {what}"
