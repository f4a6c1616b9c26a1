"""Rolling timings up into longer windows, and pruning them.

Owns: the rows of pipeline.timing_roll and timing_part. Must not know who writes batches, or who leads.

A roll takes what is not rolled up yet of one window, writes the merged parts and marks what it took, in one
transaction and under a lock. So counts stay exact whatever fails, and whoever else tries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

from pipeline.core.kept import Sums, columns, merge
from pipeline.core.window import BASE_SECONDS, KEEP_SECONDS, LEVELS
from pipeline.db.connection import Connection, Database, Record, translated
from pipeline.db.statements import statement

GRACE_SECONDS = 10.0  # a window is rolled up this long after its end
CHUNK = 20_000  # digests that are merged at once: about 40 MB
PRUNE_BATCHES = 1_000
PRUNE_ROLLS = 20  # with the parts of all series


async def roll_up(database: Database, *, seconds: float | None = None) -> int:
    """Merge what is in closed windows into the next levels; returns how many windows were rolled up.

    seconds: begin no window after so long, None: do all there is. What comes late to a window that was rolled up
    is gathered for as long as the window of the next level is long, so that it makes few parts.
    """
    begun, total = asyncio.get_running_loop().time(), 0
    for finer, coarser in pairwise(LEVELS):
        while seconds is None or asyncio.get_running_loop().time() < begun + seconds:
            if not await _roll_window(database, finer, coarser):
                break
            total += 1
    return total


async def prune(database: Database) -> int:
    """Delete what is past its time and contained in the next level; returns how many rows were deleted."""
    deleted = await _delete(database, "latency/prune_batches", float(KEEP_SECONDS[BASE_SECONDS]), PRUNE_BATCHES)
    for seconds in LEVELS[1:]:
        keep, last = float(KEEP_SECONDS[seconds]), seconds == LEVELS[-1]
        deleted += await _delete(database, "latency/prune_rolls", seconds, keep, last, PRUNE_ROLLS)
    return deleted


async def _delete(database: Database, name: str, *args: object) -> int:
    total = 0
    while deleted := int((await database.execute(name, *args)).split()[-1]):
        total += deleted
    return total


async def _roll_window(database: Database, finer: int, coarser: int) -> bool:
    async with database.transaction() as connection:
        with translated():
            if not await connection.fetchval(statement("latency/lock_roll_up")):
                return False
            if finer == BASE_SECONDS:
                start = await connection.fetchval(statement("latency/next_batches"), GRACE_SECONDS)
            else:
                start = await connection.fetchval(
                    statement("latency/next_rolls"), finer, float(coarser), GRACE_SECONDS
                )
            if start is None:
                return False
            number = await connection.fetchval(statement("latency/insert_roll"), coarser, start)
            async for chunk in _taken(connection, finer, coarser, start):
                kept = await asyncio.to_thread(_merged, chunk, coarser, int(start))
                await connection.execute(statement("latency/insert_parts"), coarser, start, number, *columns(kept))
    return True


async def _taken(connection: Connection, finer: int, coarser: int, start: float) -> AsyncIterator[list[Record]]:
    """Mark what the window of the coarser level is made of, and read it, series by series."""
    if finer == BASE_SECONDS:
        taken = await connection.fetch(statement("latency/take_batches"), start)
        args: list[object] = [[row["writer"] for row in taken], [row["number"] for row in taken]]
        name = "latency/read_batches"
    else:
        taken = await connection.fetch(statement("latency/take_rolls"), finer, start, float(coarser))
        args = [finer, [row["start"] for row in taken], [row["part"] for row in taken]]
        name = "latency/read_parts"
    chunk: list[Record] = []
    async for row in connection.cursor(statement(name), *args, prefetch=2_000):
        if len(chunk) >= CHUNK and chunk[-1]["series"] != row["series"]:
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


def _merged(rows: Sequence[Record], seconds: int, start: int) -> list[tuple[int, Sums]]:
    grouped: dict[int, list[Sums]] = {}
    for row in rows:
        grouped.setdefault(row["series"], []).append(
            Sums(
                row["sum"],
                row["low"],
                row["high"],
                row["errors"],
                row["over_count"],
                row["row_count"],
                row["centroids"],
                row["count"],
            )
        )
    return [(series, merge(several, seconds, start)) for series, several in grouped.items()]
