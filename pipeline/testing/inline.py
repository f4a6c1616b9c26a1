"""Runs a task as a function call.

Owns: the job that the call gets, and the host that the job talks to. Knows no queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import msgspec

from handlers.endings import spread
from handlers.middleware import around, wrap
from handlers.running import call, in_thread
from pipeline.core.args import to_json
from pipeline.core.job import Job, Level
from pipeline.core.workflow import Results
from pipeline.errors import TaskError, UsageError
from pipeline.registry import Registry, Task, default

T = TypeVar("T")

_args = msgspec.json.Decoder(dict[str, Any]).decode


class InlineHost:
    """What a job of `run_inline` can talk to; holds what the task has said.

    conn: an asyncpg connection for job.transaction(). saved: what an earlier attempt is to have saved. results:
    those of the jobs that this one has waited for. progressed: each (done, total, note). lines: each
    (level, message) of the job's log.
    """

    def __init__(self, *, conn: Any = None, saved: Any = None, results: Mapping[str, Any] | None = None) -> None:
        self.conn = conn
        self.value = saved
        self.given = results if isinstance(results, Results) else Results(results or {})
        self.progressed: list[tuple[float, float | None, str]] = []
        self.lines: list[tuple[Level, str]] = []
        self._loop = asyncio.get_running_loop()

    def transaction(self, job: Job) -> AbstractAsyncContextManager[Any]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        if self.conn is None:
            raise UsageError(
                "job.transaction() needs a database, and run_inline has none",
                hint="Give it a connection of asyncpg: run_inline(task, ..., conn=conn).",
            )
        async with self.conn.transaction():
            yield self.conn

    async def progress(self, job: Job, done: float, total: float | None, note: str) -> None:
        self.progressed.append((done, total, note))

    async def save(self, job: Job, value: Any) -> None:
        self.value = msgspec.json.decode(msgspec.json.encode(value))

    async def saved(self, job: Job) -> Any:
        return self.value

    async def results(self, job: Job) -> Results:
        return self.given

    def log(self, job: Job, message: str, level: Level) -> None:
        self.lines.append((level, message))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def run_inline(
    task: str | Task | Callable[..., Any],
    args: Mapping[str, Any] | None = None,
    *,
    conn: Any = None,
    host: InlineHost | None = None,
    attempt: int = 1,
    registry: Registry = default,
    **more: Any,
) -> Any:
    """Run a task in this process, without a queue; returns what it returns, raises what it raises.

    The arguments are given as `args` or by name. They are checked, and take the way through JSON, as a job's
    are. conn: for job.transaction(). host: to see what the task has saved, logged and told. attempt: the
    number of this run. Raises TaskError for arguments that do not fit.
    """
    known = registry.find(task)
    if known is None:
        raise TaskError(f"no task is named {task}", hint="Import its module, or give the function itself.")
    given = {**(args or {}), **more}
    job = Job(
        id=0, task=known.name, args=_through_json(known, given), queue=known.queue, priority=0,
        attempt=attempt, max_attempts=known.max_attempts, timeout=None, created_at=0, run_at=0, lease=0, waited=0,
        host=host or InlineHost(conn=conn),
    )  # fmt: skip

    async def innermost(job: Job) -> Any:
        if known.batch is None:
            return await call(known, job, None)
        alone = [job]
        result = known.function(alone) if known.is_async else in_thread(lambda: known.function(alone))
        [value] = spread(await result, alone)
        if isinstance(value, BaseException):
            raise value
        return value

    return await wrap(around(registry, job, known), innermost)(job)


def _through_json(task: Task, args: Mapping[str, Any]) -> dict[str, Any]:
    task.check(args)
    try:
        return _args(to_json(dict(args)))
    except (TypeError, ValueError) as error:
        raise TaskError(f"the arguments for task {task.name} are not JSON: {error}", hint="") from None
