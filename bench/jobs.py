"""How fast the job queue is, beside the others. `make bench-jobs`.

Owns: the order of the parts, and which are wanted: BENCH_ONLY=claim,held runs these alone.
"""

from __future__ import annotations

from collections.abc import Collection

from bench import jobs_claim, jobs_enqueue, jobs_held, jobs_latency, jobs_rate
from bench.jobs_kit import Bench
from bench.program import Parts, guarded, measured, serve

PARTS: Parts = {
    "enqueue": (jobs_enqueue.measure, jobs_enqueue.GOALS),
    "latency": (jobs_latency.measure, jobs_latency.GOALS),
    "claim": (jobs_claim.measure, jobs_claim.GOALS),
    "held": (jobs_held.measure, jobs_held.GOALS),
}


async def measure(bench: Bench, wanted: Collection[str]) -> None:
    await measured(bench, PARTS, wanted)
    contestants = set(wanted) & set(jobs_rate.CONTESTANTS)
    if contestants:
        goals = {goal: aim for goal, aim in jobs_rate.GOALS.items() if jobs_rate.PART_OF[goal] in contestants}
        await guarded(bench, "rate", lambda bench: jobs_rate.measure(bench, contestants), goals)


if __name__ == "__main__":
    serve("jobs", (*jobs_rate.CONTESTANTS, *PARTS), measure)
