"""How fast the job queue is, beside the others. `make bench-jobs`.

Owns: the order of the parts, and which are wanted: BENCH_ONLY=claim,held runs these alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from bench import jobs_claim, jobs_enqueue, jobs_held, jobs_latency, jobs_rate
from bench.jobs_kit import Bench
from bench.report import Report
from pipeline.embedded import EmbeddedServer

SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}
Part = Callable[[Bench], Awaitable[None]]
PARTS: dict[str, tuple[Part, dict[str, tuple[str, float]]]] = {
    "enqueue": (jobs_enqueue.measure, jobs_enqueue.GOALS),
    "latency": (jobs_latency.measure, jobs_latency.GOALS),
    "claim": (jobs_claim.measure, jobs_claim.GOALS),
    "held": (jobs_held.measure, jobs_held.GOALS),
}


def main() -> None:
    names = (*jobs_rate.CONTESTANTS, *PARTS)
    wanted = set(filter(None, os.environ.get("BENCH_ONLY", "").split(","))) or set(names)
    if unknown := wanted - set(names):
        sys.exit(f"BENCH_ONLY knows no {', '.join(sorted(unknown))}; it knows {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="pgreflex-bench-") as home:
        Path(home).chmod(0o711)
        try:
            with EmbeddedServer(Path(home) / "server", settings=SETTINGS, database="bench") as server:
                try:
                    report = Report("jobs", server.version)
                    uvloop.run(measure(Bench(server, report), wanted))
                    report.finish()
                finally:
                    server.stop("immediate")  # its data are deleted next; a checkpoint would be for nothing
        except KeyboardInterrupt:
            sys.exit(130)


async def measure(bench: Bench, wanted: set[str]) -> None:
    """Every wanted part; one that fails takes no other with it."""
    await bench.prepare()
    for name, (part, goals) in PARTS.items():
        if name in wanted:
            await guarded(bench, name, part, goals)
    contestants = wanted & set(jobs_rate.CONTESTANTS)
    if contestants:
        goals = {goal: aim for goal, aim in jobs_rate.GOALS.items() if jobs_rate.PART_OF[goal] in contestants}
        await guarded(bench, "rate", lambda bench: jobs_rate.measure(bench, contestants), goals)


async def guarded(bench: Bench, name: str, part: Part, goals: dict[str, tuple[str, float]]) -> None:
    bench.report.say(f"--- {name}")
    try:
        await part(bench)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        for goal, (op, aim) in goals.items():
            if not bench.report.has(goal):
                bench.report.unmeasured(goal, op, aim, reason)


if __name__ == "__main__":
    main()
