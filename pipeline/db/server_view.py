"""What the server counted and what its sessions are at, as people and programs look at it.

Owns: the answers' shapes. Knows neither who looks nor how it is shown.
"""

from __future__ import annotations

import msgspec

from pipeline.core.statement_source import StatementSource
from pipeline.core.status import BlockedSession
from pipeline.db.connection import Database


class StatementRow(msgspec.Struct, frozen=True, kw_only=True):
    """One statement over a span. query: its text with $n for values; None where it is not known yet. Without
    queryids it is all that are not kept by name. max_ms: None where it cannot be known. share: of the time of all.
    seconds: how much time was watched. lost: more may have happened. The rest as in pg_stat_statements, in blocks.
    """

    fingerprint: str | None
    queryids: tuple[int, ...] | None
    query: str | None
    calls: int
    total_ms: float
    mean_ms: float | None
    max_ms: float | None
    rows: int
    share: float | None
    shared_hit: int
    shared_read: int
    shared_dirtied: int
    shared_written: int
    temp_read: int
    temp_written: int
    read_ms: float
    write_ms: float
    wal_bytes: int
    plans: int
    plan_ms: float
    seconds: float
    lost: bool


class WaitRow(msgspec.Struct, frozen=True):
    """What active sessions were at. sessions: how many on average. share: of all active sessions."""

    wait_type: str
    wait_event: str | None
    fingerprint: str | None
    query: str | None
    samples: int
    sessions: float
    share: float


class ServerViews:
    """database: open when it is called. Raises our database errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def statements(self, over_seconds: float, most: int = 100) -> list[StatementRow]:
        """What pg_stat_statements counted, what took most time first."""
        rows = await self._database.fetch("statements/greatest", over_seconds, most)
        return [msgspec.convert(dict(row), StatementRow) for row in rows]

    async def waits(self, over_seconds: float, most: int = 100) -> list[WaitRow]:
        """What active sessions were at, the most frequent first."""
        rows = await self._database.fetch("activity/waits", over_seconds, most)
        return [msgspec.convert(dict(row), WaitRow) for row in rows]

    async def blocked(self, most: int = 100) -> list[BlockedSession]:
        """Who waits for a lock now, the longest wait first."""
        rows = await self._database.fetch("activity/blocked", most)
        return [msgspec.convert(dict(row), BlockedSession) for row in rows]

    async def source(self) -> StatementSource:
        """What pg_stat_statements can tell this role."""
        row = await self._database.fetchrow("statements/source")
        return msgspec.convert(dict(row or {}), StatementSource)
