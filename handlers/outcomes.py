"""Writes how jobs ended.

Owns: the outcomes that are not written yet, and the count of what each lease still holds. Knows neither how
jobs run nor how they are claimed.

The writer takes whatever is there, writes it as one batch and looks again. So a lone outcome is written at
once, and under load the batch grows by itself while the write before it is under way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

import structlog

from handlers.running import clean
from pipeline.core.job import Job, Outcome
from pipeline.db.jobs import JobStore
from pipeline.errors import DatabaseUnavailable, PgreflexError, QueryFailed

BATCH = 5_000  # more than one claim hands out: a lease that ends in one statement is not locked again
LONGEST_BACKOFF_SECONDS = 5.0

log = structlog.get_logger("pgreflex.jobs")


class Outcomes:
    """The outcomes of one worker.

    totals: what the server accepted, and `refused`. before: called before each write, for what must be
    written as long as the leases are there.
    """

    def __init__(
        self,
        store: JobStore,
        worker: int,
        totals: Counter[str],
        rng: Random,
        *,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._totals = totals
        self._rng = rng
        self._before = before
        self._waiting: list[Outcome] = []
        self._leases: dict[int, int] = {}  # lease to the number of its jobs whose outcome is not written
        self._added = asyncio.Event()

    def expect(self, job: Job) -> None:
        """This job was claimed; its outcome will come."""
        self._leases[job.lease] = self._leases.get(job.lease, 0) + 1

    def add(self, outcome: Outcome) -> None:
        """To be written soon."""
        self._waiting.append(outcome)
        self._added.set()

    def leases(self) -> list[int]:
        """The leases of which something is outstanding."""
        return list(self._leases)

    def __len__(self) -> int:
        return len(self._waiting)

    async def write_forever(self) -> None:
        """Write until cancelled; while the database is away outcomes are kept and tried again."""
        failures = 0
        while True:
            await self._added.wait()
            self._added.clear()
            await asyncio.sleep(0)  # let the other jobs that are about to end join the batch
            while self._waiting:
                try:
                    await self.write_some()
                    failures = 0
                except PgreflexError as error:
                    failures += 1
                    log.warning("outcomes of jobs cannot be written yet", error=error.message)
                    await asyncio.sleep(backoff(failures, self._rng))

    async def write_some(self) -> None:
        """Write the oldest outcomes; raises, and keeps them, when that may succeed later."""
        batch = self._waiting[:BATCH]
        try:
            await self._write(batch)
        except PgreflexError as error:  # one of them cannot be stored; the others must not suffer for it
            if _passes(error):
                raise
            log.warning("a batch of outcomes was refused; writing one at a time", error=error.message)
            for outcome in batch:
                await self._write_alone(outcome)
                del self._waiting[0]
            return
        del self._waiting[: len(batch)]

    async def _write_alone(self, outcome: Outcome) -> None:
        try:
            await self._write([outcome])
        except PgreflexError as error:
            if _passes(error):
                raise
            text = clean(f"the outcome could not be stored: {error.message}")
            try:
                await self._write([Outcome(outcome.job, "fail", error=text, began=outcome.began, ms=outcome.ms)])
            except PgreflexError as refused:  # it runs again later; the others must not wait behind it for ever
                if _passes(refused):
                    raise
                log.warning("the end of a job cannot be written", job=outcome.job.id, error=refused.message)
                self._leases[outcome.job.lease] -= 1
                if not self._leases[outcome.job.lease]:
                    del self._leases[outcome.job.lease]

    async def _write(self, batch: list[Outcome]) -> None:
        touched = Counter(outcome.job.lease for outcome in batch)
        freed = [lease for lease, n in touched.items() if self._leases.get(lease, n) == n]
        if self._before is not None:
            await self._before()
        written = await self._store.write(self._worker, batch, freed)
        for lease, n in touched.items():
            self._leases[lease] = self._leases.get(lease, n) - n
            if self._leases[lease] == 0:
                del self._leases[lease]
        for state in ("finished", "failed", "cancelled", "expired", "retried"):
            self._totals[state] += getattr(written, state)
        if written.refused:
            self._totals["refused"] += written.refused
            log.warning("jobs ended here after their lease was gone", jobs=written.refused)


def backoff(failures: int, rng: Random) -> float:
    """Seconds to wait after so many failures of the database in a row."""
    return min(LONGEST_BACKOFF_SECONDS, 0.1 * 2.0 ** min(failures, 10)) * rng.uniform(0.5, 1)


def _passes(error: PgreflexError) -> bool:
    """Whether it had nothing to do with what was to be written: no server, or a deadlock that took this side."""
    return isinstance(error, DatabaseUnavailable) or (
        isinstance(error, QueryFailed) and error.sqlstate.startswith("40")
    )
