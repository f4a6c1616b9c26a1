"""procrastinate: fifty jobs at a time, deleted when they end. Usage: python procrastinate_noop.py DSN JOBS"""

from __future__ import annotations

import asyncio
import logging

import procrastinate
import uvloop
from common import Clock, arguments, settle

CONCURRENCY = 50


async def main() -> None:
    dsn, jobs = arguments()
    clock = Clock(jobs)
    connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=4, max_size=10)
    app = procrastinate.App(connector=connector)

    @app.task(name="noop")
    async def noop(n: int) -> None:
        clock.tick()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for first in range(0, jobs, 1_000):
            await noop.batch_defer_async(*[{"n": n} for n in range(first, min(first + 1_000, jobs))])
        await settle(dsn)
        # without `wait` it returns once every job has ended
        await app.run_worker_async(
            concurrency=CONCURRENCY, wait=False, install_signal_handlers=False, delete_jobs="always"
        )
        clock.tell()


logging.disable(logging.CRITICAL)
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
asyncio.run(main())
