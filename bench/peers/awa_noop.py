"""awa: 256 workers of its Rust runtime, tasks in Python. Usage: python awa_noop.py DSN JOBS"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import awa
from common import Clock, arguments, settle, until

WORKERS = 256


@dataclass
class Noop:
    n: int


async def main() -> None:
    dsn, jobs = arguments()
    clock = Clock(jobs)
    client = awa.AsyncClient(dsn)
    await client.migrate()
    for first in range(0, jobs, 5_000):
        rows = [Noop(n) for n in range(first, min(first + 5_000, jobs))]
        await client.insert_many_copy(rows, queue="default")
    await settle(dsn)

    @client.task(Noop, queue="default")
    async def noop(job: object) -> None:
        clock.tick()

    await client.start([("default", WORKERS)])
    await clock.all_ran.wait()
    await until(dsn, f"select count(*) = {jobs} from awa.jobs where state = 'completed'")
    clock.tell()


asyncio.run(main())
