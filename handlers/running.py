"""Runs one job: calls its task, limits its time, and puts into words how it ended.

Owns: the step from a job to its outcome. Knows neither the queue nor other jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
import traceback
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import structlog

from pipeline.core.job import Job, Outcome
from pipeline.core.retry import Backoff
from pipeline.errors import TaskError
from pipeline.registry import Registry, Task

ERROR_CHARACTERS = 4_000
TRACEBACK_FRAMES = 12

log = structlog.get_logger("pgreflex.jobs")


async def run(job: Job, registry: Registry, rng: Random) -> Outcome:
    """Run a job to its end. Raises only when the caller itself is cancelled."""
    began = time.monotonic()
    task = registry.get(job.task)
    try:
        if task is None:
            return _failed(job, None, _unknown(job), began, rng)
        limit = task.timeout if job.timeout is None else job.timeout
        result = await (_call(task, job) if limit is None else _call_within(task, job, limit))
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        return _failed(job, task, error, began, rng)  # the task cancelled itself
    except (Exception, SystemExit) as error:  # whatever a task raises is its own failure, never the worker's
        return _failed(job, task, error, began, rng)
    return Outcome(job, "finish", _encoded(job, result), began=began, ms=(time.monotonic() - began) * 1000)


def _unknown(job: Job) -> TaskError:
    return TaskError(
        f"no task is named {job.task} in this process",
        hint="Name its module with --import, or in `imports`.",
    )


async def _call(task: Task, job: Job) -> Any:
    if task.is_async:
        return await task.function(job, **job.args)
    return await in_thread(lambda: task.function(job, **job.args))


async def _call_within(task: Task, job: Job, limit: float) -> Any:
    try:
        async with asyncio.timeout(limit) as scope:
            return await _call(task, job)
    except TimeoutError:
        if scope.expired():
            raise TaskError(f"task {job.task} took longer than its timeout of {limit:g} s", hint="") from None
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


def _failed(job: Job, task: Task | None, error: BaseException, began: float, rng: Random) -> Outcome:
    text, ms = error_text(error), (time.monotonic() - began) * 1000
    if job.last_attempt:
        log.error(
            "a job has failed", job=job.id, task=job.task, attempt=job.attempt, error=text.partition("\n")[0]
        )
        return Outcome(job, "fail", error=text, began=began, ms=ms)
    delay = (task.backoff if task else Backoff()).delay(job.attempt, rng)
    log.info(
        "a job will be retried",
        job=job.id, task=job.task, attempt=job.attempt, seconds=round(delay, 1), error=text.partition("\n")[0],
    )  # fmt: skip
    return Outcome(job, "retry", error=text, delay=delay, began=began, ms=ms)


def _encoded(job: Job, result: Any) -> str | None:
    """The result as JSON that Postgres takes. The work is done: one that cannot be kept is no failure."""
    if result is None:
        return None
    try:
        text = msgspec.json.encode(result).decode()
    except (TypeError, ValueError, UnicodeError, RecursionError) as error:
        log.warning("the result of a job cannot be kept", job=job.id, task=job.task, error=str(error))
        return None
    if "\\u0000" in text:
        log.warning("the result of a job cannot be kept", job=job.id, task=job.task, error="it holds a zero byte")
        return None
    return text


def error_text(error: BaseException) -> str:
    """Type and message, and below them the user's end of the traceback, at most ERROR_CHARACTERS."""
    if isinstance(error, TaskError):
        return clean(" ".join(filter(None, (f"{type(error).__name__}: {error.message}.", error.hint))))
    where = error.__traceback__
    while where is not None and where.tb_next is not None and where.tb_frame.f_code.co_filename == __file__:
        where = where.tb_next
    frames = "".join(traceback.format_list(traceback.extract_tb(where)[-TRACEBACK_FRAMES:]))
    head = f"{type(error).__name__}: {error}"[: ERROR_CHARACTERS // 2]
    return clean(f"{head}\n\n{frames[-ERROR_CHARACTERS // 2 :]}".rstrip())


def clean(text: str) -> str:
    """Text that Postgres takes: no zero bytes, no half of a surrogate pair."""
    return text.replace("\x00", "\\x00").encode("utf-8", "replace").decode()[:ERROR_CHARACTERS]
