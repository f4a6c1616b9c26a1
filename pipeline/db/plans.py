"""Plans of slow queries in Postgres.

Owns: the rows of pipeline.plan and pipeline.plan_turn. Must not know how a plan is had, nor when one is wanted.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.core.plan import shape, summary
from pipeline.core.plan_text import plan_text
from pipeline.db.connection import Database
from pipeline.db.explain import Explained

READ_SECONDS = 20.0


class StoredPlan(msgspec.Struct, frozen=True):
    """One run of a plan: from first_at to last_at it was the plan of the query whenever somebody looked, times
    times. Moments are Unix seconds. text: the plan as EXPLAIN would write it. slowest_ms: of the runs that were
    the reasons to look.
    """

    shape: str
    summary: str
    kind: Literal["generic", "analyzed"]
    plan: msgspec.Raw
    text: str
    settings: dict[str, str]
    times: int
    slowest_ms: float
    first_at: float
    last_at: float


class PlanTurn(msgspec.Struct, frozen=True):
    """When somebody looked for the plan of a query last, in Unix seconds, and what came of it."""

    at: float
    outcome: Literal["asked", "planned", "refused", "failed"]
    reason: str


class PlanChange(msgspec.Struct, frozen=True):
    """A query that got another plan, and its latency under the one before and after: at most a day on each side;
    None where no timings are. at: when it was first seen, Unix seconds. The plans are in one line each.
    """

    at: float
    fingerprint: str
    query: str | None
    plan_before: str
    plan_after: str
    calls_before: int
    p50_ms_before: float | None
    p95_ms_before: float | None
    calls_after: int
    p50_ms_after: float | None
    p95_ms_after: float | None


class PlanStore:
    """Reads and writes plans. database: open when it is called. Raises our errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, fingerprint: str) -> bool:
        """Whether this process may look for the plan now: one may in an hour, over all processes."""
        may: bool = await self._database.fetchval("plans/claim", fingerprint)
        return may

    async def refuse(self, fingerprint: str, outcome: Literal["refused", "failed"], reason: str) -> None:
        """Write down why there is no plan."""
        await self._database.fetchval("plans/refuse", fingerprint, outcome, reason)

    async def save(
        self, fingerprint: str, explained: Explained, ms: float, *, generic: Explained | None = None
    ) -> str | None:
        """Write a plan down; the summary of the one before, where this is another. ms: what the query took.

        generic: the plan by which they are compared, where this one is measured: that has fewer partitions.
        """
        compared = (generic or explained).plan
        before: str | None = await self._database.fetchval(
            "plans/save",
            fingerprint,
            shape(compared),
            summary(compared),
            explained.kind,
            msgspec.json.encode(explained.plan).decode(),
            msgspec.json.encode(explained.settings).decode(),
            ms,
        )
        return before

    async def plans(self, fingerprint: str, limit: int = 20) -> list[StoredPlan]:
        """The plans that a query had, the newest first."""
        return [_stored(dict(row)) for row in await self._database.fetch("plans/list", fingerprint, limit)]

    async def changes(self, over: float, limit: int = 20, *, fingerprint: str | None = None) -> list[PlanChange]:
        """The queries that got another plan in the last `over` seconds, or this one, the newest first."""
        rows = await self._database.fetch("plans/changes", over, limit, fingerprint, timeout=READ_SECONDS)
        return [PlanChange(**dict(row)) for row in rows]

    async def turn(self, fingerprint: str) -> PlanTurn | None:
        """What came of the last look for a plan of this query; None: nobody looked."""
        row = await self._database.fetchrow("plans/turn", fingerprint)
        return None if row is None else PlanTurn(**dict(row))


def _stored(row: dict[str, Any]) -> StoredPlan:
    settings = msgspec.json.decode(row.pop("settings"), type=dict[str, str])
    text = row.pop("plan")
    lines = plan_text(msgspec.json.decode(text), settings)
    return StoredPlan(plan=msgspec.Raw(text.encode()), text=lines, settings=settings, **row)
