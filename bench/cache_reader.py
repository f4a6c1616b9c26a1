"""A process of the cache benchmark: `python -m bench.cache_reader WAY DSN AMOUNT`.

Owns: what each way does. direct, cached: AMOUNT reads by Zipf, a write for every WRITE_EVERY of them, past the
cache or through it. evicted: holds AMOUNT entries and notes when each is gone. writing: AMOUNT writes a second to
rows that nobody holds.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import uvloop

from bench.cache_traces import zipf
from bench.jobs_child import orders, tell
from pipeline.app.client import Client
from pipeline.core.events import Batch
from pipeline.core.snapshot import Snapshot

ROWS = 2_000
WRITE_EVERY = 200
READ = "select id, state, total, note from orders where id = $1"
WRITE = "update orders set total = total + 1 where id = $1"
Read = Callable[[int], Awaitable[Any]]


async def run(read: Read, write: Read, reads: int) -> float:
    """Seconds for the reads, one after the other."""
    rng = random.Random()
    keys = zipf(rng, 1.0, reads, ROWS)
    began = time.perf_counter()
    for n, key in enumerate(keys):
        await read(key + 1)
        if n % WRITE_EVERY == 0:
            await write(rng.choice(keys) + 1)
    return time.perf_counter() - began


async def direct(dsn: str, reads: int) -> None:
    lines = await orders()
    connection = await asyncpg.connect(dsn)
    tell(ready=True)
    await lines.readline()
    seconds = await run(
        lambda key: connection.fetchrow(READ, key), lambda key: connection.execute(WRITE, key), reads
    )
    tell(told={"reads": reads, "seconds": seconds})
    await connection.close()


async def cached(dsn: str, reads: int) -> None:
    lines = await orders()
    connection = await asyncpg.connect(dsn)
    async with Client(dsn) as client:
        await proved(client)

        def read(key: int) -> Awaitable[Any]:
            return client.cache.query(READ, key, tags=f"orders:{key}", ttl="1h")

        for first in range(1, ROWS, 100):
            await asyncio.gather(*map(read, range(first, first + 100)))
        tell(ready=True)
        await lines.readline()
        before = client.cache.status()
        seconds = await run(read, lambda key: connection.execute(WRITE, key), reads)
        after = client.cache.status()
    hits, misses, bypassed = (
        getattr(after, name) - getattr(before, name) for name in ("hits_total", "misses_total", "bypassed_total")
    )
    tell(told={"reads": reads, "seconds": seconds, "hits": hits, "asked": hits + misses + bypassed})
    await connection.close()


class Watcher:
    """Hears the feed after the cache, and notes when each entry was found gone."""

    def __init__(self) -> None:
        self.entries: dict[Any, Any] = {}
        self.ended: dict[int, float] = {}

    def on_batch(self, batch: Batch) -> None:
        now = time.monotonic()
        for event in batch.events:
            for key in map(int, event.keys or ()):
                if key not in self.entries:
                    self.ended.setdefault(key, now)

    def on_position(self, _position: Snapshot) -> None: ...

    def on_flush(self, _reason: str) -> None: ...

    def on_down(self, _reason: str) -> None: ...


async def evicted(dsn: str, entries: int) -> None:
    lines = await orders()
    watcher = Watcher()
    async with Client(dsn, sinks=(watcher,)) as client:
        await proved(client)
        watcher.entries = client.cache.core.store.entries
        for key in range(1, entries + 1):
            await client.cache.get_or_load(key, plain, tags=f"orders:{key}")
        tell(ready=True)
        await lines.read()
        tell(ended=list(watcher.ended.items()))


async def plain() -> int:
    return 1


async def writing(dsn: str, per_second: int) -> None:
    lines = await orders()
    connection = await asyncpg.connect(dsn)
    rng = random.Random()
    tell(ready=True)
    await lines.readline()
    over = asyncio.create_task(lines.read())
    began, done = time.monotonic(), 0
    while not over.done():
        if done < (time.monotonic() - began) * per_second:
            await connection.execute(WRITE, rng.randrange(ROWS // 2, ROWS))
            done += 1
        else:
            await asyncio.sleep(0.5 / per_second)
    await connection.close()


async def proved(client: Client) -> None:
    async with asyncio.timeout(30):
        while not client.cache.healthy().ok:
            await asyncio.sleep(0.02)


WAYS = {"direct": direct, "cached": cached, "evicted": evicted, "writing": writing}

if __name__ == "__main__":
    uvloop.run(WAYS[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
