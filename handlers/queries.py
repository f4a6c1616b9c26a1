"""Keeps what is known of queries up to date.

Owns: when stored fingerprints are made anew, and when queries that nobody has seen for long are forgotten. Must
not know SQL or how a fingerprint is made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pipeline.db.queries import Queries
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

TICK_SECONDS = 10.0
EVERY_SECONDS = 3_600.0

log = structlog.get_logger("pgreflex.queries")


class QueryKeeper:
    """A Service. leading: whether this process leads; only the leader does the work, several would do no harm."""

    name = "queries"

    def __init__(
        self,
        queries: Queries,
        *,
        leading: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queries = queries
        self._leading = leading
        self._clock = clock
        self._due = 0.0
        self._problem = ""
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Nothing to get ready."""

    async def run(self) -> None:
        while not self._stopping.is_set():
            if self._leading() and self._clock() >= self._due:
                try:
                    await self._work()
                    self._problem = ""
                except PgreflexError as error:
                    self._problem = describe(error)
            await wait_for(self._stopping, TICK_SECONDS)

    async def stop(self) -> None:
        self._stopping.set()

    def healthy(self) -> Health:
        return Health(not self._problem, self._problem)

    async def _work(self) -> None:
        """Follow the present rules, after an update; then forget. Both in steps that another process may share."""
        moved = 0
        while not self._stopping.is_set() and (count := await self._queries.move()):
            moved += count
        if moved:
            log.info("fingerprints were made anew by newer rules", queries=moved)
        while not self._stopping.is_set() and await self._queries.prune():
            pass
        self._due = self._clock() + EVERY_SECONDS
