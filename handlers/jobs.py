"""The worker: claims jobs and has them run.

Owns: how many jobs it holds, when it asks for more, its chores, and what happens at the end. Knows no SQL
and not what tasks do.

Each queue has a feeder, which claims ahead of need, and as many slots as it may run jobs at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Mapping
from random import Random

import structlog

from handlers.held import HeldQueue
from handlers.opening import opened
from handlers.outcomes import Outcomes, backoff
from handlers.running import run
from pipeline.core.job import Job, Outcome
from pipeline.core.status import JobsStatus, Quantiles, QueueStatus
from pipeline.db.heartbeat import Heartbeat
from pipeline.db.jobs import DEAD_SECONDS, JobStore
from pipeline.errors import PgreflexError
from pipeline.registry import Registry
from pipeline.runtime import Health

POLL_SECONDS = 1.0
RESCUE_SECONDS = 5.0
STATUS_SECONDS = 5.0
ARCHIVE_SECONDS = 3600.0
TURN_SECONDS = 0.25
PROMOTE = 1_000
SWEEP_LIMIT = 100  # a sweep under load takes this many more than the slots could use
LAST_WRITE_SECONDS = 5.0
UNKNOWN_SECONDS = 60.0  # twice as long as any claim may take, so that none that is under way is meant
DRAIN_POLL_SECONDS = 0.01
ANY = "*"

log = structlog.get_logger("pgreflex.jobs")


class JobWorker:
    """The service that runs jobs.

    queues: how many jobs of each queue run at once; the name `*` stands for every queue not named.
    drain_seconds: how long running jobs may take to end after `stop`; what does not goes back to its queue.
    dead_seconds: how long a worker may be silent until others take its jobs. rng: for the jitter of retries.
    """

    name = "jobs"

    def __init__(
        self,
        store: JobStore,
        registry: Registry,
        queues: Mapping[str, int],
        *,
        worker_name: str | None = None,
        drain_seconds: float = 15.0,
        poll_seconds: float = POLL_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
        rng: Random | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._wanted = dict(queues)
        self._name = worker_name or f"{socket.gethostname()}:{os.getpid()}"
        self._drain_seconds = drain_seconds
        self._poll = poll_seconds
        self._dead_seconds = dead_seconds
        self._rng = rng or Random()  # noqa: S311 - jitter, not a secret
        self._stop_asked = asyncio.Event()
        self._queues: dict[str, HeldQueue] = {}
        self._totals: Counter[str] = Counter()
        self._waits: deque[float] = deque(maxlen=1_000)
        self._runs: deque[float] = deque(maxlen=1_000)
        self._counted: tuple[QueueStatus, ...] = ()
        self._per_second: float | None = None
        self._problem = ""
        self._worker = 0
        self._heartbeat: Heartbeat | None = None

    async def start(self) -> None:
        """Register with the server."""
        names = list(self._wanted)
        self._queues = {name: HeldQueue(name, n) for name, n in self._wanted.items() if name != ANY}
        self._running = 0
        self._turned = time.monotonic()
        self._worker = await self._store.register(self._name, names)
        with contextlib.suppress(PgreflexError):  # before the first job ends; housekeeping says what is wrong
            await self._store.maintain_archive()
        self._outcomes = Outcomes(self._store, self._worker, self._totals, self._rng)
        self._heartbeat = self._store.heartbeat(self._worker, self._name, names, lambda: self._turned)

    async def run(self) -> None:
        """Run jobs until `stop`; then let the running ones end, and give back the others."""
        if self._heartbeat is None:
            raise RuntimeError("start the worker before it runs")
        self._heartbeat.start()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._feeders: list[asyncio.Task[None]] = []
                self._loops = [
                    group.create_task(loop)
                    for loop in (self._turn(), self._outcomes.write_forever(), self._keep_house())
                ]
                for queue in self._queues.values():
                    self._open(queue)
                await self._stop_asked.wait()
                await self._drain()
                for task in self._loops:
                    task.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from group  # what a person should read
        finally:
            await self._leave()

    async def stop(self) -> None:
        """Claim nothing more; `run` returns when what is running has ended."""
        self._stop_asked.set()
        for queue in self._queues.values():
            queue.changed.set()

    def poll_every(self, seconds: float) -> None:
        """Look for jobs this often, whatever is heard of them."""
        self._poll = seconds

    def wake(self, queue: str) -> None:
        """There may be jobs in this queue."""
        known = self._queues.get(queue)
        if known is not None:
            known.wake()

    def healthy(self) -> Health:
        beat = self._heartbeat
        if beat is None or beat.last is None:
            return Health(True, "starting") if beat else Health(False, "not started")
        still = time.monotonic() - beat.last
        if still > self._dead_seconds:
            return Health(False, f"no heartbeat for {still:.0f} s; its jobs are run by others")
        return Health(not self._problem, self._problem or f"worker {self._worker}")

    def status(self) -> JobsStatus:
        """From memory; the counts of the queues are a few seconds old, more where counting takes long."""
        return JobsStatus(
            queues=self._counted,
            finished_total=self._totals["finished"],
            failed_total=self._totals["failed"],
            retried_total=self._totals["retried"],
            rescued_total=self._totals["rescued"],
            per_second=self._per_second,
            wait=_quantiles(self._waits, 1000),
            run=_quantiles(self._runs, 1),
        )

    def _open(self, queue: HeldQueue) -> None:
        self._feeders.append(self._group.create_task(self._feed(queue)))
        self._loops += [self._group.create_task(self._slot(queue)) for _ in range(queue.concurrency)]

    async def _feed(self, queue: HeldQueue) -> None:
        failures = 0
        while not self._stop_asked.is_set():
            try:
                pause = await self._feed_once(queue)
                failures, self._problem = 0, ""
            except PgreflexError as error:
                failures += 1
                self._problem = error.message
                pause = backoff(failures, self._rng)
                log.warning("jobs cannot be claimed", queue=queue.name, error=error.message)
            if pause:
                await queue.wait(pause)

    async def _feed_once(self, queue: HeldQueue) -> float:
        """Claim what there is room for; returns how long to wait before the next look, 0 for not at all."""
        room = queue.room()
        if not room:
            return self._poll
        claim = await self._store.claim(
            queue.name,
            room,
            self._worker,
            free=queue.concurrency - min(queue.held, queue.concurrency),
            after=queue.after,
        )
        jobs, queue.after = claim.jobs, claim.after
        self._take(queue, jobs)
        if not jobs and await self._store.adopt():
            return 0
        now = time.monotonic()
        longest = min(self._poll, claim.ask_in or self._poll)
        if now < queue.next_sweep:
            return 0 if jobs else min(longest, queue.next_sweep - now)
        sweep = await self._store.sweep(queue.name, max(room - len(jobs), SWEEP_LIMIT), self._worker)
        self._take(queue, sweep.jobs)
        queue.swept(time.monotonic(), sweep.seconds, found=bool(jobs or sweep.jobs))
        if jobs or sweep.jobs:
            return 0
        return min(longest, queue.pause) if sweep.unsettled else longest

    def _take(self, queue: HeldQueue, jobs: list[Job]) -> None:
        for job in jobs:
            self._outcomes.expect(job)
            self._waits.append(job.waited)
            queue.ready.put_nowait(job)
        queue.held += len(jobs)

    async def _slot(self, queue: HeldQueue) -> None:
        while True:
            job = await queue.ready.get()
            outcome = Outcome(job, "release")
            if self._stop_asked.is_set():
                self._ended(queue, outcome)
                continue
            self._running += 1
            try:
                ready = opened(job, self._store.sealer, self._rng)
                outcome = await run(ready, self._registry, self._rng) if isinstance(ready, Job) else ready
                self._runs.append(outcome.ms or 0.0)
            finally:  # cancelled: the job goes back
                self._running -= 1
                self._ended(queue, outcome)

    def _ended(self, queue: HeldQueue, outcome: Outcome) -> None:
        self._outcomes.add(outcome)
        queue.held -= 1
        queue.ended += 1
        if not queue.changed.is_set() and queue.room():
            queue.changed.set()

    async def _turn(self) -> None:
        """Show the heartbeat that this loop turns, and measure the pace."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TURN_SECONDS)
            self._turned = now = time.monotonic()
            total = 0.0
            for queue in self._queues.values():
                queue.per_second = (queue.per_second + queue.ended / (now - last)) / 2
                queue.ended = 0
                total += queue.per_second
            self._per_second, last = total, now

    async def _keep_house(self) -> None:
        """Promote, rescue, count, keep the archive; each in its own time."""
        due = {"rescue": 0.0, "count": 0.0, "archive": 0.0}
        while not self._stop_asked.is_set():
            pause = self._poll
            try:
                await self._discover()
                pause = await self._promote()
                now = time.monotonic()
                if now >= due["rescue"]:
                    due["rescue"] = now + RESCUE_SECONDS
                    await self._rescue()
                if now >= due["count"]:
                    self._counted = await self._store.status()
                    due["count"] = now + max(STATUS_SECONDS, 20 * (time.monotonic() - now))
                if now >= due["archive"]:
                    due["archive"] = now + ARCHIVE_SECONDS
                    await self._store.maintain_archive()
            except PgreflexError as error:
                log.warning("housekeeping of the jobs failed", error=error.message)
            await asyncio.sleep(max(0.01, pause))

    async def _discover(self) -> None:
        if ANY in self._wanted:
            for name in await self._store.queues():
                if name not in self._queues:
                    self._queues[name] = queue = HeldQueue(name, self._wanted[ANY])
                    self._open(queue)

    async def _promote(self) -> float:
        promoted, next_in = await self._store.promote(list(self._queues), PROMOTE)
        if promoted:
            self._wake_all()
        if promoted >= PROMOTE:
            return 0
        return self._poll if next_in is None else min(self._poll, next_in)

    async def _rescue(self) -> None:
        lost = await self._store.give_back(self._worker, self._outcomes.leases(), UNKNOWN_SECONDS)
        if lost:
            log.warning("jobs whose claim got lost went back to their queue", jobs=lost)
        if not self._may_judge():
            return
        again, failed = await self._store.rescue(self._dead_seconds)
        if again or failed:
            log.warning("jobs of a lost worker were rescued", again=again, failed=failed)
            self._totals.update(rescued=again, failed=failed)
            self._wake_all()

    def _may_judge(self) -> bool:
        """Whether silence of others means that they are gone.

        After an outage of the server everybody looks dead, this worker too, until the next beats have arrived.
        """
        since = self._heartbeat.steady_since if self._heartbeat else None
        return since is not None and time.monotonic() - since > self._dead_seconds

    def _wake_all(self) -> None:
        for name in self._queues:
            self.wake(name)

    async def _drain(self) -> None:
        """Give back what has not begun; wait for what is running, and for the outcomes to be written."""
        try:
            async with asyncio.timeout(self._drain_seconds):
                if self._feeders:
                    await asyncio.wait(self._feeders)  # the answer to a claim may still be on its way
                self._give_back_ready()
                while self._running or self._outcomes:  # noqa: ASYNC110 - once in a life
                    await asyncio.sleep(DRAIN_POLL_SECONDS)
        except TimeoutError:
            log.warning("jobs still run at the end; they go back to their queue", jobs=self._running)
            for task in self._feeders:
                task.cancel()

    def _give_back_ready(self) -> None:
        for queue in self._queues.values():
            while not queue.ready.empty():
                self._ended(queue, Outcome(queue.ready.get_nowait(), "release"))

    async def _leave(self) -> None:
        """Write what is left, give back all else, also after a failure or a cancel, and sign off."""
        try:
            async with asyncio.timeout(LAST_WRITE_SECONDS):
                while self._outcomes:
                    await self._outcomes.write_some()
                await self._store.give_back(self._worker, [], 0)
                if self._heartbeat is not None:
                    await self._heartbeat.stop()
                await self._store.retire(self._worker)
        except (PgreflexError, TimeoutError) as error:
            log.warning("jobs could not be given back; others will rescue them", error=str(error))


def _quantiles(samples: deque[float], factor: float) -> Quantiles:
    """Of the last thousand samples, in milliseconds."""
    if not samples:
        return Quantiles()
    ordered = sorted(samples)

    def at(q: float) -> float:
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * factor

    return Quantiles(at(0.5), at(0.95), at(0.99), len(ordered))
