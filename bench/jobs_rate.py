"""How many jobs a second: our worker, the classical queue, the peers, four workers, limits.

Owns: which runs make a round, and the goals over them. Each round has every contestant once, side by side in time.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Awaitable, Callable

from bench import jobs_classical, jobs_peers
from bench.jobs_child import module
from bench.jobs_kit import SLOTS, Bench, amount, archived_rate, execute, fetchval, fill, our_rate, run_all, workers
from bench.jobs_peers import Peer
from bench.report import ratio

ROUNDS = amount(5, 1)
OURS = amount(150_000, 20_000)
CLASSICAL = amount(100_000, 20_000)
CLASSICAL_BATCH = 1_000
CLASSICAL_CONNECTIONS = 4
LIMITED = ("concurrency limit", "rate limit")
SET_LIMIT = {
    "concurrency limit": "select pipeline.set_queue('default', concurrency => 1000000)",
    "rate limit": "select pipeline.set_queue('default', rate => 1000000000)",
}
NO_LIMITS = "this version has no pipeline.set_queue"

GOALS = {
    "ours/graphile-worker": (">=", 3.0),
    "ours/classical": (">=", 1.5),
    "four workers/one": (">=", 1.0),
    "with a concurrency limit/without": (">=", 0.8),
    "with a rate limit/without": (">=", 0.8),
}
PART_OF = {
    "ours/graphile-worker": "peers",
    "ours/classical": "classical",
    "four workers/one": "four",
    "with a concurrency limit/without": "limits",
    "with a rate limit/without": "limits",
}
CONTESTANTS = ("ours", "classical", "four", "limits", "peers")
Run = Callable[[], Awaitable[float]]
Rates = dict[str, list[float]]


async def measure(bench: Bench, wanted: set[str]) -> None:
    """Run the rounds; `wanted` is a part of CONTESTANTS."""
    runs: dict[str, Run] = {"ours": lambda: ours(bench)}
    if "classical" in wanted:
        runs["classical"] = lambda: classical(bench)
    if "four" in wanted:
        runs["four workers"] = lambda: ours(bench, workers=4)
    if "limits" in wanted and await has_limits(bench):
        for name in LIMITED:
            runs[name] = lambda name=name: ours(bench, prepare=SET_LIMIT[name])  # type: ignore[misc]
    found = jobs_peers.available(bench) if "peers" in wanted else []
    async with jobs_peers.redis(found) as port:
        for peer in found:
            if not peer.absent:
                runs[peer.label] = lambda peer=peer: jobs_peers.rate(bench, peer, port)  # type: ignore[misc]
        rates = await rounds(bench, runs)
    conclude(bench, wanted, rates, found)


async def rounds(bench: Bench, runs: dict[str, Run]) -> Rates:
    """Jobs a second of each run in each round; one that failed once is not tried again."""
    rates: Rates = defaultdict(list)
    for _round in range(ROUNDS):
        for name, run in list(runs.items()):
            try:
                rates[name].append(await run())
            except Exception as error:
                if name == "ours":
                    raise
                bench.report.say(f"{name} failed: {error}")
                del runs[name]
                rates[name] = []
                continue
            bench.report.say(f"{name:24} {rates[name][-1]:10,.0f} jobs/s")
    return rates


def conclude(bench: Bench, wanted: set[str], rates: Rates, peers: list[Peer]) -> None:
    report = bench.report
    detail = f"median of {ROUNDS} rounds, {OURS:,} jobs, one process, {SLOTS} at a time"
    for name in ("ours", "classical", "four workers", *LIMITED):
        if rates.get(name):
            report.figure(f"{name}, jobs/s", statistics.median(rates[name]))
    for peer in peers:
        found = rates.get(peer.label)
        reason = peer.absent or "it failed; see above"
        report.peer(peer.label, statistics.median(found) if found else None, reason)
    graphile = next((peer.label for peer in peers if peer.name == "graphile-worker"), "graphile-worker")
    pairs = {
        "ours/graphile-worker": ("ours", graphile),
        "ours/classical": ("ours", "classical"),
        "four workers/one": ("four workers", "ours"),
        "with a concurrency limit/without": ("concurrency limit", "ours"),
        "with a rate limit/without": ("rate limit", "ours"),
    }
    for goal, (one, other) in pairs.items():
        if PART_OF[goal] in wanted:
            missing = [name for name in (one, other) if not rates.get(name)]
            if missing:
                why = NO_LIMITS if missing[0] in LIMITED else f"no rate of {missing[0]}"
                report.unmeasured(goal, *GOALS[goal], why)
            else:
                report.goal(goal, ratio(rates[one], rates[other]), *GOALS[goal], detail)


async def ours(bench: Bench, workers: int = 1, prepare: str = "") -> float:
    """Our own workers over jobs that wait already. prepare: a statement before them."""
    async with bench.database("ours") as dsn:
        if prepare:
            await execute(dsn, prepare)
        await fill(dsn, OURS)
        return await our_rate(dsn, OURS, workers)


async def classical(bench: Bench) -> float:
    async with bench.database("classical", "template1") as dsn:
        await jobs_classical.create(dsn)
        await jobs_classical.fill(dsn, CLASSICAL)
        argv = module("jobs_classical", dsn, str(CLASSICAL_BATCH), str(CLASSICAL_CONNECTIONS))
        async with workers("classical", argv) as children:
            await run_all(children, CLASSICAL)
        return await archived_rate(dsn, CLASSICAL, "queue_archive")


async def has_limits(bench: Bench) -> bool:
    """Whether a limit of a queue can be set in this version."""
    async with bench.database("limits") as dsn:
        query = (
            "select count(*) from pg_proc where pronamespace = 'pipeline'::regnamespace and proname = 'set_queue'"
        )
        return bool(await fetchval(dsn, query))
