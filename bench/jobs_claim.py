"""What a claim costs when a million jobs wait, over what it costs when ten thousand do.

Owns: the two queues, and that both stay as long as they are: each claim is finished, and as many jobs are added.
"""

from __future__ import annotations

import statistics
import time

from bench.jobs_kit import NOOP, Bench, amount, fill, job_store
from pipeline.core.job import Outcome
from pipeline.db.jobs import JobStore

MANY = amount(1_000_000, 50_000)
FEW = 10_000
CLAIMS = amount(400, 60)
SIZE = 100
WARM = 10

GOALS = {"claim with many waiting/few": ("<=", 1.2)}


async def measure(bench: Bench) -> None:
    async with bench.database("many") as many_dsn, bench.database("few") as few_dsn:
        await fill(many_dsn, MANY)
        await fill(few_dsn, FEW)
        async with job_store(many_dsn) as many, job_store(few_dsn) as few:
            stores = {MANY: many, FEW: few}
            numbers = {size: await store.register("bench", ["default"]) for size, store in stores.items()}
            times: dict[int, list[float]] = {MANY: [], FEW: []}
            for turn in range(CLAIMS + WARM):
                for size in (MANY, FEW) if turn % 2 else (FEW, MANY):
                    took = await claim(stores[size], numbers[size])
                    if turn >= WARM:
                        times[size].append(took)
    medians = {size: statistics.median(found) * 1000 for size, found in times.items()}
    detail = f"{MANY:,} and {FEW:,} waiting, {CLAIMS} claims of {SIZE} jobs each, in turn"
    name = "claim with many waiting/few"
    bench.report.goal(name, medians[MANY] / medians[FEW], *GOALS[name], detail)
    bench.report.figure(f"claim of {SIZE} with {MANY:,} waiting, ms", medians[MANY])
    bench.report.figure(f"claim of {SIZE} with {FEW:,} waiting, ms", medians[FEW])


async def claim(store: JobStore, worker: int) -> float:
    """Seconds of one claim; what it took is finished and replaced."""
    await store.adopt()
    began = time.perf_counter()
    claimed = await store.claim("default", SIZE, worker)
    took = time.perf_counter() - began
    jobs = claimed.jobs
    if len(jobs) != SIZE:
        raise RuntimeError(f"a claim of {SIZE} brought {len(jobs)} jobs")
    await store.write(worker, [Outcome(job, "finish") for job in jobs], sorted({job.lease for job in jobs}))
    await store.enqueue_many(NOOP, [{"n": n} for n in range(SIZE)])
    return took
