"""The roll-up against a plain list of timings: whatever fails, and however late they come, each counts once."""

from __future__ import annotations

import random
from typing import Any

import asyncpg
import msgspec
import pytest

from pipeline.core.digest import Digest
from pipeline.core.part import Part
from pipeline.core.series import Series
from pipeline.db import timing_rollup
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from tests.time_kit import stand_at

MIDNIGHT = 1_800_000_000 // 86_400 * 86_400
NAMES = [f"s{i}" for i in range(11)]  # more than the few that are read in another way


class Died(Exception):
    """A process that ends between two statements."""


class Timing(msgspec.Struct):
    """One value of the list. start: of its window of five seconds. first: of its part."""

    name: str
    start: int
    ms: float
    first: bool


class World:
    """A database, a clock, and the list that it is compared with."""

    def __init__(self, db: Database, sql: asyncpg.Connection, draw: random.Random) -> None:
        self.db, self.sql, self.draw = db, sql, draw
        self.now = MIDNIGHT + 3_000.0
        self.all: list[Timing] = []
        self.ids: dict[str, int] = {}

    async def write(self) -> None:
        """Some batches, most of them of now, some up to three hours late; each is sent twice now and then."""
        parts: list[Part] = []
        for _ in range(self.draw.randint(1, 6)):
            late = self.draw.choice((0, 0, 0, 20, 400, 4_000, 11_000))
            start = int(self.now - late - self.draw.randint(1, 60)) // 5 * 5
            name = self.draw.choice(NAMES)
            if not any(part.series.text == name and part.start == start for part in parts):
                values = [self.draw.paretovariate(1.1) for _ in range(self.draw.choice((1, 2, 90)))]
                parts.append(Part(Series(name, "span", name), start, Digest(values), errors=1, rows=7))
                self.all += [Timing(name, start, value, first=value is values[0]) for value in values]
        store = LatencyStore(self.db)
        batches = store.number(parts)
        for _ in range(self.draw.choice((1, 1, 2))):
            await store.flush(batches)
        rows = await self.sql.fetch("select series, id from pipeline.timing_series")
        self.ids = {row["series"]: row["id"] for row in rows}

    async def roll_up(self, dies_at: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Roll up until there is nothing to do, or until the process dies at a statement."""
        asked, real = 0, timing_rollup.statement

        def statement(name: str) -> str:
            nonlocal asked
            asked += 1
            if asked == dies_at:
                raise Died
            return real(name)

        with monkeypatch.context() as patch:
            patch.setattr(timing_rollup, "statement", statement)
            try:
                await timing_rollup.roll_up(self.db)
            except Died:
                return

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        await move(self.db, self.now)
        await stand_at(self.sql, self.now)

    async def check(self) -> None:
        level = self.draw.choice((60, 300, 3_600, 86_400))
        kept = {60: 48 * 3_600, 300: 7 * 86_400}.get(level, 30 * 86_400)
        since = self.now - self.draw.choice((100, 5_000, 50_000, 500_000, kept))
        since = max(since, self.now - kept + 20_000) // level * level
        names = self.draw.sample(NAMES, self.draw.choice((1, 3, len(NAMES))))
        rows = await self.sql.fetch(
            "select s.series, sum(p.count)::bigint as count, sum(p.sum) as sum, min(p.low) as low,"
            " max(p.high) as high, sum(p.errors)::bigint as errors, sum(p.row_count)::bigint as rows,"
            " sum((select sum(w) from unnest(p.weights) as w)) as weight"
            " from pipeline.timing_parts($1, to_timestamp($2::float8), 'infinity', $3) as p"
            " join pipeline.timing_series as s on s.id = p.series group by 1",
            [self.ids[name] for name in names if name in self.ids],
            float(since),
            level,
        )
        found: dict[str, Any] = {row["series"]: tuple(row)[1:] for row in rows}
        for name in names:
            mine = [one for one in self.all if one.name == name and one.start >= since]
            values, parts = [one.ms for one in mine], sum(one.first for one in mine)
            expected = (
                (len(values), sum(values), min(values), max(values), parts, 7 * parts, len(values))
                if values
                else None
            )
            got = found.get(name)
            assert (got is None) == (expected is None), (name, level)
            if expected is not None:
                assert got == pytest.approx(expected, rel=1e-12), (name, level)


async def move(db: Database, now: float) -> None:
    """Let the one session of a pool be at that time."""
    async with db.acquire() as connection:
        await connection.execute(f"select set_config('pipeline.fake_now', to_timestamp({now!r})::text, false)")


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_timing_counts_once_at_every_level_whatever_fails(
    seed: int, dsn: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    async with Database(dsn, max_size=1) as db:
        world = World(db, sql, draw)
        await world.pass_time(0)
        for _ in range(40):
            await world.write()
            await world.pass_time(draw.choice((5, 61, 400, 4_000, 30_000)))
            for _ in range(2):
                await world.roll_up(draw.choice((None, *range(1, 30))), monkeypatch)
                await world.check()
            if draw.random() < 0.3:
                await timing_rollup.prune(db)
                await world.check()
    rows = await sql.fetch("select distinct seconds from pipeline.timing_part")
    assert {row["seconds"] for row in rows} >= {300, 3_600, 86_400}


async def test_late_timings_make_few_parts_more(dsn: str, sql: asyncpg.Connection) -> None:
    """A process whose clock is an hour behind writes to windows that were rolled up long ago, for two hours."""
    series = Series("a", "span", "a")
    async with Database(dsn, max_size=1) as db:
        store = LatencyStore(db)
        for second in range(0, 7_200, 30):
            now = MIDNIGHT + 7_200 + second
            await move(db, now)
            parts = [Part(series, now - late, Digest([1.0])) for late in (10, 3_610)]
            await store.flush(store.number(parts))
            await store.roll_up()
    rows = await sql.fetch(
        "select seconds, max(n) as most"
        " from (select seconds, start, count(*) as n from pipeline.timing_part group by 1, 2) as p"
        " group by 1 order by 1"
    )
    assert [tuple(row) for row in rows] == [(60, 2), (300, 2), (3_600, 2)]
