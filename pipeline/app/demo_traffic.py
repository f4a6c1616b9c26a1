"""What the demo does to its database beside pgbench.

Owns: the demo's watches, its rule, its task and its troublemaker. Knows nothing of processes and screens.
"""

from __future__ import annotations

import asyncio

from pipeline.core.job import Job
from pipeline.db.connection import Database
from pipeline.db.demo import DemoDatabase

TASK = "demo.receipt"
FIRST_LOCK_SECONDS = 15.0
LOCK_EVERY_SECONDS = 60.0
LOCK_SECONDS = 4.0


async def prepare(dsn: str) -> None:
    """Watch pgbench's tables, enqueue a job for a share of its inserts, set the rule."""
    async with Database(dsn, purpose="demo", max_size=1) as database:
        await DemoDatabase(database).prepare(TASK)


async def receipt(job: Job, **row: object) -> dict[str, object]:
    """The demo's task: stands for a mail or a call to somebody else's service."""
    await asyncio.sleep(0.01)
    return {"account": row.get("aid"), "amount": row.get("delta")}


class LockHolder:
    """Holds a lock that pgbench needs, for a few seconds of every minute."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def run(self) -> None:
        """Until cancelled."""
        async with Database(self._dsn, purpose="demo lock", max_size=1) as database:
            demo = DemoDatabase(database)
            await asyncio.sleep(FIRST_LOCK_SECONDS)
            while True:
                await demo.hold_lock(LOCK_SECONDS)
                await asyncio.sleep(LOCK_EVERY_SECONDS - LOCK_SECONDS)
