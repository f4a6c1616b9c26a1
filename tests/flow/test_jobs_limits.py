"""Limits hold and turns are fair under many claims at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import asyncpg
import pytest

from pipeline.app import Client
from pipeline.core.job import Job
from pipeline.db.jobs import JobStore
from tests.jobs_kit import claim, finished, ids, job_store, leases, sweep

SECONDS = 3.0


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
async def worker(store: JobStore) -> int:
    return await store.register("one", ["q"])


class Watch:
    """Counts what runs at the same time. A job counts from before its worker could know of it until before its
    end is sent, so the most that is seen is never more than what truly ran."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.claims: list[tuple[float, float, int]] = []

    def begin(self, job: Job) -> None:
        for name in ("queue", job.key):
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])

    def end(self, job: Job) -> None:
        for name in ("queue", job.key):
            self.running[name] -= 1


async def work(dsn: str, rng: Random, watch: Watch, until: float) -> int:
    done, after = 0, ""
    async with job_store(dsn) as store:
        worker = await store.register("w", ["q"])
        while (began := time.monotonic()) < until:
            got = await store.claim("q", rng.choice((1, 3, 10)), worker, after=after)
            after = got.after
            watch.claims.append((began, time.monotonic(), len(got.jobs)))
            for job in got.jobs:
                watch.begin(job)
            while got.jobs:
                some = [got.jobs.pop(0) for _ in range(min(len(got.jobs), rng.randint(1, 2)))]
                await asyncio.sleep(rng.random() * 0.01)
                for job in some:
                    watch.end(job)
                rest = {job.lease for job in got.jobs}
                await store.write(worker, finished(some), [e for e in leases(some) if e not in rest])
                done += len(some)
    return done


async def run(dsn: str) -> tuple[Watch, int]:
    watch, until = Watch(), time.monotonic() + SECONDS
    done = await asyncio.gather(*(work(dsn, Random(n), watch, until) for n in range(4)))
    return watch, sum(done)


async def test_limits_of_a_queue_and_of_its_keys_hold_over_all_workers(
    dsn: str, store: JobStore, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        """select pipeline.set_queue('q', concurrency => 5);
           select pipeline.set_key_rule('one', 1);
           select pipeline.set_key_rule('two', 2);
           select pipeline.enqueue('t', queue => 'q', key => k, priority => n % 2)
           from generate_series(1, 400) n, unnest('{one:a,one:b,two:a,two:b,""}'::text[]) k"""
    )
    await store.adopt()
    watch, done = await run(dsn)
    print(watch.most, done)
    assert watch.most["queue"] == 5
    assert {key: watch.most[key] for key in ("one:a", "one:b", "two:a", "two:b")} == {
        "one:a": 1, "one:b": 1, "two:a": 2, "two:b": 2,
    }  # fmt: skip
    assert done > 100


async def test_a_rate_holds_in_every_window_over_all_workers(
    dsn: str, store: JobStore, sql: asyncpg.Connection
) -> None:
    await sql.execute("select pipeline.set_queue('q', rate => 20, per => '0.5 s')")
    await store.enqueue_many("t", [{}] * 1000, queue="q")
    await store.adopt()
    watch, done = await run(dsn)
    took = [(began, ended, n) for began, ended, n in watch.claims if n]
    for began, _, _ in took:  # what surely lies within half a second from here
        assert sum(n for at, ended, n in took if at >= began and ended < began + 0.5) <= 20
    assert 0.75 * 20 * SECONDS / 0.5 <= done <= 20 * (SECONDS / 0.5 + 1)


async def test_a_key_with_many_jobs_delays_a_key_with_one_by_one_turn(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "select pipeline.enqueue_many('t', array_fill('{}'::jsonb, array[50000]), queue => 'q');"
        "update pipeline.job set key = 'big'; insert into pipeline.lane_request values ('q', 0, 'big')"
    )
    after = (await store.claim("q", 10, worker)).after if await store.adopt() else ""
    for key in ("a", "big:1", "z"):
        single = await store.enqueue("t", queue="q", key=key)
        await store.adopt()
        got = await store.claim("q", 10, worker, after=after)
        assert single in ids(got.jobs)
        assert len(got.jobs) >= 6  # and the room is used
        after = got.after


