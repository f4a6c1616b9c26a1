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
from pipeline.db.demo import read_balance

READS_PER_SECOND = 200
ACCOUNTS = 2_000  # the accounts that customers look at; pgbench writes to all 100,000


async def read(dsn: str) -> None:
    """Ask for random balances until told to stop."""
    stopping = asyncio.Event()
    for how in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(how, stopping.set)
    async with connect(dsn, pump=False) as client:
        while not stopping.is_set():
            # few accounts are asked for often, many seldom
            account = min(int(random.paretovariate(0.6)), ACCOUNTS)
            await read_balance(client.cache, account)
            await asyncio.sleep(1 / READS_PER_SECOND)


if __name__ == "__main__":
    uvloop.run(read(sys.argv[1]))
