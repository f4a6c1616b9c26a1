"""Claims the jobs of one queue, ahead of need.

Owns: when the next claim and the next sweep are. Knows no SQL and not how jobs are run.
"""

from __future__ import annotations

import time

import structlog

from handlers.held import HeldQueue
from handlers.outcomes import backoff
from handlers.shift import Shift
from pipeline.db.sleeping import Sleeping
from pipeline.errors import PgreflexError

AWAKE_AFTER = 5
RESTLESS_SECONDS = 0.05
SWEEP_LIMIT = 100  # a sweep under load takes this many more than the slots could use

log = structlog.get_logger("pgreflex.jobs")


class Feeder:
    """Claims until the shift ends. poll: seconds after which it looks though nobody has called.

    problem: why it cannot claim, or ''.
    """

    def __init__(self, shift: Shift, queue: HeldQueue, sleeping: Sleeping, poll: float) -> None:
        self._shift = shift
        self._queue = queue
        self._sleeping = sleeping
        self.poll = poll
        self._busy = 0  # claims in a row that got something
        self._drowsy = False  # has looked once more since whoever adds a job rings
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
            return self.poll
        asked = time.monotonic()
        claim = await shift.store.claim(queue.name, room, shift.worker, free=queue.free(), after=queue.after)
        jobs, queue.after = claim.jobs, claim.after
        now = time.monotonic()
        shift.take(queue, jobs, now, asked)
        if not jobs and await shift.store.adopt():
            return 0
        found = bool(jobs)
        longest = self.poll if claim.ask_in is None else min(self.poll, claim.ask_in)
        if now >= queue.next_sweep:
            asked = now
            sweep = await shift.store.sweep(queue.name, max(room - len(jobs), SWEEP_LIMIT), shift.worker)
            now = time.monotonic()
            shift.take(queue, sweep.jobs, now, asked)
            found = found or bool(sweep.jobs)
            queue.swept(now, sweep.seconds, found=found)
            if sweep.unsettled:
                longest = min(longest, queue.pause)
        else:
            longest = min(longest, queue.next_sweep - now)
        if found:
            await self._stay_awake()
            return 0
        return longest if claim.ask_in is not None else await self._sleep(longest)

    async def _stay_awake(self) -> None:
        """A single job wakes nobody for long; under load producers need not ring."""
        self._busy += 1
        self._drowsy = False
        if self._busy >= AWAKE_AFTER:
            await self._sleeping.wake(self._queue.name)

    async def _sleep(self, longest: float) -> float:
        """How long to sleep: 0 for one more look, which must follow the moment from which on producers ring."""
        self._busy = 0
        if self._drowsy and self._sleeping.rung(self._queue.name):
            return longest
        self._drowsy = await self._sleeping.fall_asleep(self._queue.name)
        return 0 if self._drowsy else min(longest, RESTLESS_SECONDS)
