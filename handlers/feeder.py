"""Claims the jobs of one queue, ahead of need.

Owns: when the next claim and the next sweep are. Knows no SQL and not how jobs are run.
"""

from __future__ import annotations

import time

import structlog

from handlers.held import HeldQueue
from handlers.outcomes import backoff
from handlers.shift import Shift
from pipeline.errors import PgreflexError

SWEEP_LIMIT = 100  # a sweep under load takes this many more than the slots could use

log = structlog.get_logger("pgreflex.jobs")


class Feeder:
    """Claims until the shift ends. poll: seconds after which it looks though nobody has called.

    problem: why it cannot claim, or ''.
    """

    def __init__(self, shift: Shift, queue: HeldQueue, poll: float) -> None:
        self._shift = shift
        self._queue = queue
        self._poll = poll
        self.problem = ""

    async def run(self) -> None:
        failures = 0
        while not self._shift.stopping.is_set():
            try:
                pause = await self._feed()
                failures, self.problem = 0, ""
            except PgreflexError as error:
                failures += 1
                self.problem = error.message
                pause = backoff(failures, self._shift.rng)
                log.warning("jobs cannot be claimed", queue=self._queue.name, error=error.message)
            if pause:
                await self._queue.wait(pause)

    async def _feed(self) -> float:
        """Claim what there is room for; returns how long to wait before the next look, 0 for not at all."""
        shift, queue = self._shift, self._queue
        room = queue.room()
        if not room:
            return self._poll
        claim = await shift.store.claim(queue.name, room, shift.worker, free=queue.free(), after=queue.after)
        jobs, queue.after = claim.jobs, claim.after
        now = time.monotonic()
        shift.take(queue, jobs, now)
        if not jobs and await shift.store.adopt():
            return 0
        longest = self._poll if claim.ask_in is None else min(self._poll, claim.ask_in)
        if now < queue.next_sweep:
            return 0 if jobs else min(longest, queue.next_sweep - now)
        sweep = await shift.store.sweep(queue.name, max(room - len(jobs), SWEEP_LIMIT), shift.worker)
        now = time.monotonic()
        shift.take(queue, sweep.jobs, now)
        queue.swept(now, sweep.seconds, found=bool(jobs or sweep.jobs))
        if jobs or sweep.jobs:
            return 0
        return min(longest, queue.pause) if sweep.unsettled else longest
