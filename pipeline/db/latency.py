"""Timings in Postgres: writing parts, rolling them up, pruning, reading.

Owns: the rows of pipeline.latency_window. Must not know where timings come from or who asks for them.

Every process writes rows of its own, named by its writer id, so writers never wait for each other. A part
carries the writer's number: writing it a second time, because the answer to the first was lost, changes
nothing. A roll-up takes parts, writes their merged part and marks them in one transaction, and two roll-ups
at once take different parts; so counts stay exact whatever fails.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import pairwise

from pipeline.core.digest import Digest
from pipeline.core.window import KEEP_SECONDS, LEVELS, Part, Series, roll_up
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement

GRACE_SECONDS = 10.0  # a window is rolled up this long after its end; what comes later is rolled up by itself
ROLL_BATCH = 2_000  # parts in one transaction: at most 6.4 MB
PRUNE_BATCH = 5_000


class LatencyStore:
    """Reads and writes timings. writer: unique for each process and start; by default a new one."""

    def __init__(self, database: Database, *, writer: str | None = None) -> None:
        self._database = database
        self._writer = writer or uuid.uuid4().hex
        self._numbered = 0

    def number(self, parts: Sequence[Part]) -> list[tuple[int, Part]]:
        """Give parts their numbers, once: what `flush` failed to write is flushed again under the same."""
        first = self._numbered + 1
        self._numbered += len(parts)
        return list(enumerate(parts, first))

    async def flush(self, numbered: Sequence[tuple[int, Part]], *, seconds: int = LEVELS[0]) -> None:
        """Write parts of one level in one statement; those that are there already stay as they are."""
        if numbered:
            async with self._database.acquire() as connection:
                await self._insert(connection, numbered, seconds)

    async def roll_up(self) -> int:
        """Merge the parts of closed windows into the next levels; returns how many parts were merged."""
        total = 0
        for seconds, coarser in pairwise(LEVELS):
            while taken := await self._roll_batch(seconds, coarser):
                total += taken
                if taken < ROLL_BATCH:
                    break
        return total

    async def prune(self) -> int:
        """Delete what is past its time, in batches; returns how many parts were deleted."""
        total = 0
        for seconds in LEVELS:
            last = seconds == LEVELS[-1]
            while True:
                tag = await self._database.execute(
                    "latency/prune", seconds, float(KEEP_SECONDS[seconds]), last, PRUNE_BATCH
                )
                deleted = int(tag.split()[-1])
                total += deleted
                if deleted < PRUNE_BATCH:
                    break
        return total

    async def clock(self) -> float:
        """What time the database has, in Unix seconds."""
        return float(await self._database.fetchval("latency/clock"))

    async def recent(self, seconds: float) -> list[Part]:
        """The parts of the last `seconds`, of every writer; at most 15 minutes are there."""
        return [_part(row) for row in await self._database.fetch("latency/recent", float(seconds))]

    async def _roll_batch(self, seconds: int, coarser: int) -> int:
        async with self._database.transaction() as connection:
            with translated():
                rows = await connection.fetch(
                    statement("latency/take_unrolled"), seconds, coarser, GRACE_SECONDS, ROLL_BATCH
                )
                if not rows:
                    return 0
                merged = roll_up([_part(row) for row in rows], coarser)
                await self._insert(connection, self.number(merged), coarser)
                keys = [[row[column] for row in rows] for column in ("series", "start", "writer", "part")]
                await connection.execute(statement("latency/mark_rolled"), seconds, *keys)
        return len(rows)

    async def _insert(self, connection: Connection, numbered: Sequence[tuple[int, Part]], seconds: int) -> None:
        parts = [part for _, part in numbered]
        centroids = [part.digest.centroids() for part in parts]
        with translated():
            await connection.execute(
                statement("latency/insert"),
                seconds,
                self._writer,
                [number for number, _ in numbered],
                [part.series.text for part in parts],
                [float(part.start) for part in parts],
                [part.digest.total for part in parts],
                [part.digest.low for part in parts],
                [part.digest.high for part in parts],
                [part.digest.count for part in parts],
                [part.errors for part in parts],
                [part.over for part in parts],
                [len(means) for means, _ in centroids],
                [mean for means, _ in centroids for mean in means],
                [weight for _, weights in centroids for weight in weights],
            )


def _part(row: Record) -> Part:
    digest = Digest.restore(row["means"], row["weights"], total=row["sum"], low=row["low"], high=row["high"])
    return Part(
        Series(row["series"], "", row["series"]), int(row["start"]), digest, row["errors"], row["over_count"]
    )
