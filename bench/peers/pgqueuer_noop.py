"""pgqueuer: batches of 1,000, on a pool. Usage: python pgqueuer_noop.py DSN JOBS"""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import uvloop
from common import Clock, arguments, settle, until
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, PgQueuer, Queries

BATCH = 1_000


async def main() -> None:
    dsn, jobs = arguments()
    connection = await asyncpg.connect(dsn)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    for first in range(0, jobs, BATCH):
        size = min(BATCH, jobs - first)
        await queries.enqueue(["noop"] * size, [b'{"n": 1}'] * size, [0] * size)
    await settle(dsn)
    clock = Clock(jobs)
    queuer = PgQueuer(AsyncpgPoolDriver(await asyncpg.create_pool(dsn, min_size=4, max_size=4)))

    @queuer.entrypoint("noop")
    async def noop(job: object) -> None:
        clock.tick()

    running = asyncio.create_task(queuer.run(batch_size=BATCH))
    await clock.all_ran.wait()
    await until(dsn, "select not exists (select from pgqueuer)")
    clock.tell()
    await running


logging.disable(logging.CRITICAL)
uvloop.run(main())
