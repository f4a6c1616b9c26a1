"""Jobs with a host in memory, for tests of tasks that need no worker."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from pipeline.core.job import Job
from pipeline.core.workflow import Results


class MemoryHost:
    """What a worker would keep for one job. on_progress: called with each report; may raise."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.reports: list[tuple[float, float | None, str]] = []
        self.lines: list[tuple[str, str]] = []
        self.on_progress: Callable[[float], None] = lambda _done: None

    def transaction(self, job: Job) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError

    async def progress(self, job: Job, done: float, total: float | None, note: str) -> None:
        self.reports.append((done, total, note))
        self.on_progress(done)

    async def save(self, job: Job, value: Any) -> None:
        self.kept = msgspec.json.decode(msgspec.json.encode(value))

    async def saved(self, job: Job) -> Any:
        return self.kept

    async def results(self, job: Job) -> Results:
        return Results()

    def log(self, job: Job, message: str, level: str) -> None:
        self.lines.append((level, message))

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError


def job(host: MemoryHost, *, attempt: int = 1, max_attempts: int = 5, task: str = "t") -> Job:
    return Job(
        id=1, task=task, args={}, queue="default", priority=0, attempt=attempt, max_attempts=max_attempts,
        timeout=None, created_at=0.0, run_at=0.0, lease=1, waited=0.0, host=host,
    )  # fmt: skip
