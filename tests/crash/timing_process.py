"""An application's process that records timings, for tests that kill it: says when it recorded each.

Run as `python -m tests.crash.timing_process DSN NAME`. It writes the time of each timing as a line.
"""

from __future__ import annotations

import asyncio
import sys
import time

import pipeline


async def main(dsn: str, name: str) -> None:
    async with pipeline.connect(dsn, pump=False):
        while True:
            sys.stdout.write(f"{time.time()!r}\n")
            sys.stdout.flush()
            pipeline.record(name, 1.0)
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
