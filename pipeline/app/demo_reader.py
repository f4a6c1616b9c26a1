"""The demo's reader: an application that serves balances through the cache, and a page whose queries are timed.

Owns: which accounts are asked for. Run by the demo as `python -m pipeline.app.demo_reader DSN`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys

import uvloop

from pipeline.app.client import connect
from pipeline.app.pool import create_pool
from pipeline.app.timing import labels
from pipeline.db.demo import Fetches, look, read_account, read_branch

READS_PER_SECOND = 200
ACCOUNTS = 2_000  # the accounts that customers look at; pgbench writes to all 500,000
LOOK_SECONDS = 1.0  # between two pages
BRANCHES = 5
BRANCH_SHARE = 0.05  # of reads that also ask for a branch, which is written to several times a second


async def read(dsn: str) -> None:
    """Ask for random balances until told to stop."""
    stopping = asyncio.Event()
    for how in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(how, stopping.set)
    async with (
        connect(dsn, pump=False) as client,
        create_pool(dsn, name="reader", max_size=2, instrument=True) as pool,
        asyncio.TaskGroup() as tasks,
    ):
        looking = tasks.create_task(_look(pool))
        while not stopping.is_set():
            # few accounts are asked for often, many seldom
            account = min(int(random.paretovariate(0.6)), ACCOUNTS)
            await read_account(client.cache, account)
            if random.random() < BRANCH_SHARE:  # noqa: S311
                await read_branch(client.cache, random.randint(1, BRANCHES))  # noqa: S311
            await asyncio.sleep(1 / READS_PER_SECOND)
        looking.cancel()


async def _look(pool: Fetches) -> None:
    while True:
        with labels(endpoint="/customer"):
            await look(pool, random.randint(1, ACCOUNTS), random.randint(1, BRANCHES))  # noqa: S311
        await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    uvloop.run(read(sys.argv[1]))
