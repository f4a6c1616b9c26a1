"""Timings in Postgres: writing and reading them.

Owns: the rows of pipeline.timing_series and timing_batch. Must not know where timings come from or who asks for
them.

Every process writes batches of its own, named by its writer and a number, so writers never wait for each other,
and writing one a second time, because the answer to the first was lost, changes nothing.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence

import msgspec

from pipeline.core.kept import columns, sums_of
from pipeline.core.window import Part, Series
from pipeline.db import timing_rollup
from pipeline.db.connection import Connection, Database, translated
from pipeline.db.statements import statement

BATCH_PARTS = 500  # in one row; more of them are more rows, so that neither end needs much memory for one
PAUSE = 5  # after so many parts, 1 ms, whoever else runs on this loop gets his turn


class Batch(msgspec.Struct):
    """What one process saw in one window. number: the writer's own."""

    number: int
    start: int
    parts: list[Part]


class LatencyStore:
    """Reads and writes timings. writer: unique for each process and start; by default a new one."""

    def __init__(self, database: Database, *, writer: str | None = None) -> None:
        self._database = database
        self._writer = writer or uuid.uuid4().hex
        self._numbered = 0

    def number(self, parts: Sequence[Part]) -> list[Batch]:
        """Make batches of parts, once: what `flush` failed to write is flushed again as the same batch."""
        windows: dict[int, list[Part]] = {}
        for part in parts:
            windows.setdefault(part.start, []).append(part)
        batches = []
        for start, whole in windows.items():
            for first in range(0, len(whole), BATCH_PARTS):
                self._numbered += 1
                batches.append(Batch(self._numbered, start, whole[first : first + BATCH_PARTS]))
        return batches

    async def flush(self, batches: Sequence[Batch]) -> None:
        """Write batches, one after the other; those that are there already stay as they are."""
        if not batches:
            return
        async with self._database.acquire() as connection:
            with translated():
                ids = await _ids(
                    connection, {part.series.text: part.series for one in batches for part in one.parts}
                )
                for batch in batches:
                    await connection.execute(
                        statement("latency/insert_batch"),
                        self._writer,
                        batch.number,
                        float(batch.start),
                        *await _columns(ids, batch.parts),
                    )

    async def roll_up(self, *, seconds: float | None = None) -> int:
        """Merge what is in closed windows into the next levels, for about `seconds`; how many windows were."""
        return await timing_rollup.roll_up(self._database, seconds=seconds)

    async def prune(self) -> int:
        """Delete what is past its time; returns how many rows were deleted."""
        return await timing_rollup.prune(self._database)

    async def clock(self) -> float:
        """What time the database has, in Unix seconds."""
        return float(await self._database.fetchval("latency/clock"))


async def _columns(ids: Mapping[str, int], parts: Sequence[Part]) -> list[list[int] | list[float]]:
    found = []
    for place, part in enumerate(parts, 1):
        found.append((ids[part.series.text], sums_of(part)))
        if place % PAUSE == 0:
            await asyncio.sleep(0)
    return columns(found)


async def _ids(connection: Connection, series: Mapping[str, Series]) -> dict[str, int]:
    rows = await connection.fetch(
        statement("latency/series"),
        list(series),
        [one.source for one in series.values()],
        [one.name for one in series.values()],
        [msgspec.json.encode(one.labels).decode() for one in series.values()],
    )
    return {row["series"]: row["id"] for row in rows}
