"""Runs many jobs of one task in one call.

Owns: the meeting of the jobs after their middleware, and the outcome of each. Knows neither the queue nor when a
batch is full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from handlers.endings import failed, finished
from handlers.middleware import around, wrap
from handlers.running import AROUND_SECONDS, call_many, expired
from pipeline.core.job import Job, Outcome
from pipeline.errors import TaskError
from pipeline.registry import Registry, Task

CallAll = Callable[[list[Job]], Awaitable[list[Any]]]


async def run_batch(
    jobs: Sequence[Job], task: Task, registry: Registry, rng: Random, *, held_for: Sequence[float] = ()
) -> list[Outcome]:
    """Run jobs of a task with `batch` to their end; their outcomes in the same order.

    held_for: for each job the seconds since it was claimed. One timeout holds for all: the shortest that any of
    them has. Raises only when the caller itself is cancelled.
    """
    began = time.monotonic()
    late = [expired(job, held) for job, held in zip(jobs, held_for or [0.0] * len(jobs), strict=True)]
    live = [job for job, outcome in zip(jobs, late, strict=True) if outcome is None]
    values = iter(await _values(live, task, registry) if live else [])
    return [
        outcome or _outcome(job, task, next(values), began, rng) for job, outcome in zip(jobs, late, strict=True)
    ]


def _outcome(job: Job, task: Task, value: Any, began: float, rng: Random) -> Outcome:
    if isinstance(value, BaseException):
        return failed(job, task, value, began, rng)
    return finished(job, task, value, began, rng)


async def _values(jobs: list[Job], task: Task, registry: Registry) -> list[Any]:
    """What became of each job: its result, or its error."""
    limits = [limit for job in jobs if (limit := task.timeout if job.timeout is None else job.timeout) is not None]
    limit = min(limits, default=None)

    async def call_all(some: list[Job]) -> list[Any]:
        return await call_many(task, some, limit)

    try:
        if not any(around(registry, job, task) for job in jobs):
            return await call_all(jobs)
        async with asyncio.timeout(None if limit is None else limit + AROUND_SECONDS):
            return await _through_middleware(jobs, task, registry, call_all)
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        return [error] * len(jobs)
    except (Exception, SystemExit) as error:
        return [error] * len(jobs)


async def _through_middleware(jobs: list[Job], task: Task, registry: Registry, call_all: CallAll) -> list[Any]:
    gate = _Gate(len(jobs))

    async def one(job: Job) -> Any:
        here = _Pass(gate)
        try:
            return await wrap(around(registry, job, task), here.through)(job)
        except asyncio.CancelledError:
            raise
        except (Exception, SystemExit) as error:
            return error
        finally:
            here.leave()

    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(one(job)) for job in jobs]
        await gate.settled.wait()
        await gate.call(call_all)
    return [run.result() for run in runs]


class _Gate:
    """Where the jobs of a batch meet after their middleware: the call is made once no more can come."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.settled = asyncio.Event()
        self.waiting: list[tuple[Job, asyncio.Future[Any]]] = []

    async def call(self, call_all: CallAll) -> None:
        if not self.waiting:
            return  # their middleware has ended them all
        try:
            values = await call_all([job for job, _ in self.waiting])
        except (Exception, SystemExit) as error:
            values = [error] * len(self.waiting)
        for (_, future), value in zip(self.waiting, values, strict=True):
            if not future.done():
                future.set_result(value)


class _Pass:
    """One job's way through the gate, which it goes once, or not at all when its middleware ends it before."""

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate
        self._counted = False

    async def through(self, job: Job) -> Any:
        if self._counted:
            raise TaskError("call_next was called twice", hint="A job of a batch can be run only once.")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._gate.waiting.append((job, future))
        self.leave()
        value = await future
        if isinstance(value, BaseException):
            raise value
        return value

    def leave(self) -> None:
        if not self._counted:
            self._counted = True
            self._gate.expected -= 1
            if self._gate.expected == 0:
                self._gate.settled.set()
