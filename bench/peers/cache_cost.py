"""What a hit, a miss and an invalidation cost elsewhere, in microseconds, one round for each line of input.

Usage: python cache_cost.py CALLS. Each holds what it is asked for; keys are one integer argument.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import aiocache
import cachebox
import cachetools
import cashews
import uvloop

Costs = dict[str, float]


async def timed(call: Callable[[int], Awaitable[object]], keys: range) -> float:
    began = time.perf_counter()
    for key in keys:
        await call(key)
    return (time.perf_counter() - began) / len(keys) * 1e6


def timed_plainly(call: Callable[[int], object], keys: range) -> float:
    began = time.perf_counter()
    for key in keys:
        call(key)
    return (time.perf_counter() - began) / len(keys) * 1e6


async def hits_of(call: Callable[[int], Awaitable[object]], times: int) -> float:
    await call(1)
    began = time.perf_counter()
    for _ in range(times):
        await call(1)
    return (time.perf_counter() - began) / times * 1e6


async def of_cashews(calls: int) -> Costs:
    cache = cashews.Cache()
    cache.setup("mem://?size=100000")

    @cache(ttl="10m", key="order:{order_id}", tags=["orders:{order_id}"])
    async def load(order_id: int) -> int:
        return order_id

    async def invalidate(order_id: int) -> None:
        await cache.delete_tags(f"orders:{order_id}")

    keys = range(calls // 20)
    miss = await timed(load, keys)
    return {"hit": await hits_of(load, calls // 10), "miss": miss, "invalidation": await timed(invalidate, keys)}


async def of_aiocache(calls: int) -> Costs:
    @aiocache.cached(ttl=600, key_builder=lambda _call, order_id: f"order:{order_id}")
    async def keyed(order_id: int) -> int:
        return order_id

    @aiocache.cached(ttl=600)
    async def load(order_id: int) -> int:
        return order_id

    async def invalidate(order_id: int) -> None:
        await keyed.cache.delete(f"order:{order_id}")  # type: ignore[attr-defined]

    keys = range(calls // 10)
    miss = await timed(keyed, keys)
    invalidation = await timed(invalidate, keys)
    return {"hit": await hits_of(load, calls // 5), "miss": miss, "invalidation": invalidation}


async def of_cachetools(calls: int) -> Costs:
    cache: cachetools.TTLCache[object, int] = cachetools.TTLCache(100_000, 600)

    @cachetools.cached(cache)
    def load(order_id: int) -> int:
        return order_id

    miss = timed_plainly(load, range(calls))
    began = time.perf_counter()
    for _ in range(calls):
        load(1)
    hit = (time.perf_counter() - began) / calls * 1e6
    invalidation = timed_plainly(lambda key: cache.pop(cachetools.keys.hashkey(key)), range(calls))
    return {"hit": hit, "miss": miss, "invalidation": invalidation}


async def of_cachebox(calls: int) -> Costs:
    cache: cachebox.LRUCache[int, int] = cachebox.LRUCache(100_000)
    miss = timed_plainly(lambda key: cache.insert(key, key), range(calls))
    get = cache.get
    began = time.perf_counter()
    for _ in range(calls):
        get(1)
    hit = (time.perf_counter() - began) / calls * 1e6
    return {"hit": hit, "miss": miss, "invalidation": timed_plainly(cache.pop, range(calls))}


PEERS = {"cashews": of_cashews, "aiocache": of_aiocache, "cachetools": of_cachetools, "cachebox": of_cachebox}


async def main() -> None:
    calls = int(sys.argv[1])
    print(json.dumps({"ready": {name: version(name) for name in PEERS}}), flush=True)
    for _line in sys.stdin:
        print(json.dumps({"costs": {name: await cost(calls) for name, cost in PEERS.items()}}), flush=True)


uvloop.run(main())
