"""A worker process of our own for the benchmark: `python -m bench.jobs_worker DSN SLOTS [service [QUEUE]]`.

Owns: how the public classes are put together. Plain, it is one JobWorker and nothing else. As `service` it is
the whole daemon, as users run it, and tells at its end how long claims took and when each job of `bench.note`
began.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from bench.jobs_child import orders, tell
from handlers.jobs import JobWorker
from pipeline import log
from pipeline.config import Config
from pipeline.config_sections import Http, Jobs
from pipeline.core.job import Job
from pipeline.db.jobs import JobStore, job_database
from pipeline.registry import Registry

REPORT_SECONDS = 0.05

began: list[tuple[int, float]] = []
claims: list[tuple[float, float]] = []


async def noop(job: Job, n: int = 0) -> None:
    """The smallest task."""


async def note(job: Job, n: int) -> None:
    """Notes when its first line ran, on a clock that all processes of the machine share."""
    began.append((n, time.monotonic()))


def tasks() -> Registry:
    """Both tasks with a timeout, as a careful user declares them."""
    registry = Registry()
    registry.add_task(noop, name="bench.noop", timeout=30)
    registry.add_task(note, name="bench.note", timeout=30)
    return registry


async def plain(dsn: str, slots: int) -> None:
    async with job_database(dsn) as database:
        registry = tasks()
        worker = JobWorker(JobStore(database, registry=registry), registry, {"default": slots}, drain_seconds=5)
        lines = await orders()
        tell(ready=True)
        if not await lines.readline():
            return
        await worker.start()
        run = asyncio.create_task(worker.run())
        over = asyncio.create_task(lines.read())
        await tell_progress(worker, over, run)
        await worker.stop()
        await run


async def service(dsn: str, slots: int, queue: str = "default") -> None:
    from pipeline.app.daemon import Daemon

    store_class: Any = JobStore
    store_class.claim = timed(JobStore.claim)
    daemon = Daemon(Config(dsn=dsn, http=Http(port=0), jobs=Jobs(queues={queue: slots})), registry=tasks())
    lines = await orders()
    run = asyncio.create_task(daemon.run())
    over = asyncio.create_task(lines.read())
    while not over.done() and not run.done() and not daemon.live().ready:
        await asyncio.sleep(0.02)
    tell(ready=daemon.live().ready)
    await tell_progress(daemon.jobs, over, run)
    tell(claims=claims, began=began)
    daemon.shutdown()
    await run


async def tell_progress(worker: JobWorker, *ends: asyncio.Future[Any]) -> None:
    """Say how many jobs have durably finished, whenever that changes, until one of the futures is done."""
    told = 0
    while not any(end.done() for end in ends):
        await asyncio.wait(ends, timeout=REPORT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        done = worker.status().finished_total
        if done != told:
            tell(done=done)
            told = done


def timed(claim: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same claim, noting when each that brought jobs was made, and how many seconds it took."""

    async def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        claimed = await claim(*args, **kwargs)
        if claimed.jobs:
            claims.append((start, time.monotonic() - start))
        return claimed

    return measured


def main() -> None:
    log.setup("error")
    dsn, slots, *form = sys.argv[1:]
    uvloop.run(service(dsn, int(slots), *form[1:]) if form else plain(dsn, int(slots)))


if __name__ == "__main__":
    main()
