"""A reading process of the freshness check: an application that caches, seen from inside.

Owns: the ways to read, how often each is used, and what is written down of each read. Judges nothing.

Loaders are an application's own code, with its own pool: their errors are the driver's. Whatever else a read
raises must be one of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import uvloop

from bench import freshness_bugs
from bench.crew import DOWN, die_with_parent, log_to
from bench.freshness_log import ABSENT, COMMITTED, SHELF, UNKNOWN, VIEWS, Log, Own, Torn, token
from bench.freshness_writer import ACTS, HELD, PAIRED, SHELVES, Versions, Writer, hot, whole
from handlers.cache_seams import Loaded
from pipeline.app.client import Client
from pipeline.core.snapshot import Snapshot
from pipeline.errors import PgreflexError
from pipeline.feed import follower, pump

CACHED, QUERY, LOADED, SLOW, OLD, WHOLE, SHARED, SNAPSHOT, NESTED = range(len(VIEWS))
MIX = {CACHED: 10, QUERY: 8, LOADED: 6, NESTED: 2, WHOLE: 3, OLD: 3, SHARED: 4}
SLOW_ROWS = (HELD, HELD + 1, HELD + 100, HELD + 101)  # two that are often written and two that are not
ONE = "select version from item where id = $1"
SHELF_ROW = "select version from shelf where id = $1"
CHOSEN, ROUNDS = 12, 8  # a task reads a dozen things several times, with a short pause after each round
PAUSE_SECONDS = 0.002
READERS = 4  # tasks that read

View = Callable[[int], Awaitable[Any]]


def tighten() -> None:
    """Bounds so narrow that what overflows once in a month overflows every few seconds."""
    follower.MOST_HEARD = 40
    pump.TURN_SECONDS = 4.0
    pump.READ_LIMIT = 500


class Reader:
    """Reads through one client and writes down what it saw."""

    def __init__(self, client: Client, pool: asyncpg.Pool[Any], log: Log, writer: Writer, rng: Random) -> None:
        self.client = client
        self.pool = pool
        self.log = log
        self.writer = writer
        self.rng = rng
        self.loaded: dict[tuple[int, int], int] = {}  # when the last load of a view and key began
        cached = client.cache.cached(tags="item:{key}")(self._item)
        nested = client.cache.cached(tags=None)(self._pair)
        self.cached: View = cached
        self.views: dict[int, View] = {
            CACHED: cached,
            QUERY: self._query,
            LOADED: self._get_or_load,
            SLOW: self._slowly,
            OLD: self._aged,
            WHOLE: self._whole,
            NESTED: nested,
            SHARED: self._shared,
        }

    async def read(self, view: int, key: int) -> None:
        """One read, written down."""
        invoke = time.monotonic_ns()
        try:
            value = await self.views[view](key)
        except PgreflexError as error:
            self.log.note(f"error {error.code}")
            await asyncio.sleep(0.05)
        except DOWN as error:
            name = type(error).__name__
            self.log.note(f"{'FOREIGN' if view in (QUERY, WHOLE) else 'loader'} {name}")
            await asyncio.sleep(0.05)
        except Exception as error:  # nothing else may come out of a cache
            self.log.note(f"FOREIGN {type(error).__name__}")
            raise
        else:
            self.saw(view, key, value, invoke)

    def saw(self, view: int, key: int, value: Any, invoke: int) -> None:
        """Write down a read; one of several rows counts once, and its pairs must be whole if it is consistent."""
        returned = time.monotonic_ns()
        loaded = self.loaded.get((view, key), 0) >= invoke
        if not isinstance(value, dict):
            self.log.read(view, key, value, invoke, returned, loaded=loaded, count=1)
            return
        for place, (one, version) in enumerate(value.items()):
            self.log.read(view, one, version, invoke, returned, loaded=loaded, count=int(place == 0))
            partner = value.get(one ^ 1)
            paired = not one & 1 and (one < PAIRED or one >= SHELF) and view != NESTED
            if paired and partner is not None and token(version) != token(partner):
                self.log.torn(Torn(view, one, version, partner, invoke, returned))

    def _loads(self, view: int, key: int) -> None:
        self.loaded[view, key] = time.monotonic_ns()

    async def _version(self, key: int) -> int:
        return await self.pool.fetchval(ONE, key) or ABSENT

    async def _with_snapshot(self, key: int) -> Loaded:
        async with self.pool.acquire() as connection:
            snapshot = Snapshot.parse(await connection.fetchval("select pg_current_snapshot()::text"))
            return Loaded(await connection.fetchval(ONE, key) or ABSENT, snapshot)

    async def _item(self, key: int) -> int:
        self._loads(CACHED, key)
        version = await self._version(key)
        if self.rng.random() < 0.3:
            await asyncio.sleep(self.rng.random() * 0.05)  # what an application does with what it has read
        return version

    async def _pair(self, key: int) -> dict[int, int]:
        """A value made of two cached ones."""
        self._loads(NESTED, key)
        return {one: await self.cached(one) for one in (key, key ^ 1)}

    async def _query(self, key: int) -> int:
        if key < SHELF:
            rows = await self.client.cache.query(ONE, key, tags=f"item:{key}", ttl=30)
        else:
            rows = await self.client.cache.query(SHELF_ROW, key - SHELF, tags=f"shelf:{key - SHELF}")
        return rows[0]["version"] if rows else ABSENT

    async def _shared(self, key: int) -> int:
        """What every process finds in the second level, if there is one."""
        rows = await self.client.cache.query(
            ONE + " -- shared", key, tags=f"item:{key}", namespace="shared", shared=True
        )
        return rows[0]["version"] if rows else ABSENT

    async def _whole(self, _key: int) -> dict[int, int]:
        rows = await self.client.cache.query("select id, version from shelf order by id", tags="shelf")
        return {SHELF + key: ABSENT for key in range(SHELVES)} | {SHELF + r["id"]: r["version"] for r in rows}

    async def _get_or_load(self, key: int) -> int:
        async def load() -> Loaded:
            self._loads(LOADED, key)
            return await self._with_snapshot(key)

        return int(await self.client.cache.get_or_load((LOADED, key), load, tags=f"item:{key}", ttl="5m"))

    async def _slowly(self, key: int) -> int:
        """A loader that goes on for long after it has read."""

        async def load() -> int:
            self._loads(SLOW, key)
            version = await self._version(key)
            await asyncio.sleep(self.rng.choice((0.05, 0.3, 1.2, 2.0)))
            return version

        return int(await self.client.cache.get_or_load((SLOW, key), load, tags=f"item:{key}"))

    async def _aged(self, key: int) -> int:
        async def load() -> Loaded:
            self._loads(OLD, key)
            return await self._with_snapshot(key)

        return int(await self.client.cache.get_or_load((OLD, key), load, tags=f"item:{key}"))

    def choose(self) -> tuple[int, int]:
        [view] = self.rng.choices(list(MIX), list(MIX.values()))
        if view == WHOLE:
            return (WHOLE, SHELF) if self.rng.random() < 0.6 else (QUERY, SHELF + self.rng.randrange(SHELVES))
        if view == NESTED:
            return NESTED, hot(self.rng) % PAIRED & ~1
        return view, self.rng.randrange(PAIRED, HELD) if self.rng.random() < 0.1 else hot(self.rng)

    async def keep_reading(self) -> None:
        while True:
            chosen = [self.choose() for _ in range(CHOSEN)]
            for _ in range(ROUNDS):
                for view, key in chosen:
                    await self.read(view, key)
                await asyncio.sleep(self.rng.random() * 2 * PAUSE_SECONDS)
            self.log.flush()

    async def wait_for_slow(self) -> None:
        """Whoever reads what loads slowly waits for it, so it has tasks of its own."""
        while True:
            await self.read(SLOW, self.rng.choice(SLOW_ROWS))
            await asyncio.sleep(self.rng.random() * 0.02)

    async def fill_from_the_past(self) -> None:
        """A long transaction that reads through the cache what is no longer so; its own reads are not judged."""
        while True:
            with contextlib.suppress(*DOWN, PgreflexError):
                async with self.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
                    snapshot = Snapshot.parse(await connection.fetchval("select pg_current_snapshot()::text"))
                    await asyncio.sleep(self.rng.uniform(0.1, 3.0))
                    for _ in range(8):
                        await self._fill(connection, snapshot, hot(self.rng))
            await asyncio.sleep(self.rng.random() * 0.1)

    async def _fill(self, connection: Any, snapshot: Snapshot, key: int) -> None:
        async def load() -> Loaded:
            version = await connection.fetchval(ONE, key) or ABSENT
            await asyncio.sleep(0.01)
            return Loaded(version, snapshot)

        await self.client.cache.get_or_load((OLD, key), load, tags=f"item:{key}")

    async def write_and_read(self) -> None:
        """Write, and see it at once in this process, whichever way it is read."""
        while True:
            with contextlib.suppress(*DOWN, PgreflexError):
                async with self.pool.acquire() as connection:
                    while True:
                        await self._write_and_read(connection)
                        await asyncio.sleep(self.rng.expovariate(1 / 0.15))
            await asyncio.sleep(0.1)

    async def _write_and_read(self, connection: Any) -> None:
        if self.rng.random() < 0.5:
            versions = await self._write_in_transaction()
        else:
            _acked, versions = await self.writer.write(connection, "own")
            await self.client.cache.invalidate([f"item:{key}" for key in versions])
        now = time.monotonic_ns()
        for key, version in versions.items():
            self.log.own(Own(key, version, now))
            for view in (CACHED, QUERY, LOADED, OLD, SHARED):
                await self.read(view, key)

    async def _write_in_transaction(self) -> Versions:
        """A transaction that tells the cache of this process by itself."""
        began = time.monotonic_ns()
        async with self.client.transaction() as connection:
            versions = await ACTS["own"](self.writer, connection, self.writer.token())
            self.writer.note("own", UNKNOWN, versions, began)
        self.writer.note("own", COMMITTED, versions, began)
        return versions

    async def read_states(self) -> None:
        """Pairs, and a few others, of one state."""
        while True:
            invoke = time.monotonic_ns()
            seen: dict[int, int] = {}
            try:
                async with self.client.cache.snapshot():
                    for key in whole(hot(self.rng) for _ in range(self.rng.randrange(1, 5))):
                        seen[key] = await self._query(key)
                        await asyncio.sleep(self.rng.choice((0, 0, 0.02)))
            except PgreflexError as error:
                self.log.note(f"error {error.code}")
            except Exception as error:
                self.log.note(f"FOREIGN {type(error).__name__}")
                raise
            else:
                self.saw(SNAPSHOT, -1, seen, invoke)
            await asyncio.sleep(self.rng.random() * 0.1)

    def loops(self) -> list[Awaitable[None]]:
        return [
            *(self.keep_reading() for _ in range(READERS)),
            *(self.wait_for_slow() for _ in range(3)),
            self.fill_from_the_past(),
            self.write_and_read(),
            self.read_states(),
        ]


def read(
    name: str, dsn: str, listen_dsn: str, directory: str, number: int, seed: int, bug: str, pumps: bool = True
) -> None:
    """A reading process, until SIGTERM. number 0: one that only pumps. bug: one of freshness_bugs, or nothing."""
    die_with_parent()
    log_to(str(Path(directory) / "log"), name)
    tighten()
    if bug:
        freshness_bugs.install(bug)
    path = Path(directory) / f"{name.replace(' ', '-')}-{os.getpid()}.bin"
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(_serve(name, dsn, listen_dsn, path, number, Random(seed + os.getpid()), pumps))


async def _serve(name: str, dsn: str, listen_dsn: str, path: Path, number: int, rng: Random, pumps: bool) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = Client(dsn, listen_dsn=listen_dsn, pump=pumps)
    while not await _opened(client):
        await asyncio.sleep(0.1)
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=12, command_timeout=10, timeout=5)
    log = Log(path)
    reader = Reader(client, pool, log, Writer(dsn, log, number, rng), rng)
    loops = [_tell_leader(client, path.parent / "leader", name), *(reader.loops() if number else [])]
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    stopped = asyncio.create_task(stop.wait())
    done, _waiting = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for what, count in _figures(client).items():
        log.note(what, count)
    log.flush(force=True)
    for task in done - {stopped}:
        task.result()
    with contextlib.suppress(*DOWN, PgreflexError):
        async with asyncio.timeout(2):
            await client.close()
    os._exit(0)  # what is still under way is of no interest, and may wait for a server that is gone


def _figures(client: Client) -> dict[str, int]:
    status = client.cache.status()
    return {
        "flushes": status.flushes_total,
        "refused fills": status.refused_fills_total,
        "entries dropped": status.invalidations_total,
        "requests that bypassed": status.bypassed_total,
    }


async def _opened(client: Client) -> bool:
    try:
        await client.open()
    except PgreflexError:
        return False
    return True


async def _tell_leader(client: Client, path: Path, name: str) -> None:
    """Leave the name of the process that pumps where the faults find it."""
    while True:
        if client.pump.leading:
            path.write_text(name)
        await asyncio.sleep(0.1)
