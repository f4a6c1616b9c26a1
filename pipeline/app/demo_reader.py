"""The demo's reader: an application's process that serves balances through the cache.

Owns: which accounts are asked for. Run by the demo as `python -m pipeline.app.demo_reader DSN`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys

import uvloop

from pipeline.app.client import connect
from pipeline.db.demo import read_account, read_branch

READS_PER_SECOND = 200
ACCOUNTS = 2_000  # the accounts that customers look at; pgbench writes to all 500,000
BRANCH_SHARE = 0.05  # of reads that also ask for a branch, which is written to several times a second


async def read(dsn: str) -> None:
    """Ask for random balances until told to stop."""
    stopping = asyncio.Event()
    for how in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(how, stopping.set)
    async with connect(dsn, pump=False) as client:
        while not stopping.is_set():
            # few accounts are asked for often, many seldom
            account = min(int(random.paretovariate(0.6)), ACCOUNTS)
            await read_account(client.cache, account)
            if random.random() < BRANCH_SHARE:  # noqa: S311
                await read_branch(client.cache, random.randint(1, 5))  # noqa: S311
            await asyncio.sleep(1 / READS_PER_SECOND)


if __name__ == "__main__":
    uvloop.run(read(sys.argv[1]))
