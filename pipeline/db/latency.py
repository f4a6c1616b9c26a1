"""Timings in Postgres: writing batches, rolling them up, pruning, reading.

Owns: the rows of pipeline.timing_series, timing_batch, timing_roll and timing_part. Must not know where timings
come from or who asks for them.

Every process writes batches of its own, named by its writer and a number, so writers never wait for each other,
and writing one a second time, because the answer to the first was lost, changes nothing. A roll-up takes what is
not rolled up yet of one window, writes the merged parts and marks what it took, in one transaction and under a
lock; so counts stay exact whatever fails, and whoever else tries.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import fsum

import msgspec

from pipeline.core.centroids import pack, unpack
from pipeline.core.digest import Digest, compress
from pipeline.core.window import BASE_SECONDS, KEEP_SECONDS, LEVELS, Part, Series
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement

GRACE_SECONDS = 10.0  # a window is rolled up this long after its end; what comes later is rolled up by itself
ROLL_WINDOWS = 500  # windows of one level that one call rolls up at most
PRUNE_BATCHES = 1_000
PRUNE_ROLLS = 20  # with the parts of all series
CENTROIDS = {60: 64, 300: 96, 3_600: 160, 86_400: 200}


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
        batches = [Batch(self._numbered + place, *window) for place, window in enumerate(windows.items(), 1)]
        self._numbered += len(batches)
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
                        *_columns([(ids[part.series.text], _sums(part)) for part in batch.parts]),
                    )

    async def roll_up(self) -> int:
        """Merge what is in closed windows into the next levels; returns how many windows were rolled up."""
        total = 0
        for seconds, coarser in pairwise(LEVELS):
            for _ in range(ROLL_WINDOWS):
                if not await self._roll_window(seconds, coarser):
                    break
                total += 1
        return total

    async def prune(self) -> int:
        """Delete what is past its time; returns how many batches and parts were deleted."""
        deleted = await self._delete("latency/prune_batches", float(KEEP_SECONDS[BASE_SECONDS]), PRUNE_BATCHES)
        for seconds in LEVELS[1:]:
            keep, last = float(KEEP_SECONDS[seconds]), seconds == LEVELS[-1]
            deleted += await self._delete("latency/prune_rolls", seconds, keep, last, PRUNE_ROLLS)
        return deleted

    async def clock(self) -> float:
        """What time the database has, in Unix seconds."""
        return float(await self._database.fetchval("latency/clock"))

    async def recent(self, seconds: float) -> list[Part]:
        """The last `seconds` of every series, of every writer; the first minute of them is whole."""
        return [_part(row) for row in await self._database.fetch("latency/recent", float(seconds))]

    async def _delete(self, name: str, *args: object) -> int:
        total = 0
        while deleted := int((await self._database.execute(name, *args)).split()[-1]):
            total += deleted
        return total

    async def _roll_window(self, seconds: int, coarser: int) -> bool:
        async with self._database.transaction() as connection:
            with translated():
                if not await connection.fetchval(statement("latency/lock_roll_up")):
                    return False
                if seconds == BASE_SECONDS:
                    start = await connection.fetchval(statement("latency/next_batches"), GRACE_SECONDS)
                else:
                    start = await connection.fetchval(
                        statement("latency/next_rolls"), seconds, float(coarser), GRACE_SECONDS
                    )
                if start is None:
                    return False
                if seconds == BASE_SECONDS:
                    rows = await connection.fetch(statement("latency/take_batches"), start)
                else:
                    rows = await connection.fetch(statement("latency/take_parts"), seconds, start, float(coarser))
                number = await connection.fetchval(statement("latency/insert_roll"), coarser, start)
                columns = _columns(_merged(rows, CENTROIDS[coarser]))
                await connection.execute(statement("latency/insert_parts"), coarser, start, number, *columns)
        return True


class _Sums(msgspec.Struct):
    """What is stored of one series in one window."""

    total: float
    low: float
    high: float
    errors: int
    over: int
    rows: int
    means: list[float]
    weights: list[float]


def _sums(part: Part) -> _Sums:
    digest = part.digest
    means, weights = digest.centroids()
    return _Sums(digest.total, digest.low, digest.high, part.errors, part.over, part.rows, means, weights)


def _merged(rows: Sequence[Record], size: int) -> list[tuple[int, _Sums]]:
    grouped: dict[int, list[Record]] = {}
    for row in rows:
        grouped.setdefault(row["series"], []).append(row)
    return [(series, _merge(several, size)) for series, several in sorted(grouped.items())]


def _merge(rows: Sequence[Record], size: int) -> _Sums:
    means: list[float] = []
    weights: list[float] = []
    for row in rows:
        its_means, its_weights = unpack(row["centroids"], row["low"], row["high"])
        means += its_means
        weights += its_weights
    return _Sums(
        fsum(row["sum"] for row in rows),
        min(row["low"] for row in rows),
        max(row["high"] for row in rows),
        sum(row["errors"] for row in rows),
        sum(row["over_count"] for row in rows),
        sum(row["row_count"] for row in rows),
        *compress(means, weights, size),
    )


def _columns(found: Sequence[tuple[int, _Sums]]) -> list[list[int] | list[float]]:
    """The parallel arrays that insert_batch and insert_parts take."""
    packed = [pack(sums.means, sums.weights) for _, sums in found]
    return [
        [series for series, _ in found],
        [int(fsum(sums.weights)) for _, sums in found],
        [sums.total for _, sums in found],
        [sums.low for _, sums in found],
        [sums.high for _, sums in found],
        [sums.errors for _, sums in found],
        [sums.over for _, sums in found],
        [sums.rows for _, sums in found],
        [len(numbers) for numbers in packed],
        [number for numbers in packed for number in numbers],
    ]


async def _ids(connection: Connection, series: Mapping[str, Series]) -> dict[str, int]:
    rows = await connection.fetch(
        statement("latency/series"),
        list(series),
        [one.source for one in series.values()],
        [one.name for one in series.values()],
        [msgspec.json.encode(one.labels).decode() for one in series.values()],
    )
    return {row["series"]: row["id"] for row in rows}


def _part(row: Record) -> Part:
    digest = Digest.restore(row["means"], row["weights"], total=row["sum"], low=row["low"], high=row["high"])
    series = Series(row["text"], row["source"], row["name"], msgspec.json.decode(row["labels"]))
    return Part(series, int(row["start"]), digest, row["errors"], row["over_count"], row["row_count"])
