"""The process that judges rules; bench/alerts_instances.py starts it.

Owns: one evaluator's judge, driven window by window, and what each window cost it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import uvloop

from bench.jobs_child import orders, tell
from pipeline.app.daemon import resident_bytes
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.connection import Database


async def main(dsn: str) -> None:
    async with Database(dsn, purpose="bench", max_size=2) as database:
        await database.fetchval("latency/clock")
        idle = resident_bytes() or 0
        tell(ready=True)
        reader = await orders()
        while order := (await reader.readline()).decode().split():
            rule, end = int(order[0]), float(order[1])
            judge = AlertJudge(database, grace=time.time() - end)  # so that this window has just closed
            wall, own = time.perf_counter(), time.process_time()
            changed = await judge.judge(rule)
            tell(
                judged={
                    "seconds": time.perf_counter() - wall,
                    "own": time.process_time() - own,
                    "changed": sum(one.change is not None for one in changed),
                    "megabytes": (peak_bytes() - idle) / 1e6,
                    "idle": idle / 1e6,
                }
            )
            del changed


def peak_bytes() -> int:
    """The most memory that this process ever occupied."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resident_bytes() or 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
