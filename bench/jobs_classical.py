"""The classical queue, as fast as it gets: `python -m bench.jobs_classical DSN BATCH CONNECTIONS`.

Owns: the statements that our own queue is compared with. A claim fetches all that a worker would need,
but there is no worker: nothing is run, no time is limited, no heartbeat is sent. Each job is claimed with SKIP
LOCKED and an UPDATE, which also gives it a lease, and its end is fenced by worker and attempt.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import uvloop

from bench.jobs_child import orders, tell
from bench.jobs_kit import CHUNK, execute, settle

CLAIM = """
with picked as materialized (
    select id from queue_job
    where state = 0 and queue = 'default' and run_at <= now()
    order by priority, run_at, id limit $1 for update skip locked
)
update queue_job j
set state = 1, attempt = attempt + 1, worker = $2, leased_until = now() + interval '60 s'
from picked p where j.id = p.id
returning j.id, j.attempt, j.task, j.args, j.queue, j.priority, j.max_attempts, j.created_at, j.run_at
"""
FINISH = """
with ended as (
    delete from queue_job j
    using unnest($1::bigint[], $2::int[]) as g (id, attempt)
    where j.id = g.id and j.attempt = g.attempt and j.worker = $3 and j.state = 1
    returning j.*
)
insert into queue_archive (
    id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, worker
)
select id, queue, priority, task, args, 'finished', attempt, max_attempts, created_at, run_at, worker from ended
"""
SETTINGS = {
    # as for our own sessions: each statement has one right plan, and statistics of an empty table mislead
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
IDLE_SECONDS = 0.005
TELL_SECONDS = 0.05


async def create(dsn: str) -> None:
    """Make its tables."""
    await execute(dsn, Path(__file__).with_name("jobs_classical.sql").read_text())


async def fill(dsn: str, jobs: int) -> None:
    """Add jobs; then leave the server with nothing to catch up on."""
    connection = await asyncpg.connect(dsn)
    for first in range(0, jobs, CHUNK):
        await add(connection, range(first, min(first + CHUNK, jobs)))
    await connection.close()
    await settle(dsn)


async def add(connection: asyncpg.Connection, numbers: Iterable[int]) -> None:
    """Add jobs by COPY."""
    rows = [("bench.noop", f'{{"n": {n}}}') for n in numbers]
    await connection.copy_records_to_table("queue_job", records=rows, columns=["task", "args"])


async def main(dsn: str, batch: int, connections: int) -> None:
    done = 0
    claims: list[tuple[float, float]] = []
    go = asyncio.Event()

    async def work(number: int) -> None:
        nonlocal done
        connection = await asyncpg.connect(dsn, server_settings=SETTINGS)
        claim, finish = await connection.prepare(CLAIM), await connection.prepare(FINISH)
        await go.wait()
        while True:
            start = time.monotonic()
            rows = await claim.fetch(batch, number)
            if rows:
                claims.append((start, time.monotonic() - start))
                await finish.fetch([row[0] for row in rows], [row[1] for row in rows], number)
                done += len(rows)
            else:
                await asyncio.sleep(IDLE_SECONDS)

    lines = await orders()
    running = [asyncio.create_task(work(number)) for number in range(connections)]
    tell(ready=True)
    await lines.readline()
    go.set()
    over = asyncio.create_task(lines.read())
    told = 0
    while not over.done():
        await asyncio.wait([over, *running], timeout=TELL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            if task.done():
                task.result()
        if done != told:
            tell(done=done)
            told = done
    tell(claims=claims)
    for task in running:
        task.cancel()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
