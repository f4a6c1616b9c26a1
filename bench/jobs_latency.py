"""How soon a job begins: on an idle queue, and while a thousand a second flow.

Owns: the two loads. A sample is from just before another process calls `enqueue` until the task's first line runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from bench.jobs_child import Child, module
from bench.jobs_kit import NOOP, SLOTS, Bench, amount, job_store, settle, workers
from bench.report import quantile
from pipeline.db.jobs import JobStore

NOTE = "bench.note"
IDLE_SAMPLES = amount(200, 25)
IDLE_SECONDS = (
    float(amount(1000, 150)) / 1000
)  # between two samples; the quick form only waits until all sleeps again
BUSY_SAMPLES = amount(400, 40)
BUSY_SECONDS = 0.05
FLOW_PER_SECOND = 1_000
TICK_SECONDS = 0.01
SETTLE_SECONDS = amount(20, 5) / 10

GOALS = {
    "pickup when idle p50, ms": ("<=", 3.0),
    "pickup when idle p99, ms": ("<=", 10.0),
    "pickup p50, at 1 job/s over at 1,000/s": ("<=", 1.0),
}


async def measure(bench: Bench) -> None:
    idle, busy = await pickups(bench)
    values = (quantile(idle, 0.5), quantile(idle, 0.99), quantile(idle, 0.5) / quantile(busy, 0.5))
    detail = f"{IDLE_SAMPLES} samples, one each {IDLE_SECONDS:g} s; the call of enqueue included"
    for (name, aim), value in zip(GOALS.items(), values, strict=True):
        bench.report.goal(name, value, *aim, detail)
    bench.report.figure("pickup at 1,000 jobs/s p50, ms", quantile(busy, 0.5))
    bench.report.figure("pickup at 1,000 jobs/s p99, ms", quantile(busy, 0.99))


async def pickups(bench: Bench) -> tuple[list[float], list[float]]:
    """Milliseconds of each sample, on the idle queue and then beside the flow, with one daemon."""
    async with (
        bench.database("latency") as dsn,
        workers("daemon", module("jobs_worker", dsn, str(SLOTS), "service")) as [daemon],
        job_store(dsn) as store,
    ):
        await settle(dsn)
        await asyncio.sleep(SETTLE_SECONDS)
        idle = await sample(store, range(IDLE_SAMPLES), IDLE_SECONDS)
        async with flow(store, FLOW_PER_SECOND):
            await asyncio.sleep(SETTLE_SECONDS)
            busy = await sample(store, range(IDLE_SAMPLES, IDLE_SAMPLES + BUSY_SAMPLES), BUSY_SECONDS)
            await asyncio.sleep(SETTLE_SECONDS)
        ran = await began(daemon)
        return waits(idle, ran), waits(busy, ran)


async def sample(store: JobStore, numbers: range, every: float) -> dict[int, float]:
    """Enqueue one job at a time, out of step with whatever else goes by the clock; when each was called."""
    rng = Random(1)
    called = {}
    for n in numbers:
        await asyncio.sleep(every * rng.uniform(0.8, 1.2))
        called[n] = time.monotonic()
        await store.enqueue(NOTE, {"n": n})
    return called


async def began(daemon: Child) -> dict[int, float]:
    """When each sample's task began; ends the daemon."""
    daemon.end_input()
    return dict(await daemon.hear("began", 30))


def waits(called: dict[int, float], ran: dict[int, float]) -> list[float]:
    """Milliseconds between the two. Raises RuntimeError for a job that has not begun."""
    if missing := called.keys() - ran.keys():
        raise RuntimeError(f"{len(missing)} of {len(called)} jobs did not begin")
    return [(ran[n] - called[n]) * 1000 for n in called]


@asynccontextmanager
async def flow(store: JobStore, per_second: float) -> AsyncIterator[None]:
    """Jobs that do nothing, at a steady pace, for the length of the block."""

    async def produce() -> None:
        start, made = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - start) * per_second) - made
            if due > 0:
                await store.enqueue_many(NOOP, [{"n": n} for n in range(due)])
                made += due
            await asyncio.sleep(TICK_SECONDS)

    producer = asyncio.create_task(produce())
    try:
        yield
        if producer.done():
            producer.result()
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)
