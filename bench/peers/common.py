"""What the Python peers share. They run in an environment of their own, without anything of ours."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time

import asyncpg


def arguments() -> tuple[str, int]:
    """Address and number of jobs; from here on the process ends with its parent."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return sys.argv[1], int(sys.argv[2])


async def settle(dsn: str) -> None:
    """Leave the server with nothing to catch up on."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("vacuum (analyze)")
    await connection.execute("checkpoint")
    await connection.close()


async def until(dsn: str, query: str) -> None:
    """Wait until the query says true, looking every 5 ms."""
    connection = await asyncpg.connect(dsn)
    while not await connection.fetchval(query):
        await asyncio.sleep(0.005)
    await connection.close()


class Clock:
    """From the first task's first line to the last job's durable end."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.ran = 0
        self.began = 0.0
        self.all_ran = asyncio.Event()

    def tick(self) -> None:
        if not self.began:
            self.began = time.perf_counter()
        self.ran += 1
        if self.ran >= self.jobs:
            self.all_ran.set()

    def tell(self) -> None:
        """Print the rate and leave at once."""
        print(json.dumps({"rate": self.jobs / (time.perf_counter() - self.began)}), flush=True)
        os._exit(0)
