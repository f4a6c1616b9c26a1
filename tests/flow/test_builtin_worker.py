"""The built-in tasks in a worker: results, progress and what is saved go through its host."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from handlers.builtin import CLEANUP, EXPORT, add_builtin
from pipeline.config_sections import Jobs
from pipeline.db.connection import Database
from pipeline.db.jobs import JobStore
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.flow.test_jobs_worker import archived, running
from tests.jobs_kit import job_store


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as opened:
        yield opened


async def test_an_export_and_a_cleanup_run_in_a_worker(
    store: JobStore, db: Database, sql: asyncpg.Connection, folder: Path
) -> None:
    registry = Registry()
    registry.add_export("numbers", "select i as id from generate_series(1, $1::int) i", order_by="id")
    add_builtin(registry, db, Jobs(export_dir=folder))
    await sql.execute("insert into pipeline.job_unique (key, job) values ('u', 999)")
    args = {"name": "numbers", "params": [12_000], "path": "n.csv"}
    async with running(store, registry):
        await store.enqueue(EXPORT, args)
        await store.enqueue(EXPORT, {**args, "path": "../n.csv"})
        await store.enqueue(CLEANUP)
        rows = await eventually(archived(sql, 3), within=30)
    assert [row["state"] for row in rows] == ["finished", "failed", "finished"], rows[2]["error"]
    digest = hashlib.sha256((folder / "n.csv").read_bytes()).hexdigest()
    found = await sql.fetchrow(
        "select result ->> 'sha256', (result ->> 'rows')::int from pipeline.job_archive where id = $1",
        rows[0]["id"],
    )
    assert tuple(found or ()) == (digest, 12_000)
    assert rows[1]["attempt"] == 1
    assert "cannot be written to '../n.csv'" in rows[1]["error"]
    unique = "select (result ->> 'job_unique')::int from pipeline.job_archive where id = $1"
    gone = await sql.fetchval(unique, rows[2]["id"])
    assert gone == 1
