"""How many timings a second come in through SQL, and whether every one of them is stored.

Owns: pgbench's sessions that report timings while a daemon of its own takes them in; then the comparison of what
was reported with what `pipeline.latency` counts.
"""

from __future__ import annotations

import asyncio
import time

from bench.feed import daemon
from bench.jobs_kit import Bench, amount, fetchval

TAKEN = "samples through SQL, one call each, per second"
STORED = "samples through SQL that were stored, part"
GOALS = {TAKEN: (">=", 50_000.0), STORED: (">=", 1.0)}
SESSIONS = 4
CALLS = 1_000  # of one statement
DRAIN_SECONDS = 60.0
LABELS = '{"region": "eu"}'
SCRIPT = f"select pipeline.record_timing('checkout', n, '{LABELS}') from generate_series(1, {CALLS}) as n;\n"
SINGLE = f"select pipeline.record_timing('single', 12.5, '{LABELS}');\n"
COUNT = "select coalesce(sum(count), 0)::bigint from pipeline.latency('1 hour') where series like $1"


async def measure(bench: Bench) -> None:
    report = bench.report
    seconds = amount(20, 5)
    async with bench.database("intake") as dsn:
        with daemon(dsn):
            rate, runs = await asyncio.to_thread(
                bench.pgbench_counted, dsn, SCRIPT, clients=SESSIONS, seconds=seconds
            )
            detail = f"{SESSIONS} sessions, {CALLS} calls a statement, a daemon takes them in meanwhile"
            report.goal(TAKEN, rate * CALLS, *GOALS[TAKEN], detail)
            stored, took = await settled(dsn, "checkout", runs * CALLS)
            detail = f"{stored:,} of {runs * CALLS:,}; the last was there {took:.1f} s after the end"
            report.goal(STORED, stored / (runs * CALLS), *GOALS[STORED], detail)
            rate = await asyncio.to_thread(bench.pgbench, dsn, SINGLE, clients=SESSIONS, seconds=seconds)
            report.figure("transactions/s of one record_timing each", rate)


async def settled(dsn: str, name: str, expected: int) -> tuple[int, float]:
    """How many timings are stored once all are, or after DRAIN_SECONDS; and after how many seconds that was."""
    began = time.monotonic()
    while True:
        stored = await fetchval(dsn, COUNT, f"{name}%")
        took = time.monotonic() - began
        if stored >= expected or took > DRAIN_SECONDS:
            return stored, took
        await asyncio.sleep(0.5)
