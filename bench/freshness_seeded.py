"""Whether the freshness check finds what it should. `make check-freshness-bugs`.

Owns: one short run for each seeded mistake, on one server. Prints a line for each, and at the end a JSON object.
Names on the command line choose some of them; the first run has no mistake, and must find nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.freshness_bugs import BUGS, Bug
from bench.freshness_field import Field, connection_to, prepare
from bench.report import Report
from pipeline.embedded import EmbeddedServer

RIGHT = Bug("nothing", lambda: None, {"feed cut": 3.0, "listener terminated": 3.0, "feed late": 3.0})
TRIES = 2  # a mistake that the first run misses by chance gets another, twice as long


def main() -> None:
    chosen = [bug for bug in [RIGHT, *BUGS] if not sys.argv[1:] or bug.name in sys.argv[1:]]
    seed = int(os.environ.get("SEED", time.time_ns() % 100_000))
    with tempfile.TemporaryDirectory(prefix="pgr-fresh-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        try:
            with EmbeddedServer(
                Path(home) / "server", settings={"max_connections": "200", "fsync": "off"}, database="fresh"
            ) as server:
                report = Report("check-freshness-bugs", server.version)
                report.say(f"SEED={seed}")
                uvloop.run(check(server, Path(home), chosen, seed, report))
                met = report.finish()
                server.stop("immediate")
        except KeyboardInterrupt:
            sys.exit(130)
    sys.exit(not met)


async def check(server: EmbeddedServer, home: Path, bugs: list[Bug], seed: int, report: Report) -> None:
    await prepare(server, "fresh")
    for number, bug in enumerate(bugs):
        broken, detail = 0, ""
        for attempt in range(1 if bug is RIGHT else TRIES):
            name = f"fresh_{number}_{attempt}"
            async with connection_to(server.dsn_for("postgres")) as connection:
                await connection.execute(f"create database {name} template fresh")
            field = Field(server, name, home / name, seed + number, "" if bug is RIGHT else bug.name)
            judge = await field.run(bug.seconds * (attempt + 1), bug.rhythm)
            async with connection_to(server.dsn_for("postgres")) as connection:
                await connection.execute(f"drop database {name} with (force)")
            broken = judge.broken.total()
            rules = ", ".join(f"{count} {rule}" for rule, count in judge.broken.items())
            detail = f"{judge.reads} reads in run {attempt + 1}; {rules}"
            if os.environ.get("TELL"):
                for violation in judge.violations[:2]:
                    for line in field.story(judge, violation):
                        report.say(line)
            if broken:
                break
            await asyncio.sleep(0)
        if bug is RIGHT:
            broken += sum(judge.foreign.values())
            report.goal("violations found in what is right", broken, "<=", 0, detail + ", ".join(judge.foreign))
        else:
            report.goal(f"violations found in: {bug.name}", broken, ">=", 1, detail)


if __name__ == "__main__":
    main()