async def test_each_of_many_keys_gets_its_turn(store: JobStore, worker: int, sql: asyncpg.Connection) -> None:
    """2,000 with one job, and three that always have more."""
    await sql.execute(
        """select pipeline.enqueue('t', queue => 'q', key => 'k' || n) from generate_series(1, 2000) n;
           select pipeline.enqueue('t', queue => 'q', key => k)
           from generate_series(1, 900) n, unnest('{a,k5,z}'::text[]) k"""
    )
    await store.adopt()
    seen: Counter[str] = Counter()
    after = ""
    for _ in range(101):  # 2,002 keys, 20 a claim
        got = await store.claim("q", 20, worker, after=after)
        after = got.after
        assert max(seen.values(), default=0) <= 1
        seen.update(job.key for job in got.jobs)
    assert len(seen) == 2002


async def test_a_key_that_found_no_room_in_one_claim_is_the_first_of_the_next(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        """select pipeline.enqueue('t', queue => 'q', key => k)
           from generate_series(1, 9), unnest('{k,l,m,n,o}'::text[]) k"""
    )
    await store.adopt()
    async with sql.transaction():
        await sql.execute("select from pipeline.lane where key = 'k' for update")
        first = await store.claim("q", 6, worker)
    assert [job.key for job in first.jobs] == ["l", "l", "m", "m", "n", "n"]
    assert first.ask_in is not None  # the one that another claim seemed to hold
    second = await store.claim("q", 5, worker, after=first.after)
    assert second.jobs[0].key == "o"


BLOCKS = {
    "jobs that run": "select pipeline.set_key_rule('k', 1)",
    "their rate": "select pipeline.set_key_rule('k', rate => 1, per => '1 hour')",
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("priority", [0, 5])
async def test_keys_that_are_held_back_do_not_hide_one_that_can_run(
    store: JobStore, worker: int, sql: asyncpg.Connection, block: str, priority: int
) -> None:
    await sql.execute(BLOCKS[block])
    await sql.execute(
        """select pipeline.enqueue('t', queue => 'q', key => 'k:' || n)
           from generate_series(1, 1000) n, generate_series(1, 2)"""
    )
    await store.adopt()
    await sql.execute("insert into pipeline.limiter (name) select 'key:k:' || n from generate_series(1, 1000) n")
    taken, after = 0, ""
    while got := await store.claim("q", 100, worker, after=after):
        after, taken = got.after, taken + len(got.jobs)
        if not got.jobs and taken >= 1000:
            break
    assert taken == 1000
    assert got.ask_in is not None
    single = await store.enqueue("t", queue="q", key="k:zz", priority=priority)
    await store.adopt()
    await sql.execute("insert into pipeline.limiter (name) values ('key:k:zz')")
    found: list[int] = []
    waited = 0.0
    for _ in range(4):
        got = await store.claim("q", 100, worker, after=after)
        found, after, waited = found + ids(got.jobs), got.after, waited + (got.ask_in or 0)
        if found:
            break
    assert found == [single]
    assert waited < 1.5  # a poll at most


async def test_every_lane_is_swept_while_a_transaction_stays_open(
    store: JobStore, worker: int, sql: asyncpg.Connection, dsn: str
) -> None:
    """None can settle, and a sweep takes 200 lanes at a time."""
    open_ = await asyncpg.connect(dsn)
    transaction = open_.transaction()
    await transaction.start()
    await open_.execute("select pg_current_xact_id()")
    late = await asyncpg.connect(dsn)
    last = late.transaction()
    await last.start()
    straggler = await late.fetchval("select pipeline.enqueue('late', queue => 'q', key => 'zz')")
    await sql.execute(
        """select pipeline.enqueue('t', queue => 'q', key => 'k' || n) from generate_series(1, 450) n;
           select pipeline.enqueue('t', queue => 'q', key => 'zz')"""
    )
    await store.adopt()
    assert len((await store.claim("q", 500, worker)).jobs) == 451
    for _ in range(6):
        await sweep(store, worker, queue="q")
    await last.commit()
    for _ in range(3):
        await sweep(store, worker, queue="q")
    assert ids(await claim(store, worker, queue="q")) == [straggler]
    await transaction.rollback()
    await open_.close()
    await late.close()


async def test_a_program_asks_for_its_own_rates(dsn: str) -> None:
    async with Client(dsn, pump=False) as client:
        assert [await client.rate_limit("signup", 2, seconds=60) for _ in range(3)] == [True, True, False]
        assert await client.rate_limit("other", 2, seconds=60)
