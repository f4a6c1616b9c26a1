"""Runs one job: calls its task and limits its time.

Owns: the ways of calling a task, in the loop, in a thread, in a process, with middleware around. Knows neither
the queue nor other jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

from handlers.deadlines import SHORTEST_SECONDS, Deadlines
from handlers.endings import clean, error_text, failed, finished, spread, too_long, unknown
from handlers.middleware import around, wrap
from handlers.processes import Processes
from pipeline.core.job import Job, Outcome
from pipeline.registry import Registry, Task

__all__ = ["clean", "error_text", "in_thread", "run"]

AROUND_SECONDS = 5.0


async def run(
    job: Job,
    registry: Registry,
    rng: Random,
    *,
    held_for: float = 0.0,
    processes: Processes | None = None,
    deadlines: Deadlines | None = None,
    me: asyncio.Task[None] | None = None,
) -> Outcome:
    """Run a job to its end; one of a task with `batch` as a batch of one. Raises only when the caller itself is
    cancelled.

    held_for: seconds since the job was claimed. processes: where tasks with `process` run; without any, such a
    task gets a process that ends with it. deadlines, me: who watches over long limits, and the task that runs
    this; without them each limit has a timer.
    """
    if job.expires_in is not None and (late := expired(job, held_for)):
        return late
    began = time.monotonic()
    task = registry.tasks.get(job.task)
    if task is None:
        return unknown(job, rng)
    over = False
    try:
        limit = task.timeout if job.timeout is None else job.timeout
        if registry.middlewares or task.process or task.batch is not None:
            result = await _call_around(registry, task, job, limit, processes)
        elif deadlines is None or me is None or limit is None or limit < SHORTEST_SECONDS:
            result = await call(task, job, limit)
        else:
            deadline = deadlines.enter(limit, me)
            try:
                result = await call(task, job, None)
            finally:
                over = deadlines.leave(deadline)
    except asyncio.CancelledError as error:
        if over:
            return failed(job, task, too_long(job, limit or 0.0), began, rng)
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        return failed(job, task, error, began, rng)  # the task cancelled itself
    except (Exception, SystemExit) as error:  # whatever a task raises is its own failure, never the worker's
        return failed(job, task, error, began, rng)
    return finished(job, task, result, began, rng)


def expired(job: Job, held_for: float) -> Outcome | None:
    """The outcome of a job that should have begun before now; None for one that may begin."""
    if job.expires_in is None or held_for < job.expires_in:
        return None
    return Outcome(job, "expire", error="it did not begin in time")


async def call(task: Task, job: Job, limit: float | None) -> Any:
    """Call the task here, in the loop or in a thread. Raises what it raises, TaskError after `limit` seconds."""
    args = task.bind(job.args)
    if limit is None:
        if task.is_async:
            return await task.function(job, **args)
        return await in_thread(lambda: task.function(job, **args))
    try:
        async with asyncio.timeout(limit) as scope:
            if task.is_async:
                return await task.function(job, **args)
            return await in_thread(lambda: task.function(job, **args))
    except TimeoutError:
        if scope.expired():
            raise too_long(job, limit) from None
        raise


async def call_many(task: Task, jobs: list[Job], limit: float | None) -> list[Any]:
    """Call a task with `batch`; for each job its result, error or directive. Raises as `call`."""
    try:
        async with asyncio.timeout(limit) as scope:
            if task.is_async:
                return spread(await task.function(jobs), jobs)
            return spread(await in_thread(lambda: task.function(jobs)), jobs)
    except TimeoutError:
        if scope.expired() and limit is not None:
            raise too_long(jobs[0], limit) from None
        raise


async def _call_around(
    registry: Registry, task: Task, job: Job, limit: float | None, processes: Processes | None
) -> Any:
    """With the middleware around it, which sees the task's timeout as an error and has some seconds more."""

    async def innermost(job: Job) -> Any:
        if task.batch is not None:
            [value] = await call_many(task, [job], limit)
            if isinstance(value, BaseException):
                raise value
            return value
        if not task.process:
            return await call(task, job, limit)
        if processes is not None:
            return await processes.run(job, task, limit)
        async with Processes() as own:
            return await own.run(job, task, limit)

    layers = around(registry, job, task)
    if not layers or limit is None:
        return await wrap(layers, innermost)(job)
    try:
        async with asyncio.timeout(limit + AROUND_SECONDS) as scope:
            return await wrap(layers, innermost)(job)
    except TimeoutError:
        if scope.expired():
            raise too_long(job, limit) from None
        raise


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run a plain function in a thread of its own and wait for it.

    Not an executor's thread: one that a timeout has left behind would hold its place there, and the
    interpreter would wait for it at exit. Starting one costs about 50 us.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return  # nobody waits any more
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(call)
        except StopIteration as stop:
            error = RuntimeError(f"the task raised {stop!r}")  # a future cannot carry it
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="pgreflex-task", daemon=True).start()
    return await future
