"""How fast the cache is, what it keeps and what it saves. `make bench-cache`.

Owns: the order of the parts, and which are wanted: BENCH_ONLY=cost,ratio runs these alone.
"""

from __future__ import annotations

from bench import cache_cost, cache_load, cache_memory, cache_ratio
from bench.program import Parts, run

PARTS: Parts = {
    "cost": (cache_cost.measure, cache_cost.GOALS),
    "memory": (cache_memory.measure, cache_memory.GOALS),
    "ratio": (cache_ratio.measure, cache_ratio.GOALS),
    "load": (cache_load.measure, cache_load.GOALS),
}

if __name__ == "__main__":
    run("cache", PARTS)
