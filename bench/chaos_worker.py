"""The worker processes of the chaos check.

Owns: what runs in one of them. Knows no fault and no check.
"""

from __future__ import annotations

import asyncio
import os

import asyncpg
import uvloop

from bench import chaos_tasks
from bench.crew import die_with_parent, log_to
from handlers.jobs import JobWorker
from handlers.workflows import WorkflowResolver
from pipeline.app.programs import stopping
from pipeline.db.connection import Database
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.workflows import WorkflowStore
from pipeline.errors import PgreflexError
from pipeline.registry import default
from pipeline.runtime import Supervisor

DEAD_SECONDS = 3.0
DRAIN_SECONDS = 5.0
QUEUES = {"default": 20, "keys": 12, "five": 5, "rated": 10, "slow": 6, "processes": 2, "poison": 8}
PRELOAD = ["bench.chaos_worker", "bench.chaos_load"]


def work(name: str, dsn: str, log_path: str) -> None:
    """A worker process, until SIGTERM."""
    die_with_parent()
    os.environ[chaos_tasks.DSN] = dsn
    log_to(log_path, name)
    uvloop.run(serve(name, dsn))


async def serve(name: str, dsn: str) -> None:
    default.prepare()
    async with asyncpg.create_pool(
        dsn, min_size=0, max_size=8, server_settings={"application_name": name}
    ) as pool:
        chaos_tasks.pool = pool
        database = await patiently(job_database(dsn))
        store = JobStore(database, registry=default)
        worker = JobWorker(
            store, default, QUEUES, worker_name=name, drain_seconds=DRAIN_SECONDS, dead_seconds=DEAD_SECONDS,
            modules=["bench.chaos_tasks"],
        )  # fmt: skip
        resolver = WorkflowResolver(WorkflowStore(database), worker.wake)
        store.when_ended = resolver.wake
        supervisor = Supervisor([resolver, worker], drain_timeout=DRAIN_SECONDS + 8)
        with stopping(supervisor.shutdown):
            await supervisor.run()
        await database.close()
        pool.terminate()


async def patiently(database: Database) -> Database:
    """The database, open; waits for a server that is being restarted."""
    while True:
        try:
            return await database.open()
        except PgreflexError:
            await asyncio.sleep(0.1)
