"""Whether a cached read can be stale while everything breaks. `make check-freshness`.

Owns: the forms of the check and its report. FRESHNESS=quick ends within a minute; SEED repeats the choices.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.freshness_field import Field, prepare
from bench.freshness_judge import RULES, Judge
from bench.freshness_log import VIEWS
from bench.freshness_nemesis import RHYTHM
from bench.report import Report
from pipeline.embedded import EmbeddedServer

FORMS = {"standard": (600.0, 1.0, 1_000_000), "quick": (36.0, 0.6, 50_000)}
"""Seconds, by how much the faults come sooner, and how many reads are enough."""
TOLD = 5  # violations that are told with what happened around them


def main() -> None:
    form = os.environ.get("FRESHNESS", "standard")
    if form not in FORMS:
        sys.exit(f"FRESHNESS is one of {', '.join(FORMS)}")
    seed = int(os.environ.get("SEED", time.time_ns() % 100_000))
    with tempfile.TemporaryDirectory(prefix="pgr-fresh-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        try:
            with EmbeddedServer(
                Path(home) / "server", settings={"max_connections": "200"}, database="fresh"
            ) as server:
                report = Report("check-freshness", server.version)
                report.say(f"SEED={seed}, {form}: {FORMS[form][0]:g} s")
                field = Field(server, "fresh", Path(home) / "history", seed)
                judge = uvloop.run(check(field, form))
                tell(report, field, judge, FORMS[form][2])
                met = report.finish()
                server.stop("immediate")
        except KeyboardInterrupt:
            sys.exit(130)
    sys.exit(not met)


async def check(field: Field, form: str) -> Judge:
    seconds, sooner, _reads = FORMS[form]
    await prepare(field.server, field.database)
    return await field.run(seconds, {name: every * sooner for name, every in RHYTHM.items()})


def tell(report: Report, field: Field, judge: Judge, enough: int) -> None:
    """What was read, how stale it was, what went wrong meanwhile, and what was broken."""
    for name, value in sorted(judge.notes.items()):
        report.figure(name, value)
    for view, reads in sorted(judge.by_view.items()):
        report.figure(f"reads: {VIEWS[view]}", reads)
    report.figure("rows written", field.writes)
    report.figure("hits", judge.hits)
    report.figure("loads", judge.loads)
    report.figure("share served from the cache", judge.hits / max(judge.reads, 1))
    for q in (0.5, 0.9, 0.99, 0.999, 0.9999):
        report.figure(f"behind the newest commit, s, p{100 * q:g}", judge.quantile(q))
    report.figure("behind the newest commit, s, worst", judge.worst)
    for violation in judge.violations[:TOLD]:
        for line in field.story(judge, violation):
            report.say(line)
    for rule in RULES:
        report.goal(f"reads that were {rule}", judge.broken[rule], "<=", 0)
    report.goal("errors that are not ours", sum(judge.foreign.values()), "<=", 0, ", ".join(judge.foreign))
    report.goal("reads", judge.reads, ">=", enough)
    report.goal("share served from the cache, or nothing is shown", judge.hits / max(judge.reads, 1), ">=", 0.5)
    for name in RHYTHM:
        report.goal(f"{name}, or nothing is shown", field.nemesis.struck[name], ">=", 1)


if __name__ == "__main__":
    main()
