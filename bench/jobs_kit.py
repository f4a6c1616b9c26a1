"""What the parts of the job benchmark share: databases, jobs to run, and what the archive says of a run.

Owns: the one place that adds jobs and reads how fast they ended. Knows no part's goals.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from bench.jobs_child import Child, child, module
from bench.report import QUICK, Report, batch_rate
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer

TEMPLATE = "bench_template"
CHUNK = 10_000
SLOTS = 100
START_SECONDS = 30.0
RUN_SECONDS = 300.0
NOOP = "bench.noop"


class Bench:
    """The server of the run and its report. `prepare` first."""

    def __init__(self, server: EmbeddedServer, report: Report) -> None:
        self.server = server
        self.report = report

    async def prepare(self) -> None:
        """Make the database that all others are copies of."""
        await self._admin(f"create database {TEMPLATE}")
        await migrate(self.server.dsn_for(TEMPLATE))

    @asynccontextmanager
    async def database(self, name: str, template: str = TEMPLATE) -> AsyncIterator[str]:
        """The address of a new database; dropped at the end, so that nobody pays for another's rubbish."""
        await self._admin(f"drop database if exists bench_{name} with (force)")
        await self._admin(f"create database bench_{name} template {template}")
        yield self.server.dsn_for(f"bench_{name}")
        await self._admin(f"drop database bench_{name} with (force)")

    async def _admin(self, command: str) -> None:
        connection = await asyncpg.connect(self.server.dsn_for("postgres"))
        try:
            await connection.execute(command)
        finally:
            await connection.close()

    def pgbench(self, dsn: str, script: str, *, clients: int, seconds: int) -> float:
        """Transactions a second of a script, prepared."""
        return self.pgbench_counted(dsn, script, clients=clients, seconds=seconds)[0]

    def pgbench_counted(self, dsn: str, script: str, *, clients: int, seconds: int) -> tuple[float, int]:
        """Transactions a second, and how many there were."""
        database = dsn.partition("@/")[2].partition("?")[0]
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script)
            file.flush()
            argv, env = self.server.command(
                "pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds),
                "-f", file.name, database,
            )  # fmt: skip
            done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        found = re.search(r"actually processed: (\d+).*tps = ([0-9.]+)", done.stdout, re.DOTALL)
        if done.returncode or found is None:
            raise RuntimeError(f"pgbench failed: {done.stderr.strip() or done.stdout.strip()}")
        return float(found.group(2)), int(found.group(1))


@asynccontextmanager
async def job_store(dsn: str) -> AsyncIterator[JobStore]:
    """The queue as a program has it that only adds jobs."""
    async with job_database(dsn) as database:
        yield JobStore(database)


async def fill(dsn: str, jobs: int, task: str = NOOP, **options: Any) -> None:
    """Add jobs in bulk; then leave the server with nothing to catch up on."""
    async with job_store(dsn) as store:
        for first in range(0, jobs, CHUNK):
            rows = [{"n": n} for n in range(first, min(first + CHUNK, jobs))]
            await store.enqueue_many(task, rows, **options)
    await settle(dsn)


async def settle(dsn: str) -> None:
    """Vacuum, analyze and checkpoint, which otherwise fall into somebody's measurement."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("vacuum (analyze)")
    await connection.execute("checkpoint")
    await connection.close()


async def execute(dsn: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(dsn)
    try:
        for text in statements:
            await connection.execute(text)
    finally:
        await connection.close()


async def fetchval(dsn: str, query: str, *args: Any) -> Any:
    """The first value of the first row."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query, *args)
    finally:
        await connection.close()


async def archived_rate(dsn: str, expected: int, table: str = "pipeline.job_archive", after: int = 0) -> float:
    """Jobs a second by the archive's own rows, from the first to the last; all must be there.

    after: only jobs with a higher id. Raises RuntimeError when some are missing.
    """
    connection = await asyncpg.connect(dsn)
    row = await connection.fetchrow(
        f"with a as materialized (select finished_at as at from {table} where id > $1 and state = 'finished')"
        " select count(*) as total, count(*) filter (where at = (select min(at) from a)) as first,"
        " extract(epoch from max(at) - min(at))::float8 as seconds from a",
        after,
    )
    await connection.close()
    assert row is not None
    if row["total"] != expected:
        raise RuntimeError(f"{row['total']} jobs of {expected} are in {table}")
    return batch_rate(row["total"], row["first"], row["seconds"])


@asynccontextmanager
async def workers(
    name: str, argv: list[str], count: int = 1, env: Mapping[str, str] | None = None
) -> AsyncIterator[list[Child]]:
    """Children that are ready and wait for the order to go, so that their start is not measured."""
    async with AsyncExitStack() as stack:
        children = [await stack.enter_async_context(child(name, argv, env=env)) for _ in range(count)]
        for one in children:
            await one.hear("ready", START_SECONDS)
        yield children


async def run_all(children: list[Child], jobs: int) -> None:
    """Let them go and wait until together they have ended that many jobs; asks nothing of the server."""
    done = [0] * len(children)
    reached = asyncio.Event()

    async def follow(place: int, one: Child) -> None:
        while not reached.is_set():
            done[place] = await one.hear("done", RUN_SECONDS)
            if sum(done) >= jobs:
                reached.set()

    for one in children:
        one.order("go")
    followers = [asyncio.create_task(follow(place, one)) for place, one in enumerate(children)]
    waiter = asyncio.create_task(reached.wait())
    try:
        ended, _rest = await asyncio.wait([waiter, *followers], return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            await task
    finally:
        for task in (waiter, *followers):
            task.cancel()
        await asyncio.gather(waiter, *followers, return_exceptions=True)


async def our_rate(dsn: str, jobs: int, count: int = 1, slots: int = SLOTS) -> float:
    """Jobs a second of our own worker processes, over jobs that wait already."""
    async with workers("worker", module("jobs_worker", dsn, str(slots)), count) as children:
        await run_all(children, jobs)
    return await archived_rate(dsn, jobs)


def amount(full: int, quick: int) -> int:
    """How many, in the long and in the short form."""
    return quick if QUICK else full
