"""Timings that were recorded in SQL: taking them out of their inbox.

Owns: the tables of the inbox, as the leader sees them. Must not know what becomes of the timings.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.db.connection import Database

TURN_BYTES = 8 * 1024 * 1024  # half a second of 100,000 timings a second; small enough to stay in memory


class Recorded(msgspec.Struct, frozen=True):
    """Timings of one series in one window. start: Unix seconds. ms: durations in milliseconds."""

    name: str
    labels: dict[str, object]
    start: float
    ms: Sequence[float]


class TimingInbox:
    """What `pipeline.record_timing` has written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def drain(self) -> list[Recorded]:
        """Take out what was committed since the last time. What is returned is nowhere else any more."""
        rows = await self._database.fetch("latency/drain")
        return [
            Recorded(row["name"], msgspec.json.decode(row["labels"] or "{}"), row["start"], row["ms"])
            for row in rows
        ]

    async def turn(self) -> None:
        """Give back the room of what was taken out, if that is possible now."""
        await self._database.execute("latency/turn_inbox", TURN_BYTES)

    async def counts(self) -> tuple[int, int]:
        """How many timings were rejected in SQL, and dropped since the inbox was full; ever."""
        row = await self._database.fetchrow("latency/inbox_counts")
        return (0, 0) if row is None else (row["rejected"], row["dropped"])
