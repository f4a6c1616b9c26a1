"""What alerts cost, and how soon they are told. `make bench-alerts`.

Owns: the order of the parts, and which are wanted: BENCH_ONLY=instances,pool runs these alone.
"""

from __future__ import annotations

from bench import alerts_instances, alerts_pool, alerts_storm, alerts_way
from bench.program import Parts, run

PARTS: Parts = {
    "instances": (alerts_instances.measure, alerts_instances.GOALS),
    "way": (alerts_way.measure, alerts_way.GOALS),
    "storm": (alerts_storm.measure, alerts_storm.GOALS),
    "pool": (alerts_pool.measure, alerts_pool.GOALS),
}

if __name__ == "__main__":
    run("alerts", PARTS)
