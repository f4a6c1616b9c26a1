"""What a hit, a miss and an invalidation cost, beside the caches that Python programs use.

Owns: the processor time of one process on uvloop, no database and no feed; values are the loader's own argument.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.cache_kit import lone_cache, peer_program
from bench.jobs_kit import Bench, amount
from bench.jobs_peers import NotToBeHad
from bench.report import ratio
from handlers.cache import Cache
from pipeline.app import caching
from pipeline.core.events import Batch, Event

HIT = "hit of a decorated async function, us"
FASTER = "aiocache/ours, hit"
MANY = "10,000 entries of one tag invalidated, ms"
GOALS = {HIT: ("<=", 1.5), FASTER: (">=", 8.0), MANY: ("<=", 20.0)}
ENTRIES = 10_000
ROUND_SECONDS = 60.0
Costs = dict[str, float]


async def measure(bench: Bench) -> None:
    report = bench.report
    rounds, calls = amount(7, 3), amount(100_000, 40_000)
    own: list[Costs] = []
    peers: list[dict[str, Costs]] = []
    try:
        async with peer_program("cache_cost.py", str(calls)) as running:
            versions = await running.hear("ready", ROUND_SECONDS)
            for _ in range(rounds):
                own.append(await our_costs(calls))
                running.order("go")
                peers.append(await running.hear("costs", ROUND_SECONDS))
    except NotToBeHad as error:
        versions = {}
        report.peer("aiocache", None, str(error))
        own = [await our_costs(calls) for _ in range(rounds)]
    for what in ("hit", "miss", "invalidation"):
        report.figure(f"{what}, us", median(own, what))
        for name, number in versions.items():
            report.peer(f"{name} {number}, {what}, us", median([costs[name] for costs in peers], what))
    report.goal(HIT, median(own, "hit"), *GOALS[HIT], "with the await and the key made from its argument")
    if peers:
        theirs = [costs["aiocache"]["hit"] for costs in peers]
        report.goal(FASTER, ratio(theirs, [costs["hit"] for costs in own]), *GOALS[FASTER], "median of the rounds")
    else:
        report.unmeasured(FASTER, *GOALS[FASTER], "aiocache cannot be had")
    many = [await invalidated_at_once(ENTRIES) for _ in range(rounds)]
    report.goal(
        MANY, statistics.median(many), *GOALS[MANY], f"the loop stands still so long; worst {max(many):.1f}"
    )
    report.figure("100,000 entries of one tag invalidated, ms", await invalidated_at_once(10 * ENTRIES))


def median(rounds: list[Costs], what: str) -> float:
    return statistics.median(costs[what] for costs in rounds)


async def our_costs(calls: int) -> Costs:
    """Microseconds each, through `pipeline.cached`, as a program calls it."""
    cache = await lone_cache(max_bytes=1 << 30)
    caching.enter(cache)

    @caching.cached(ttl="10m", tags="orders:{order_id}")
    async def load(order_id: int) -> int:
        return order_id

    try:
        began = time.perf_counter()
        for order_id in range(calls // 10):
            await load(order_id)
        miss = (time.perf_counter() - began) / (calls // 10)
        began = time.perf_counter()
        for _ in range(calls):
            await load(1)
        hit = (time.perf_counter() - began) / calls
        changes = [Batch("e", n, n - 1, None, (change(str(n)),)) for n in range(calls // 10)]
        began = time.perf_counter()
        for batch in changes:
            cache.on_batch(batch)
        invalidation = (time.perf_counter() - began) / len(changes)
    finally:
        caching.leave(cache)
    if cache.status().entries:
        raise RuntimeError("the changes did not end every entry")
    return {"hit": hit * 1e6, "miss": miss * 1e6, "invalidation": invalidation * 1e6}


def change(key: str | None) -> Event:
    return Event(10, "orders", "u", None if key is None else (key,))


async def invalidated_at_once(entries: int) -> float:
    """Milliseconds that one change of a table takes that `entries` depend on."""
    cache = await lone_cache(max_bytes=1 << 30, max_entries=entries)
    await fill(cache, entries)
    began = time.perf_counter()
    cache.on_batch(Batch("e", 1, 0, None, (change(None),)))
    took = time.perf_counter() - began
    if cache.status().entries:
        raise RuntimeError("the change did not end every entry")
    return took * 1000


async def fill(cache: Cache, entries: int) -> None:
    async def load() -> dict[str, object]:
        return {"id": 1, "name": "somebody"}

    for first in range(0, entries, 1_000):
        loads = (cache.get_or_load(n, load, tags=f"orders:{n}") for n in range(first, first + 1_000))
        await asyncio.gather(*loads)
