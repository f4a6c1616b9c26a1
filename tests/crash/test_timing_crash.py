"""A process that is killed: its timings are there up to the window that was open, and none of them twice."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg

from pipeline.core.part import BASE_SECONDS
from tests.conftest import eventually

WRITTEN = "select extract(epoch from max(start))::float8 from pipeline.timing_batch"
STORED = "select sum((d).count)::int from pipeline.timing_batch cross join unnest(digests) as d"


async def test_a_process_that_is_killed_loses_no_window_that_was_over(dsn: str, sql: asyncpg.Connection) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.timing_process", dsn, "beat",
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    try:
        start = await eventually(lambda: sql.fetchval(WRITTEN), within=60, why="a window was written")
    finally:
        process.kill()
    said, _ = await process.communicate()
    times = [float(line) for line in said.decode().split("\n")[:-1]]
    over = sum(at < start + BASE_SECONDS for at in times)
    stored = await sql.fetchval(STORED)
    assert abs(stored - over) <= 2  # the process knows the database's clock to a few milliseconds
