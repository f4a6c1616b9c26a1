"""How soon an alert is told: from the breach in the database to the webhook's receipt.

Owns: the two kinds of breach. The daemon is a process of its own; the webhook listens in ours, on the same clock.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from random import Random

import asyncpg

from bench.alerts_kit import Ear, daemon, webhook
from bench.jobs_kit import Bench, amount

WINDOW_SECONDS = 5
RAISED = "raise_alert to the webhook's receipt, worst, s"
JUDGED = f"slow timing to the webhook's receipt, windows of {WINDOW_SECONDS} s, worst, s"
GOALS = {RAISED: ("<=", 2.0), JUDGED: ("<=", WINDOW_SECONDS + 2.0)}
SAMPLES = amount(12, 4)  # together with the rules not more than a channel may be sent at once
RULES = amount(6, 3)
PATIENCE = 30.0


async def measure(bench: Bench) -> None:
    async with bench.database("way") as dsn, webhook() as ear, daemon(dsn, ear):
        connection = await asyncpg.connect(dsn)
        try:
            await asyncio.sleep(2)
            judged = await breaches(connection, ear)
            raised = [await raise_one(connection, ear, n) for n in range(SAMPLES)]
        finally:
            await connection.close()
    for name, found in ((RAISED, raised), (JUDGED, judged)):
        detail = f"of {len(found)}; median {statistics.median(found):.2f} s"
        bench.report.goal(name, max(found), *GOALS[name], detail)


async def raise_one(connection: asyncpg.Connection, ear: Ear, n: int) -> float:
    """Seconds from just before the statement to the receipt; one alert at a time, each of a name of its own."""
    await asyncio.sleep(Random(n).uniform(0.3, 1.5))
    name = f"breach {n} raised"
    began = time.perf_counter()
    await connection.execute("select pipeline.raise_alert($1, 'something is wrong')", name)
    return await ear.hear(name, PATIENCE) - began


async def breaches(connection: asyncpg.Connection, ear: Ear) -> list[float]:
    """Seconds from just before a slow timing is recorded to the receipt; at all places of a window."""
    for n in range(RULES):
        await connection.execute(
            "select pipeline.alert_rule_set($1, 'latency.p95', $2, 500, need => 1, over => $3 * interval '1 s')",
            f"breach {n} judged",
            f"bench.{n}",
            float(WINDOW_SECONDS),
        )
    began = {}
    window = time.time() // WINDOW_SECONDS * WINDOW_SECONDS + WINDOW_SECONDS
    for n in range(RULES):
        await asyncio.sleep(window + WINDOW_SECONDS * (n + 0.05) / RULES - time.time())
        began[n] = time.perf_counter()
        await connection.execute("select pipeline.record_timing($1, 900)", f"bench.{n}")
    return [await ear.hear(f"breach {n} judged", PATIENCE) - at for n, at in began.items()]
