"""Whether the job queue keeps its promises while everything breaks. `make chaos-jobs`.

Owns: the order of things: load, faults, drain, checks. CHAOS=quick ends within a minute, CHAOS=short is what the
test suite runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import msgspec
import uvloop

from bench import chaos_tasks
from bench.chaos_checks import CHECKS, ERRORS, REPEATS, RESCUED, STATES, wrong
from bench.chaos_faults import HARNESS, Faults, Rhythm
from bench.chaos_load import plan, produce
from bench.chaos_watch import Watch
from bench.chaos_worker import DEAD_SECONDS, DRAIN_SECONDS, PRELOAD, work
from bench.crew import DOWN, Crew
from bench.report import Report
from handlers.declare import declarations, rules
from pipeline.db.cleanup import CleanupStore
from pipeline.db.job_admin import JobAdmin
from pipeline.db.jobs import job_database
from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer
from pipeline.registry import default

ROOM = "select pipeline.set_queue('five', concurrency => 5), pipeline.set_queue('rated', rate => 5)"


OVER = """
select (select count(*) from chaos.chunk) = $1
    and not exists (select from pipeline.job) and not exists (select from pipeline.job_ended)
    -- else a dead letter is about to come back
    and not exists (select from pipeline.job_archive a where a.task = 'chaos.letter' and a.state = 'failed')
