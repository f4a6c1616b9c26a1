"""The timings of the status: the busiest series and the queries that took the most, of all processes.

Owns: how often they are read, and how much of them. Must not know SQL or how a percentile is computed.

Reading them costs the database up to a tenth of a second where 500 queries are timed by several processes, so it
is only done while somebody asks for the status. What is shown is at most FRESH_SECONDS and a window old: then it
is not known any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pipeline.core.status import Quantiles, QueryStatus, SeriesStatus
from pipeline.db.timing_view import QueryRow, SeriesRow, TimingViews
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

STATUS_SECONDS = 5.0
WINDOW_SECONDS = 300.0
FRESH_SECONDS = 30.0
ASKED_SECONDS = 120.0  # longer than the pause between two scrapes
MOST_SERIES = 100  # the busiest; the full list is pipeline.latency()
MOST_QUERIES = 10
LONGEST_TEXT = 400  # characters; the status is sent once a second

log = structlog.get_logger("pgreflex.timings")


class TimingBoard:
    """A Service that keeps the timings of the status up to date. What it cannot read makes nothing unready."""

    name = "timing board"

    def __init__(self, views: TimingViews, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._views = views
        self._clock = clock
        self._series: tuple[SeriesStatus, ...] = ()
        self._queries: tuple[QueryStatus, ...] = ()
        self._read_at = 0.0
        self._asked_at: float | None = None
        self._asked = asyncio.Event()
        self._stopping = asyncio.Event()
        self._problem = ""

    def series(self) -> tuple[SeriesStatus, ...]:
        """The busiest series of the last five minutes; empty while they are not known."""
        self._asked_at = self._clock()
        self._asked.set()
        return self._series if self._is_fresh() else ()

    def queries(self) -> tuple[QueryStatus, ...]:
        """The queries that took the most time, likewise."""
        return self._queries if self._is_fresh() else ()

    async def refresh(self) -> None:
        """Read both now. Raises our database errors."""
        series = await self._views.top_series(WINDOW_SECONDS, "calls", MOST_SERIES)
        queries = await self._views.slow_queries(WINDOW_SECONDS, "total", MOST_QUERIES)
        self._series = tuple(_series(one) for one in series)
        self._queries = tuple(_query(one) for one in queries)
        self._read_at = self._clock()

    async def start(self) -> None:
        """Nothing to get ready."""

    async def run(self) -> None:
        while not self._stopping.is_set():
            await self._asked.wait()
            if not self._is_asked_for():
                self._asked.clear()
                continue
            try:
                await self.refresh()
                self._problem = ""
            except PgreflexError as error:  # what was read stays for a while; the next round tries again
                if not self._problem:
                    log.warning("timings cannot be read", error=describe(error))
                self._problem = describe(error)
            await wait_for(self._stopping, STATUS_SECONDS)

    async def stop(self) -> None:
        self._stopping.set()
        self._asked.set()

    def healthy(self) -> Health:
        return Health(True, self._problem and f"timings cannot be read: {self._problem}")

    def _is_fresh(self) -> bool:
        return self._clock() - self._read_at < FRESH_SECONDS

    def _is_asked_for(self) -> bool:
        return self._asked_at is not None and self._clock() - self._asked_at < ASKED_SECONDS


def _series(row: SeriesRow) -> SeriesStatus:
    return SeriesStatus(row.series, _quantiles(row, row.count), row.errors, row.max_ms, row.source)


def _query(row: QueryRow) -> QueryStatus:
    text = row.query
    if text is not None and len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]} ..."
    return QueryStatus(
        row.fingerprint, text, _quantiles(row, row.calls), row.errors, row.max_ms, row.total_ms, row.share
    )


def _quantiles(row: SeriesRow | QueryRow, count: int) -> Quantiles:
    return Quantiles(row.p50_ms, row.p95_ms, row.p99_ms, count, WINDOW_SECONDS)
