"""The worker: claims jobs and has them run.

Owns: the life of its parts, what it says of itself, and what happens at the end. Knows no SQL and not what
tasks do.

Each queue has a feeder, which claims ahead of need, and slots, which run so many jobs at once. Beside them
one loop writes outcomes and one does the chores.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Coroutine, Mapping, Sequence
from random import Random
from typing import Any

import structlog

from handlers.chores import ANY, Chores
from handlers.declare import declarations, rules
from handlers.feeder import Feeder
from handlers.held import HeldQueue
from handlers.host import WorkerHost
from handlers.job_timings import JobTimings
from handlers.outcomes import Outcomes
from handlers.places import Places
from handlers.processes import Processes
from handlers.shift import Shift
from handlers.slots import Slots
from pipeline.core.job import Outcome
from pipeline.core.status import JobsStatus, Quantiles
from pipeline.core.window import Windows
from pipeline.db.heartbeat import BEAT_SECONDS, Heartbeat
from pipeline.db.job_admin import JobAdmin
from pipeline.db.job_notes import JobNotes, TaskPool
from pipeline.db.jobs import DEAD_SECONDS, JobStore
from pipeline.db.sleeping import Sleeping
from pipeline.errors import PgreflexError
from pipeline.registry import Registry
from pipeline.runtime import Health

POLL_SECONDS = 1.0
TURN_SECONDS = 0.25
LAST_WRITE_SECONDS = 5.0
DRAIN_POLL_SECONDS = 0.01

log = structlog.get_logger("pgreflex.jobs")


class JobWorker:
    """The service that runs jobs.

    queues: how many jobs of each queue run at once; the name `*` stands for every queue not named. total: how
    many run at once over all queues, which then share the places by their weights; None is no such limit.
    drain_seconds: how long running jobs may take to end after `stop`; what does not goes back to its queue.
    dead_seconds: how long a worker may be silent until others take its jobs. modules: what processes of tasks
    import. rng: for the jitter of retries. timings: where it is counted how long jobs waited and ran.
    """

    name = "jobs"

    def __init__(
        self,
        store: JobStore,
        registry: Registry,
        queues: Mapping[str, int],
        *,
        total: int | None = None,
        worker_name: str | None = None,
        drain_seconds: float = 15.0,
        poll_seconds: float = POLL_SECONDS,
        dead_seconds: float = DEAD_SECONDS,
        modules: Sequence[str] = (),
        rng: Random | None = None,
        timings: Windows | None = None,
    ) -> None:
        self._store = store
        self._admin = JobAdmin(store.database)
        self._pool = TaskPool(store.database.dsn)
        self._sleeping = Sleeping(store.database.dsn)
        self._registry = registry
        self._wanted = dict(queues)
        self._places = Places(total)
        self._processes = Processes(modules=modules)
        self._name = worker_name or f"{socket.gethostname()}:{os.getpid()}"
        self._drain_seconds = drain_seconds
        self._poll = poll_seconds
        self._dead_seconds = dead_seconds
        self._rng = rng or Random()  # noqa: S311 - jitter, not a secret
        self._timings = JobTimings(timings)
        self._totals: Counter[str] = Counter()
        self._per_second: float | None = None
        self._feeders: dict[str, Feeder] = {}
        self._feeding: list[asyncio.Task[None]] = []
        self._slots: dict[str, Slots] = {}
        self._shift: Shift | None = None
        self._heartbeat: Heartbeat | None = None

    async def start(self) -> None:
        """Register with the server."""
        names = list(self._wanted)
        self._feeders, self._feeding, self._slots = {}, [], {}  # nothing is left of a life before
        self._turned = time.monotonic()
        worker = await self._store.register(self._name, names)
        await self._pool.open()
        with contextlib.suppress(PgreflexError):  # before the first job ends; housekeeping says what is wrong
            await self._store.maintain_archive()
        tasks = list(self._registry.tasks.values())
        await self._admin.declare(declarations(tasks), rules(tasks))
        host = WorkerHost(JobNotes(self._store.database, self._pool), worker, asyncio.get_running_loop())
        self._store.host(host)
        outcomes = Outcomes(self._store, worker, self._totals, self._rng, before=host.write_log)
        self._shift = Shift(
            self._store,
            self._registry,
            worker,
            outcomes,
            host,
            totals=self._totals,
            places=self._places,
            processes=self._processes,
            rng=self._rng,
            timings=self._timings,
        )
        self._chores = Chores(
            self._shift,
            self._admin,
            self._wanted,
            resize=self._resize,
            may_judge=self._may_judge,
            poll=self._poll,
            dead_seconds=self._dead_seconds,
        )
        since = time.monotonic() - await self._store.server_up()
        self._heartbeat = self._store.heartbeat(
            worker, self._name, names, lambda: self._turned, min(BEAT_SECONDS, self._dead_seconds / 5), since
        )

    async def run(self) -> None:
        """Run jobs until `stop`; then let the running ones end, and give back the others."""
        shift = self._shift
        if shift is None or self._heartbeat is None:
            raise RuntimeError("start the worker before it runs")
        self._heartbeat.start()
        shift.owner = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._loops: list[asyncio.Task[None]] = []
                for loop in (
                    self._turn(shift),
                    shift.deadlines.watch(),
                    shift.outcomes.write_forever(),
                    self._chores.run(),
                ):
                    self._spawn(loop)
                for name, concurrency in self._wanted.items():
                    if name != ANY:
                        self._resize(name, concurrency)
                try:
                    await shift.stopping.wait()
                finally:
                    shift.stopping.set()  # also where a loop has failed: nothing begins any more
                await self._drain(shift)
                for task in self._loops:
                    task.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from group  # what a person should read
        finally:
            await self._leave(shift)

    async def stop(self) -> None:
        """Claim nothing more; `run` returns when what is running has ended."""
        if self._shift is not None:
            self._shift.stopping.set()
            self._shift.wake_all()

    def poll_every(self, seconds: float) -> None:
        """Look for jobs this often, whatever is heard of them."""
        self._poll = seconds
        for feeder in self._feeders.values():
            feeder.poll = seconds

    def wake(self, queue: str) -> None:
        """There may be jobs in this queue."""
        if self._shift is not None and queue in self._shift.queues:
            self._shift.queues[queue].wake()

    def cancel(self, ids: Sequence[int]) -> None:
        """Somebody has cancelled these jobs."""
        if self._shift is not None:
            self._shift.cancel(ids)

    def healthy(self) -> Health:
        beat = self._heartbeat
        if beat is None or beat.last is None:
            return Health(True, "starting") if beat else Health(False, "not started")
        still = time.monotonic() - beat.last
        if still > self._dead_seconds:
            return Health(False, f"no heartbeat for {still:.0f} s; its jobs are run by others")
        problem = next((feeder.problem for feeder in self._feeders.values() if feeder.problem), "")
        return Health(not problem, problem or f"worker {self._shift.worker if self._shift else 0}")

    def status(self) -> JobsStatus:
        """From memory; the counts of the queues are a few seconds old, more where counting takes long."""
        shift = self._shift
        return JobsStatus(
            queues=self._chores.counted if shift else (),
            finished_total=self._totals["finished"],
            failed_total=self._totals["failed"],
            retried_total=self._totals["retried"],
            rescued_total=self._totals["rescued"],
            cancelled_total=self._totals["cancelled"],
            expired_total=self._totals["expired"],
            per_second=self._per_second,
            wait=_quantiles(shift.waits if shift else deque(), 1000),
            run=_quantiles(shift.runs if shift else deque(), 1),
        )

    def _spawn(self, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(loop)
        self._loops.append(task)
        return task

    def _resize(self, name: str, concurrency: int) -> None:
        """Run so many jobs of a queue at once, which is opened if it is new."""
        shift = self._shift
        if shift is None:
            return
        if name not in shift.queues:
            shift.queues[name] = queue = HeldQueue(name, concurrency)
            self._slots[name] = Slots(shift, queue, self._spawn)
            self._feeders[name] = feeder = Feeder(shift, queue, self._sleeping, self._poll)
            self._feeding.append(self._group.create_task(feeder.run()))
        self._slots[name].resize(concurrency)

    async def _turn(self, shift: Shift) -> None:
        """Show the heartbeat that this loop turns, and measure the pace."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TURN_SECONDS)
            self._turned = now = time.monotonic()
            total = 0.0
            for queue in shift.queues.values():
                queue.per_second = (queue.per_second + queue.ended / (now - last)) / 2
                queue.ended = 0
                total += queue.per_second
            self._per_second, last = total, now

    def _may_judge(self) -> bool:
        """Whether silence of others means that they are gone.

        After an outage of the server everybody looks dead, this worker too, until the next beats have arrived; to
        a worker that was not there before, until the server has been up for as long as a silence may last.
        """
        since = self._heartbeat.steady_since if self._heartbeat else None
        return since is not None and time.monotonic() - since > self._dead_seconds

    async def _drain(self, shift: Shift) -> None:
        """Give back what has not begun; wait for what is running, and for the outcomes to be written."""
        try:
            async with asyncio.timeout(self._drain_seconds):
                if self._feeding:
                    await asyncio.wait(self._feeding)  # the answer to a claim may still be on its way
                _give_back_ready(shift)
                while shift.running or shift.outcomes:  # noqa: ASYNC110 - once in a life
                    await asyncio.sleep(DRAIN_POLL_SECONDS)
        except TimeoutError:
            log.warning("jobs still run at the end; they go back to their queue", jobs=len(shift.running))
            for task in self._feeding:
                task.cancel()

    async def _leave(self, shift: Shift) -> None:
        """Write what is left, give back all else, also after a failure or a cancel, and sign off."""
        try:
            async with asyncio.timeout(LAST_WRITE_SECONDS):
                while shift.outcomes:
                    await shift.outcomes.write_some()
                await self._store.give_back(shift.worker, [], 0)
                if self._heartbeat is not None:
                    await self._heartbeat.stop()
                await self._store.retire(shift.worker)
        except (PgreflexError, TimeoutError) as error:
            log.warning("jobs could not be given back; others will rescue them", error=str(error))
        finally:
            await self._sleeping.close()
            await self._processes.close()
            await self._pool.close()


def _give_back_ready(shift: Shift) -> None:
    for queue in shift.queues.values():
        while not queue.ready.empty():
            job = queue.ready.get_nowait()
            if job is not None:
                shift.ended(queue, Outcome(job, "release"))


def _quantiles(samples: deque[float], factor: float) -> Quantiles:
    """Of the last thousand samples, in milliseconds."""
    if not samples:
        return Quantiles()
    ordered = sorted(samples)

    def at(q: float) -> float:
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * factor

    return Quantiles(at(0.5), at(0.95), at(0.99), len(ordered))
