"""What alerts cost, and how soon they are told. `make bench-alerts`.

Owns: the order of the parts, and which are wanted: BENCH_ONLY=instances,pool runs these alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import uvloop

from bench import alerts_instances, alerts_pool, alerts_storm, alerts_way
from bench.jobs import Part, guarded
from bench.jobs_kit import Bench
from bench.report import Report
from pipeline.embedded import EmbeddedServer

SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}
PARTS: dict[str, tuple[Part, dict[str, tuple[str, float]]]] = {
    "instances": (alerts_instances.measure, alerts_instances.GOALS),
    "way": (alerts_way.measure, alerts_way.GOALS),
    "storm": (alerts_storm.measure, alerts_storm.GOALS),
    "pool": (alerts_pool.measure, alerts_pool.GOALS),
}


def main() -> None:
    wanted = set(filter(None, os.environ.get("BENCH_ONLY", "").split(","))) or set(PARTS)
    if unknown := wanted - set(PARTS):
        sys.exit(f"BENCH_ONLY knows no {', '.join(sorted(unknown))}; it knows {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="pgreflex-bench-") as home:
        Path(home).chmod(0o711)
        try:
            with EmbeddedServer(Path(home) / "server", settings=SETTINGS, database="bench") as server:
                try:
                    report = Report("alerts", server.version)
                    uvloop.run(measure(Bench(server, report), wanted))
                    report.finish()
                finally:
                    server.stop("immediate")
        except KeyboardInterrupt:
            sys.exit(130)


async def measure(bench: Bench, wanted: set[str]) -> None:
    """Every wanted part; one that fails takes no other with it."""
    await bench.prepare()
    for name, (part, goals) in PARTS.items():
        if name in wanted:
            await guarded(bench, name, part, goals)


if __name__ == "__main__":
    main()
