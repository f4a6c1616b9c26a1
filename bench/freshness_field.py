"""The field of the freshness check: a database, its writers and readers, the network between them, and faults.

Owns: the order of things, from an empty database to a judged history. Knows no single fault and no rule.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random
from urllib.parse import parse_qs, urlsplit

import asyncpg

from bench.crew import Crew
from bench.freshness_judge import Judge, Violation
from bench.freshness_log import COMMITTED, SHELF, Write, records
from bench.freshness_nemesis import Nemesis, Site
from bench.freshness_proxy import Proxy
from bench.freshness_reader import read
from bench.freshness_writer import ITEMS, SHELVES, write
from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer

PRELOAD = ["bench.freshness_reader", "bench.freshness_writer"]
WRITERS, READERS = 2, 3
STALE_SECONDS = 1.0  # what Client promises unless told otherwise
WARM_SECONDS = 1.5
LEAVE_SECONDS = 5.0


async def prepare(server: EmbeddedServer, database: str) -> None:
    """The schema and the tables, in a database that exists."""
    dsn = server.dsn_for(database)
    await migrate(dsn)
    async with connection_to(dsn) as connection:
        await connection.execute((Path(__file__).parent / "freshness.sql").read_text())


@contextlib.asynccontextmanager
async def connection_to(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


class Field:
    """One run. bug: the mistake that every reading process has; "" for none."""

    def __init__(self, server: EmbeddedServer, database: str, directory: Path, seed: int, bug: str = "") -> None:
        self.server = server
        self.dsn = server.dsn_for(database)
        self.database = database
        self.directory = directory
        self.rng = Random(seed)
        self.bug = bug
        self.nemesis: Nemesis

    async def run(self, seconds: float, rhythm: Mapping[str, float]) -> Judge:
        """Everything at once for so long, with these faults; returns the judged history."""
        self.directory.mkdir(parents=True, exist_ok=True)
        where, seed = str(self.directory), self.rng.randrange(1 << 30)
        writers = [
            Crew(1, f"writer {n}", write, self.dsn, where, n + 1, seed + n, preload=PRELOAD)
            for n in range(WRITERS)
        ]
        pump = Crew(1, "pump", read, self.dsn, self.dsn, where, 0, seed, self.bug, preload=PRELOAD)
        sites = [await self._site(n, seed) for n in range(READERS)]
        self.nemesis = Nemesis(self.server, self.dsn, sites, pump, self.directory / "leader", self.rng)
        crews = [*writers, pump, *(site.crew for site in sites)]
        keeping = [asyncio.create_task(crew.keep()) for crew in crews]
        try:
            await asyncio.sleep(WARM_SECONDS)
            await self.nemesis.strike(seconds, rhythm)
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            await asyncio.gather(*(crew.leave(LEAVE_SECONDS) for crew in crews))
            for site in sites:
                await site.feed.close()
                await site.queries.close()
        return self.judged()

    async def _site(self, number: int, seed: int) -> Site:
        """The first reader asks the database through the network, too; the last one never pumps."""
        address = urlsplit(self.dsn)
        given = parse_qs(address.query)
        socket = f"{given['host'][0]}/.s.PGSQL.{given['port'][0]}"
        feed, queries = await Proxy(socket).open(), await Proxy(socket).open()

        def through(proxy: Proxy) -> str:
            return f"postgresql://postgres@127.0.0.1:{proxy.port}/{self.database}?sslmode=disable"

        crew = Crew(
            1, f"reader {number}", read, self.dsn if number else through(queries), through(feed),
            str(self.directory), number + WRITERS + 1, seed, self.bug, number < READERS - 1, preload=PRELOAD,
        )  # fmt: skip
        return Site(crew, feed, queries)

    def judged(self) -> Judge:
        """The history that the processes have left, judged."""
        files = {path.stem: list(records(path)) for path in sorted(self.directory.glob("*.bin"))}
        first = [Write(COMMITTED, key, 1 << 24, 0, 0) for key in (*range(ITEMS), *range(SHELF, SHELF + SHELVES))]
        writes = [record for one in files.values() for record in one if isinstance(record, Write)]
        self.writes = sum(write.outcome == COMMITTED for write in writes)
        judge = Judge([*first, *writes], int(STALE_SECONDS * 1e9))
        for name, one in files.items():
            judge.process(name, one)
        return judge

    def story(self, judge: Judge, violation: Violation) -> list[str]:
        """A violation with what was written, what went wrong and what its process logged around it."""
        lines = [f"{violation.rule.upper()} in {violation.process}: {violation.text}"]
        told = [(0.0, said) for said in judge.history(violation)]
        for at, what in self.nemesis.journal:
            told.append(((at - violation.at) / 1e9, f"{(at - violation.at) / 1e9:+8.3f} s  fault: {what}"))
        process = " ".join(violation.process.split("-")[:2])
        with contextlib.suppress(OSError):
            for line in (self.directory / "log").read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError):
                    entry = json.loads(line)
                    if entry["worker"] == process:
                        since = (entry["mono"] - violation.at) / 1e9
                        said = {k: v for k, v in entry.items() if k not in ("worker", "at", "mono", "level")}
                        told.append((since, f"{since:+8.3f} s  logged: {said}"))
        return [*lines, *("    " + said for since, said in sorted(told) if -12 < since < 2)]