"""


class Size(msgspec.Struct, frozen=True):
    """few: the share of the costly kinds. load, chaos: seconds of enqueueing and of faults. drain: seconds in
    which everything must end then."""

    jobs: int
    few: float
    load: float
    chaos: float
    drain: float
    rhythm: Rhythm
    workers: int = 4
    producers: int = 2


SIZES = {
    "full": Size(20_000, 1.0, 330, 400, 150, Rhythm()),
    "quick": Size(1_500, 0.15, 16, 25, 28, Rhythm(restart=12, freeze=3)),
    "short": Size(500, 0.05, 4, 10, 40, Rhythm(restart=8, freeze=1.0, terminate=1, producer=2), workers=3),
}


def main() -> None:
    form = os.environ.get("CHAOS", "full")
    if form not in SIZES:
        sys.exit(f"CHAOS is one of {', '.join(SIZES)}")
    with tempfile.TemporaryDirectory(prefix="pgr-chaos-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        settings = {"max_connections": "200"} | ({"fsync": "off"} if form == "short" else {})
        try:
            with EmbeddedServer(Path(home) / "server", settings=settings, database="chaos") as server:
                report = Report("chaos-jobs", server.version)
                uvloop.run(Chaos(server, report, SIZES[form], Path(home) / "log").run())
                met = report.finish()
                server.stop("immediate")
        except KeyboardInterrupt:
            sys.exit(130)
    sys.exit(not met)


class Chaos:
    def __init__(self, server: EmbeddedServer, report: Report, size: Size, log: Path) -> None:
        self.server = server
        self.report = report
        self.size = size
        self.log = log
        self.dsn = server.dsn
        self.watch = Watch(self.dsn)
        self.chunks = plan(size.jobs, size.few)
        began = time.monotonic() + 1.0
        self.workers = Crew(size.workers, "worker", work, self.dsn, str(log), preload=PRELOAD)
        load = (self.chunks, began, size.load)
        self.producers = [
            Crew(1, f"producer {n}", produce, self.dsn, str(log), (n, size.producers), *load, preload=PRELOAD)
            for n in range(size.producers)
        ]
        seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 100_000))
        report.say(f"CHAOS_SEED={seed}")
        self.faults = Faults(server, self.dsn, self.workers, self.producers, size.rhythm, Random(seed))

    async def run(self) -> None:
        await self.prepare()
        crews = [self.workers, *self.producers]
        keeping = [asyncio.create_task(crew.keep()) for crew in crews]
        looking = [asyncio.create_task(self.watch.sample()), asyncio.create_task(self.watch.meddle())]
        try:
            self.report.say(
                f"{sum(map(len, self.chunks))} jobs in {self.size.load:g} s, faults for {self.size.chaos:g} s"
            )
            await self.faults.strike(self.size.chaos)
            self.report.say("no more faults; waiting until everything has ended")
            seconds = await self.drained()
            self.report.figure("drained after the last fault, s", seconds)
        finally:
            for task in keeping:
                task.cancel()
            late = sum([await crew.leave(DRAIN_SECONDS + 8) for crew in crews])
            for task in looking:
                task.cancel()
            await asyncio.gather(*keeping, *looking, return_exceptions=True)
        await self.judge(late)

    async def prepare(self) -> None:
        await migrate(self.dsn)
        default.prepare()
        tasks = [task for task in default.tasks.values() if task.name.startswith("chaos.")]
        async with job_database(self.dsn) as database:
            await JobAdmin(database).declare(declarations(tasks), rules(tasks))
        connection = await asyncpg.connect(self.dsn)
        await connection.execute((Path(__file__).parent / "chaos.sql").read_text())
        await connection.execute(ROOM)
        await connection.close()

    async def drained(self) -> float:
        """Wait until every chunk is enqueued and no job is left, at most `drain` seconds; returns how many."""
        began = time.monotonic()
        while time.monotonic() - began < self.size.drain:
            with contextlib.suppress(*DOWN):
                connection = await asyncpg.connect(
                    self.dsn, timeout=5, server_settings={"application_name": HARNESS}
                )
                try:
                    while time.monotonic() - began < self.size.drain:
                        if await connection.fetchval(OVER, len(self.chunks)):
                            return time.monotonic() - began
                        await asyncio.sleep(0.2)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def judge(self, late: int) -> None:
        report = self.report
        await self.clean()
        connection = await asyncpg.connect(self.dsn)
        for check in CHECKS:
            count, what = await wrong(connection, check)
            report.goal(check.name, count, "<=", 0, what)
        report.goal(
            "more held by leases than a limit allows, by samples", len(self.watch.over), "<=", 0,
            "; ".join(self.watch.over[:3]) or f"{self.watch.samples} samples, each in one snapshot",
        )  # fmt: skip
        report.goal(
            "jobs that two workers held at once, by samples",
            len(self.watch.twice),
            "<=",
            0,
            "; ".join([*self.watch.twice][:3]),
        )
        report.goal("processes that did not end within the drain time", late, "<=", 0)
        ended = await connection.fetchval("select count(*) from pipeline.job_archive")
        sent = await connection.fetchval("select count(*) from chaos.sent")
        report.goal("jobs enqueued", sent, ">=", 0.9 * self.size.jobs, f"{ended} in the archive")
        await self.tell_faults(connection)
        await self.tell_repeats(connection)
        await connection.close()

    async def clean(self) -> None:
        """What the built-in cleanup does, with nothing kept that is not in use."""
        async with job_database(self.dsn) as database:
            store = CleanupStore(database)
            await asyncio.sleep(1.1)  # the longest window of a rate
            for table in ("job_unique", "limiter"):
                await store.prune(table, 0, 100_000)
            await store.lanes(0)

    async def tell_faults(self, connection: asyncpg.Connection[Any]) -> None:
        for name, times in sorted(self.faults.struck.items()):
            self.report.figure(name, times)
        refusals = Counter({row["what"]: row["n"] for row in await connection.fetch(
            "select what, count(*) as n from chaos.refused group by what")})  # fmt: skip
        refusals["outcome"] = sum(said.get("jobs", 0) for said in self.said("after their lease was gone"))
        for what, times in sorted(refusals.items()):
            self.report.figure(f"late writes refused: {what}", times)
        for name, value in (
            ("workers killed", self.faults.struck["workers killed"]),
            ("workers stopped past their lease", self.faults.struck["workers stopped past their lease"]),
            ("servers crashed", self.faults.struck["servers crashed"]),
            ("late writes refused", refusals.total()),
        ):
            if name == "late writes refused" and self.size is SIZES["short"]:
                continue  # too short to be sure of one
            self.report.goal(f"{name}, or nothing is shown", value, ">=", 1)

    async def tell_repeats(self, connection: asyncpg.Connection[Any]) -> None:
        for row in await connection.fetch(REPEATS):
            self.report.say(
                f"{row['cause']}: {row['times']} times a job went back,"
                f" {row['burned']} cost an attempt, {row['lost']} counted as a loss"
            )
            self.report.figure(f"jobs sent back by {row['cause']}", row["times"])
            self.report.figure(f"attempts repeated because of {row['cause']}", row["burned"])
        for row in await connection.fetch(ERRORS):
            self.report.say(f"retried {row['n']} times after: {row['error']}")
        for row in await connection.fetch(STATES):
            self.report.say(f"{row['task']}: {row['n']} {row['state']}")
        members = {one.name: one for one in [*self.workers.past, *self.workers.members]}
        alive = []
        for row in await connection.fetch(RESCUED):
            member = members.get(row["name"])
            if member is not None and member.lived(row["at"] - DEAD_SECONDS - 0.5, row["at"]):
                outage = min(
                    (row["at"] - end for _since, end in self.faults.outages if end < row["at"]), default=None
                )
                alive.append(
                    f"{row['name']}, {row['jobs']} jobs" + (f", {outage:.1f} s after a crash" if outage else "")
                )
        self.report.figure("rescues from workers that lived", len(alive))
        for text in alive[:20]:
            self.report.say(f"taken from a worker that lived: {text}")

    def said(self, part: str) -> list[dict[str, Any]]:
        """What the processes logged with these words."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if part in line and line.startswith("{") and line.endswith("}")]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    assert chaos_tasks.plain
    main()
