"""Queues that are drained."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from pipeline.db.jobs import JobStore
from pipeline.db.statements import statement
from tests.jobs_kit import claim, finished, ids, job_store, sweep


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.mark.parametrize("limit", [0, 5])
async def test_a_queue_is_drained_also_of_what_commits_late(
    store: JobStore, sql: asyncpg.Connection, dsn: str, limit: int
) -> None:
    """A job drew its place before the drain, and is seen only after the lane went past it."""
    await sql.execute("select pipeline.set_queue('default', concurrency => $1)", limit)
    worker = await store.register("w", ["default"])
    producer = await asyncpg.connect(dsn)
    try:
        async with producer.transaction():
            late = await producer.fetchval("select pipeline.enqueue('t')")
            early = await store.enqueue("t")
            held = await claim(store, worker)
            assert ids(held) == [early]
            await store.write(worker, finished(held), [held[0].lease])
            await sql.execute("select pipeline.drain_queue('default')")
        [row] = await sql.fetch(statement("jobs/draining"), "default")
        assert row["left"] == 1
        found = await sweep(store, worker) + await claim(store, worker)
    finally:
        await producer.close()
    assert ids(found) == ([] if limit else [late])
    [row] = await sql.fetch(statement("jobs/draining"), "default")
    assert row["left"] == (0 if limit else 1)
    if limit:
        await sql.execute("select pipeline.resume_queue('default')")
        assert ids(await claim(store, worker)) == [late]


async def test_a_paused_queue_hands_out_nothing_that_commits_late(
    store: JobStore, sql: asyncpg.Connection, dsn: str
) -> None:
    worker = await store.register("w", ["default"])
    producer = await asyncpg.connect(dsn)
    try:
        async with producer.transaction():
            await producer.fetchval("select pipeline.enqueue('t')")
            early = await store.enqueue("t")
            assert ids(await claim(store, worker)) == [early]
            await sql.execute("select pipeline.pause_queue('default')")
        assert await sweep(store, worker) + await claim(store, worker) == []
    finally:
        await producer.close()
