"""What the tests of schedules share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import asyncpg

from pipeline.db.connection import Database
from pipeline.db.schedules import ScheduleStore

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()
DAY = 86400.0


class Daemon:
    """The schedules as one daemon deals with them, at a time that the test sets."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.store = ScheduleStore(database)

    async def at(self, moment: float) -> None:
        """It is this time (Unix seconds) for this daemon."""
        async with self._database.acquire() as connection:  # the pool has this one only
            await connection.execute(
                "select set_config('pipeline.fake_now', to_timestamp($1)::text, false)", moment
            )

    async def tick(self, moment: float) -> int:
        """Deal with everything that is due at this time; returns how many runs were made."""
        await self.at(moment)
        made, passed = 0, list[str]()
        while (done := await self.store.tick(passed)) is not None:
            made += done.made
            passed.append(done.name)
        return made

    async def pid(self) -> int:
        async with self._database.acquire() as connection:
            return int(await connection.fetchval("select pg_backend_pid()"))


@asynccontextmanager
async def daemon(dsn: str, moment: float = NOON) -> AsyncIterator[Daemon]:
    async with Database(dsn, purpose="schedules", max_size=1) as database:
        made = Daemon(database)
        await made.at(moment)
        yield made


async def schedule(sql: asyncpg.Connection, name: str, cron: str, moment: float = NOON, **more: object) -> None:
    """pipeline.schedule() at this time, of the task t."""
    await sql.execute("select set_config('pipeline.fake_now', to_timestamp($1)::text, false)", moment)
    named = "".join(f", {key} => ${place}" for place, key in enumerate(more, 3))
    await sql.execute(f"select pipeline.schedule($1, $2, 't'{named})", name, cron, *more.values())


async def runs(sql: asyncpg.Connection, name: str) -> list[float]:
    """The scheduled times of all runs that have a job."""
    rows = await sql.fetch(
        """select extract(epoch from r.at)::float8 as at
           from pipeline.job j left join pipeline.schedule_run r on r.job = j.id
           where r.name = $1 or r.job is null order by 1""",
        name,
    )
    return [row["at"] for row in rows]


def unix(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()
