"""The program of a benchmark that is made of parts: a server for the run, the wanted parts, the last line.

Owns: how parts are chosen (BENCH_ONLY=a,b runs these alone) and kept apart. Knows no part.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

import uvloop

from bench.jobs_kit import Bench
from bench.report import Report
from pipeline.embedded import EmbeddedServer

Part = Callable[[Bench], Awaitable[None]]
Goals = dict[str, tuple[str, float]]
Parts = Mapping[str, tuple[Part, Goals]]
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}


def run(name: str, parts: Parts) -> None:
    """A benchmark whose parts run one after the other."""

    async def measure(bench: Bench, wanted: Collection[str]) -> None:
        await measured(bench, parts, wanted)

    serve(name, list(parts), measure)


def serve(name: str, known: Collection[str], measure: Callable[[Bench, Collection[str]], Awaitable[None]]) -> None:
    """Start a server, have what is wanted of `known` measured on it, and print the last line."""
    wanted = set(filter(None, os.environ.get("BENCH_ONLY", "").split(","))) or set(known)
    if unknown := wanted - set(known):
        sys.exit(f"BENCH_ONLY knows no {', '.join(sorted(unknown))}; it knows {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="pgreflex-bench-") as home:
        Path(home).chmod(0o711)
        try:
            with EmbeddedServer(Path(home) / "server", settings=SETTINGS, database="bench") as server:
                try:
                    report = Report(name, server.version)
                    uvloop.run(_prepared(Bench(server, report), wanted, measure))
                    report.finish()
                finally:
                    server.stop("immediate")  # its data are deleted next; a checkpoint would be for nothing
        except KeyboardInterrupt:
            sys.exit(130)


async def _prepared(
    bench: Bench, wanted: Collection[str], measure: Callable[[Bench, Collection[str]], Awaitable[None]]
) -> None:
    await bench.prepare()
    await measure(bench, wanted)


async def measured(bench: Bench, parts: Parts, wanted: Collection[str]) -> None:
    """Every wanted part; one that fails takes no other with it."""
    for name, (part, goals) in parts.items():
        if name in wanted:
            await guarded(bench, name, part, goals)


async def guarded(bench: Bench, name: str, part: Part, goals: Goals) -> None:
    """One part; what it could not measure is in the list all the same, with the reason."""
    bench.report.say(f"--- {name}")
    try:
        await part(bench)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        for goal, (op, aim) in goals.items():
            if not bench.report.has(goal):
                bench.report.unmeasured(goal, op, aim, reason)
