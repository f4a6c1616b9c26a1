"""Looks at sessions, and what is kept of them.

Owns: the rows of pipeline.activity_*. Must not know how often somebody looks.
"""

from __future__ import annotations

import msgspec

from pipeline.core.activity import Minute, Sample
from pipeline.core.status import BlockedSession
from pipeline.db.connection import Database

KEEP_SECONDS = 48 * 3_600.0
SAMPLE_SECONDS = 5.0  # a look that takes longer is given up


class Activity:
    """Reads pg_stat_activity of the database. Raises our database errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sample(self) -> tuple[float, Sample]:
        """One look, and when it was, in Unix seconds of the server's clock."""
        row = await self._database.fetchrow("activity/sample", timeout=SAMPLE_SECONDS)
        assert row is not None  # noqa: S101 - an aggregate has a row
        waits = zip(row["queryids"], row["types"], row["events"], strict=True)
        none = None if row["hidden"] else 0
        return row["at"], Sample(
            tuple(zip(waits, row["numbers"], strict=True)),
            sessions=row["sessions"],
            hidden=row["hidden"],
            blocked=row["blocked"] or none,
            longest_transaction_seconds=row["longest_transaction_seconds"] or none,
            longest_idle_seconds=row["longest_idle_seconds"] or none,
        )

    async def blocked(self, most: int = 100) -> list[BlockedSession]:
        """Who waits for a lock now, the longest wait first."""
        rows = await self._database.fetch("activity/blocked", most)
        return [msgspec.convert(dict(row), BlockedSession) for row in rows]

    async def add(self, minute: Minute) -> None:
        """Add the looks of a minute to what is kept of it."""
        waits = list(minute.waits.items())
        await self._database.execute(
            "activity/add_minute",
            float(minute.start), minute.samples, minute.active, minute.blocked_most,
            minute.longest_transaction_seconds, minute.longest_idle_seconds,
            [wait[0] for wait, _ in waits], [wait[1] for wait, _ in waits], [wait[2] for wait, _ in waits],
            [number for _, number in waits],
        )  # fmt: skip

    async def prune(self) -> None:
        """Delete what is older than 48 hours."""
        await self._database.execute("activity/prune", KEEP_SECONDS)
