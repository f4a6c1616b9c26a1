"""Runs the jobs of one queue, so many at a time.

Owns: from a job that was claimed to its outcome: cancelling, jobs that were once lost, jobs that are run together.
Knows no SQL and not how jobs are claimed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from handlers.batches import run_batch
from handlers.endings import failed
from handlers.held import HeldQueue
from handlers.opening import opened
from handlers.running import run
from handlers.shift import Shift
from pipeline.core.job import Job, Outcome
from pipeline.errors import PgreflexError
from pipeline.registry import Task

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Slots:
    """The loops that run a queue's jobs; `resize` starts and ends them. spawn: starts a loop."""

    def __init__(self, shift: Shift, queue: HeldQueue, spawn: Spawn) -> None:
        self._shift = shift
        self._queue = queue
        self._spawn = spawn
        self._gathering: dict[str, list[Job]] = {}
        self._company = asyncio.Event()

    def resize(self, concurrency: int) -> None:
        """From now on run so many at a time; those that run go on."""
        queue = self._queue
        queue.concurrency = concurrency
        while queue.slots < concurrency:
            queue.slots += 1
            self._spawn(self._slot())
        for _ in range(queue.slots - concurrency):
            queue.ready.put_nowait(None)
        queue.changed.set()

    async def _slot(self) -> None:
        me = _this_task()
        while True:
            try:
                return await self._serve(me)
            except asyncio.CancelledError:
                if self._shift.leaving():
                    raise
                # by what a job has left behind, a timer say; its slot is not to be missing from now on
                await _go_on(me)

    async def _serve(self, me: asyncio.Task[None]) -> None:
        shift, queue = self._shift, self._queue
        while True:
            job = await queue.ready.get()
            if job is None:
                if queue.slots > queue.concurrency:
                    queue.slots -= 1
                    return
                continue
            if shift.stopping.is_set():
                shift.ended(queue, Outcome(job, "release"))
                continue
            task = shift.registry.tasks.get(job.task)
            if task is not None and task.batch and not job.lost:
                jobs = await self._gather(job, task)
                if jobs:
                    await self._run_together(jobs, task, me)
            else:
                await self._run(job, me)
            if shift.stopping.is_set():
                return  # a task that swallows its cancellation must not hold up the end

    async def _run(self, job: Job, me: asyncio.Task[None]) -> None:
        shift, queue = self._shift, self._queue
        outcome, ending, thrown = None, False, None
        if shift.places.shared:
            await self._take_place(job)
        shift.begins(job, me)
        try:
            if shift.stopping.is_set():
                outcome = Outcome(job, "release")  # it has waited for its place until then
            elif shift.was_cancelled(job):
                outcome = Outcome(job, "ended")
            elif job.lost:
                outcome = await self._run_alone(job, me)
            else:
                outcome = await self._run_opened(job, me)
                shift.runs.append(outcome.ms or 0.0)
        except asyncio.CancelledError as error:
            ending, thrown = True, error
        finally:  # cancelled: the job goes back
            if shift.ends(job):
                # the slot goes on, also when that was swallowed
                ending = me.cancelling() > 0 and me.uncancel() > 0
                outcome = outcome or Outcome(job, "ended")
            elif thrown is not None and not shift.leaving():  # by the task itself
                outcome = failed(job, shift.registry.tasks[job.task], thrown, time.monotonic(), shift.rng)
            if shift.places.shared:
                shift.places.leave()
            shift.ended(queue, self._settled(outcome or Outcome(job, "release")))
        if me.cancelling() and not shift.leaving():
            await _go_on(me)
        elif ending:
            raise asyncio.CancelledError

    async def _take_place(self, *jobs: Job) -> None:
        try:
            await self._shift.places.take(self._queue.name, self._queue.weight)
        except asyncio.CancelledError:
            for job in jobs:
                self._shift.ended(self._queue, Outcome(job, "release"))
            raise

    def _settled(self, outcome: Outcome) -> Outcome:
        """The outcome, its time counted; unless the job's own transaction has already finished it."""
        self._shift.timings.ran(outcome)
        if not self._shift.host.forget(outcome.job):
            return outcome
        self._shift.totals["finished"] += 1
        return Outcome(outcome.job, "ended")

    async def _run_alone(self, job: Job, me: asyncio.Task[None]) -> Outcome:
        """One at a time, and with a note first: should this worker vanish, it is known which job ran."""
        shift = self._shift
        async with shift.alone:
            try:
                if not await shift.store.begin(job, shift.worker):
                    return Outcome(job, "ended")
            except PgreflexError:
                return Outcome(job, "release")
            return await self._run_opened(job, me)

    async def _run_opened(self, job: Job, me: asyncio.Task[None]) -> Outcome:
        shift = self._shift
        held_for = 0.0 if job.expires_in is None else shift.held_for(job, time.monotonic())
        ready = opened(job, shift.store.sealer, shift.rng)
        if isinstance(ready, Outcome):
            return ready
        return await run(
            ready, shift.registry, shift.rng,
            held_for=held_for, processes=shift.processes, deadlines=shift.deadlines, me=me,
        )  # fmt: skip

    async def _gather(self, job: Job, task: Task) -> list[Job]:
        """The jobs to run together with this one; none when another slot gathers and takes it along."""
        together = self._gathering.get(task.name)
        self._queue.batch = max(self._queue.batch, task.batch or 1)
        if together is not None:
            together.append(job)
            if len(together) >= (task.batch or 1):
                del self._gathering[task.name]
                self._company.set()
            return []
        self._gathering[task.name] = together = [job]
        try:
            async with asyncio.timeout(task.batch_wait):
                while self._gathering.get(task.name) is together and len(together) < (task.batch or 1):
                    self._company.clear()
                    await self._company.wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            for one in together:
                self._shift.ended(self._queue, Outcome(one, "release"))
            raise
        finally:
            if self._gathering.get(task.name) is together:
                del self._gathering[task.name]
        return together

    async def _run_together(self, jobs: list[Job], task: Task, me: asyncio.Task[None]) -> None:
        shift, queue = self._shift, self._queue
        outcomes = [Outcome(job, "release") for job in jobs]
        if shift.places.shared:
            await self._take_place(*jobs)
        for job in jobs:
            shift.begins(job, None)  # one that is cancelled must not end the others
        try:
            ready = [opened(job, shift.store.sealer, shift.rng) for job in jobs if not shift.was_cancelled(job)]
            live = [job for job in ready if isinstance(job, Job)]
            now = time.monotonic()
            held_for = [shift.held_for(job, now) for job in live]
            ran = await run_batch(live, task, shift.registry, shift.rng, held_for=held_for)
            ran += [outcome for outcome in ready if isinstance(outcome, Outcome)]
            done = {outcome.job.id: outcome for outcome in ran}
            outcomes = [done.get(job.id) or Outcome(job, "ended") for job in jobs]
        except asyncio.CancelledError as error:
            if shift.leaving():
                raise
            outcomes = [failed(job, task, error, time.monotonic(), shift.rng) for job in jobs]
        finally:  # cancelled: the jobs go back
            if shift.places.shared:
                shift.places.leave()
            for outcome in outcomes:
                shift.ends(outcome.job)
                shift.ended(queue, self._settled(outcome))
        if me.cancelling() and not shift.leaving():
            await _go_on(me)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("slots run in tasks")
    return task


async def _go_on(me: asyncio.Task[None]) -> None:
    """Forget that a task has cancelled whoever runs it, as it can by asyncio.current_task().cancel()."""
    while me.uncancel() > 0:
        pass
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # where nothing was awaited since, it is yet to come
