"""What the parts of a worker share while it runs.

Owns: the counts, the jobs that run at this moment and those that somebody has cancelled. Knows neither the
queue nor how jobs are run.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from random import Random
from typing import Any

import structlog

from handlers.deadlines import Deadlines
from handlers.held import HeldQueue
from handlers.host import WorkerHost
from handlers.job_timings import JobTimings
from handlers.outcomes import Outcomes
from handlers.places import Places
from handlers.processes import Processes
from pipeline.core.job import Job, Outcome
from pipeline.db.jobs import JobStore
from pipeline.registry import Registry

REMEMBERED = 10_000

log = structlog.get_logger("pgreflex.jobs")


class Shift:
    """One worker's time from `start` to the end. worker: its number. totals: what has become of jobs here.

    running: by job and lease, because a job that was taken from this worker may come back to it before its
    first run has ended; None for one that cannot be stopped by itself. owner: the task that runs all of it.
    alone: held while a job runs that was once lost with a worker, so that the next loss has one cause.
    """

    def __init__(
        self,
        store: JobStore,
        registry: Registry,
        worker: int,
        outcomes: Outcomes,
        host: WorkerHost,
        *,
        totals: Counter[str],
        places: Places,
        processes: Processes,
        rng: Random,
        timings: JobTimings,
    ) -> None:
        self.store = store
        self.registry = registry
        self.worker = worker
        self.outcomes = outcomes
        self.host = host
        self.totals = totals
        self.places = places
        self.processes = processes
        self.rng = rng
        self.timings = timings
        self.queues: dict[str, HeldQueue] = {}
        self.waits: deque[float] = deque(maxlen=1_000)
        self.runs: deque[float] = deque(maxlen=1_000)
        self.running: dict[tuple[int, int], asyncio.Task[None] | None] = {}
        self.deadlines = Deadlines()
        self.stopping = asyncio.Event()
        self.owner: asyncio.Task[Any] | None = None
        self.alone = asyncio.Lock()
        self.claimed_at: dict[int, float] = {}
        self._cancelled: OrderedDict[int, float] = OrderedDict()
        self._told: set[tuple[int, int]] = set()

    def take(self, queue: HeldQueue, jobs: Sequence[Job], now: float, asked: float) -> None:
        """These were handed out to this worker, which had asked for them at `asked`."""
        for job in jobs:
            if self._cancelled and self._cancelled.get(job.id, asked) < asked:
                del self._cancelled[job.id]  # somebody lets it run again
            self.outcomes.expect(job)
            self.waits.append(job.waited)
            if job.expires_in is not None:
                self.claimed_at[job.id] = now
            queue.ready.put_nowait(job)
        self.timings.waited(queue.name, jobs)
        queue.held += len(jobs)

    def held_for(self, job: Job, now: float) -> float:
        """Seconds since the job was claimed; 0 for one that cannot expire."""
        return now - self.claimed_at.pop(job.id, now)

    def ended(self, queue: HeldQueue, outcome: Outcome) -> None:
        """This job has ended here, one way or another."""
        self.outcomes.add(outcome)
        if self.claimed_at:
            self.claimed_at.pop(outcome.job.id, None)
        queue.held -= 1
        queue.ended += 1
        if not queue.changed.is_set() and queue.room():
            queue.changed.set()

    def cancel(self, ids: Sequence[int]) -> None:
        """Somebody has cancelled these jobs: end those that run here, let none begin that is on its way."""
        self._cancelled.update(dict.fromkeys(ids, time.monotonic()))
        wanted = set(ids)
        for run, task in self.running.items():
            if run[0] in wanted and run not in self._told:  # once: a second time would disturb what tidies up
                self._told.add(run)
                log.info("a job that runs here was cancelled", job=run[0])
                if task is not None:
                    task.cancel()
        while len(self._cancelled) > REMEMBERED:
            self._cancelled.popitem(last=False)

    def leaving(self) -> bool:
        """Whether it ends, so that whoever is cancelled now is to end, too."""
        return self.stopping.is_set() or (self.owner is not None and self.owner.cancelling() > 0)

    def was_cancelled(self, job: Job) -> bool:
        return job.id in self._cancelled

    def begins(self, job: Job, task: asyncio.Task[None] | None) -> None:
        """The job runs in this task from now on; None: with others, which its end must not end."""
        self.running[job.id, job.lease] = task

    def ends(self, job: Job) -> bool:
        """It does not run any more; True if it was told to end because somebody has cancelled it."""
        run = job.id, job.lease
        del self.running[run]
        told = run in self._told
        self._told.discard(run)
        return told

    def wake_all(self) -> None:
        """There may be jobs in any queue."""
        for queue in self.queues.values():
            queue.wake()
