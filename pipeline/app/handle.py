"""A job that this program has added, or knows the id of.

Owns: waiting for its end. Knows no SQL.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pipeline.db.job_admin import Ended, JobAdmin, Stage
from pipeline.errors import JobFailed, TaskError

FIRST_POLL_SECONDS = 0.005
LONGEST_POLL_SECONDS = 0.25
CLOCK_SECONDS = 3600.0  # how far the clocks of this machine and the server may be apart


class JobHandle:
    """One job, wherever it runs. id: its number."""

    def __init__(self, admin: JobAdmin, id_: int) -> None:
        self.id = id_
        self._admin = admin
        self._since = time.time() - CLOCK_SECONDS

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    def __str__(self) -> str:
        return str(self.id)

    async def status(self) -> Stage | Ended | None:
        """Where it is, or how it ended; None when nothing is known of it (any more)."""
        return await self._admin.stage(self.id) or await self._admin.ended(self.id)

    async def cancel(self, reason: str | None = None) -> bool:
        """End it, also while it runs; False when it had ended before."""
        return bool(await self._admin.cancel([self.id], reason))

    async def result(self, timeout: float | None = None) -> Any:
        """What its task returned, as soon as it has ended.

        timeout: seconds to wait. Raises TimeoutError; JobFailed when it failed, was cancelled or expired;
        TaskError when nothing is known of it. It may be asked for again by anybody, as long as the archive
        keeps it.
        """
        async with asyncio.timeout(timeout):
            pause = FIRST_POLL_SECONDS
            while await self._admin.stage(self.id) is not None:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
            ended = await self._admin.ended(self.id, self._since) or await self._admin.ended(self.id)
        if ended is None:
            raise TaskError(
                f"there is no job {self.id}",
                hint="Its transaction was rolled back, or it ended so long ago that the archive has dropped it.",
            )
        if ended.state != "finished":
            raise JobFailed(
                f"job {self.id} has {ended.state}: {(ended.error or '').partition(chr(10))[0]}", ended.state
            )
        return ended.result
