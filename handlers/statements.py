"""Statement counts: looks at pg_stat_statements once a minute.

Owns: when to look, to sum up and to prune, and what is told of it. Must not know SQL or how counters are compared.

Only the leader looks; several would do no harm. A look that fails is made up for by the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pipeline.core.statement_delta import Delta
from pipeline.core.statement_source import StatementSource, shortcomings
from pipeline.core.status import StatementsStatus
from pipeline.db.statement_counts import Look, StatementCounts
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

TICK_SECONDS = 1.0
LOOK_SECONDS = 60.0
NAME_SECONDS = 300.0  # the server reads all texts, which may be many megabytes
PRUNE_SECONDS = 3600.0
GAPS = {
    "first": "",
    "reset": "all counters were reset, or lost in a crash",
    "other": "the server, its role or its rights have changed",
    "baseline": "what was seen last was lost in a crash",
}

log = structlog.get_logger("pgreflex.statements")


class StatementWatcher:
    """A Service. leading: whether this process leads. clock: Unix seconds; looks come with full minutes."""

    name = "statements"

    def __init__(
        self,
        counts: StatementCounts,
        *,
        leading: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counts = counts
        self._leading = leading
        self._clock = clock
        self._stopping = asyncio.Event()
        self._due = {"look": 0.0, "name": 0.0, "prune": 0.0}
        self._source: StatementSource | None = None
        self._told: tuple[str, ...] | None = None
        self._problem = ""
        self._look: Look | None = None
        self._at: float | None = None
        self.evictions_total = 0

    async def start(self) -> None:
        """Nothing to prepare."""

    async def run(self) -> None:
        """Look whenever a minute has passed and this process leads, until `stop`."""
        while not self._stopping.is_set():
            if self._leading():
                await self._tick()
            await wait_for(self._stopping, TICK_SECONDS)

    async def stop(self) -> None:
        self._stopping.set()

    async def look(self) -> Look | None:
        """Look now. None where there is nothing to look at, or somebody else looks. Raises our database errors."""
        self._source = source = await self._counts.source()
        self._tell_shortcomings(source)
        if not source.readable:
            return None
        look = await self._counts.look()
        if look is not None:
            self._look, self._at = look, self._clock()
            self.evictions_total += look.delta.deallocs
            _tell(look.delta)
            await self._counts.roll_up()
        return look

    def healthy(self) -> Health:
        """Well also without pg_stat_statements: nothing here needs it."""
        if self._problem:
            return Health(True, f"statements cannot be counted: {self._problem}")
        if self._source is None:
            return Health(True, "the leader looks")
        found = shortcomings(self._source)
        if found:
            return Health(True, found[0].detail)
        return Health(True, "" if self._look is None else f"{self._look.entries} statements")

    def status(self) -> StatementsStatus | None:
        """What is known of pg_stat_statements; None where this process does not look."""
        if self._source is None:
            return None
        look = self._look
        return StatementsStatus(
            at=self._at,
            entries=None if look is None else look.entries,
            hidden=None if look is None else look.hidden,
            evictions_total=self.evictions_total,
            shortcomings=tuple(f"{one.detail}: {one.hint}" for one in shortcomings(self._source)),
        )

    async def _tick(self) -> None:
        now = self._clock()
        if self._due["look"] - LOOK_SECONDS <= now < self._due["look"]:  # before that the clock was set back
            return
        self._due["look"] = (now // LOOK_SECONDS + 1) * LOOK_SECONDS
        try:
            looked = await self.look() is not None
            if looked and now >= self._due["name"] and await self._counts.name():
                self._due["name"] = now + NAME_SECONDS
            if now >= self._due["prune"]:
                self._due["prune"] = now + PRUNE_SECONDS
                await self._counts.prune()
            self._problem = ""
        except PgreflexError as error:  # nothing is lost: the next look counts what this one would have
            if not self._problem:
                log.warning("statements cannot be counted", error=describe(error))
            self._problem = describe(error)

    def _tell_shortcomings(self, source: StatementSource) -> None:
        found = shortcomings(source)
        told = tuple(one.detail for one in found)
        if told != self._told:
            for one in found:
                log.info("pg_stat_statements tells less than it could", what=one.detail, hint=one.hint)
        self._told = told


def _tell(delta: Delta) -> None:
    if delta.gap:
        if GAPS[delta.gap]:
            log.info("some executions are not counted", reason=GAPS[delta.gap])
    elif delta.lost:
        log.info(
            "some executions may not be counted: entries were evicted or reset",
            evictions=delta.deallocs, gone=delta.vanished, went_back=delta.rebased,
        )  # fmt: skip
