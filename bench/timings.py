"""What timing costs, how much is taken in, and what is kept. `make bench-timings`.

Owns: the order of the parts, and which are wanted: BENCH_ONLY=process,store runs these alone.
"""

from __future__ import annotations

from bench import timings_intake, timings_process, timings_query, timings_store
from bench.program import Parts, run

PARTS: Parts = {
    "process": (timings_process.measure, timings_process.GOALS),
    "intake": (timings_intake.measure, timings_intake.GOALS),
    "query": (timings_query.measure, timings_query.GOALS),
    "store": (timings_store.measure, timings_store.GOALS),
}

if __name__ == "__main__":
    run("timings", PARTS)
