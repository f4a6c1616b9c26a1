"""What a worker holds of one queue, and when it should ask for more.

Owns: the jobs claimed and not begun, the pace, the time of the next claim and the next sweep. Knows no database.
"""

from __future__ import annotations

import asyncio

from pipeline.core.job import Job, claim_size
from pipeline.db.jobs import SWEEP_SECONDS
from pipeline.runtime import wait_for

LONGEST_PAUSE_SECONDS = 1.0


class HeldQueue:
    """What this worker holds of one queue.

    concurrency: how many run at once. slots: how many loops run them, more or fewer for a moment after that
    was changed. batch: how many jobs one of them may take at once. held: claimed and not yet run to the end.
    after: the key whose turn was last. weight: the queue's share of a worker whose places all queues share.
    """

    def __init__(self, name: str, concurrency: int) -> None:
        self.name = name
        self.concurrency = concurrency
        self.slots = 0
        self.batch = 1
        self.weight = 1
        self.ready: asyncio.Queue[Job | None] = asyncio.Queue()
        self.held = 0
        self.after = ""
        self.ended = 0
        self.per_second = 0.0
        self.next_sweep = 0.0
        self.earliest_sweep = 0.0
        self.pause = SWEEP_SECONDS
        self.changed = asyncio.Event()

    def room(self) -> int:
        return claim_size(self.concurrency * self.batch, self.held, self.per_second)

    def free(self) -> int:
        """How many more could begin at once."""
        return max(0, self.concurrency * self.batch - self.held)

    def wake(self) -> None:
        """There may be more; also a straggler, whose transaction has just ended."""
        self.pause = SWEEP_SECONDS
        self.next_sweep = self.earliest_sweep
        self.changed.set()

    def swept(self, now: float, took: float, *, found: bool) -> None:
        """Set the time of the next sweep: sooner after a wake, which tells of most stragglers at once.

        A sweep gets slow where a transaction held open keeps dead rows; it may take a twentieth of the time.
        """
        self.pause = SWEEP_SECONDS if found else min(LONGEST_PAUSE_SECONDS, self.pause * 1.5)
        self.earliest_sweep = now + max(SWEEP_SECONDS, 20 * took)
        self.next_sweep = max(self.earliest_sweep, now + self.pause)

    async def wait(self, seconds: float) -> None:
        """Until something changed: a wake, a slot that is free, the end; at most this long."""
        await wait_for(self.changed, seconds)
        self.changed.clear()
