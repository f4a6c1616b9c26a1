"""The writers of the freshness check: every way in which a row can be changed.

Owns: the transactions, and what is written down of each. Knows nothing of caches.

What a transaction wrote is noted as unknown before it commits and as committed once the server has said so; one
whose answer never came stays unknown, and either state may be read from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import asyncpg
import uvloop

from bench.crew import DOWN, die_with_parent
from bench.freshness_log import ABORTED, COMMITTED, KINDS, SHELF, UNKNOWN, Log, Write, raised

ITEMS, PAIRED, HELD, SHELVES = 360, 40, 48, 12
HOT_PAIRS, HOT_SINGLES = 4, 8
RAISE = "update item set version = ((version >> 24) + 1 << 24) | $2 where id = any($1::int[])"
PAUSES = {"fast": 0.012, "slow": 0.15, "hold": 0.2}  # mean seconds between two transactions

Connection: TypeAlias = "asyncpg.Connection[Any]"
Versions = dict[int, int]
Act: TypeAlias = "Callable[[Writer, Connection, int], Awaitable[Versions]]"


def hot(rng: Random) -> int:
    """A row of `item` that is no held one; most often one of a few."""
    if rng.random() < 0.7:
        place = rng.randrange(HOT_PAIRS * 2 + HOT_SINGLES)
        return place if place < HOT_PAIRS * 2 else HELD + place - HOT_PAIRS * 2
    return rng.choice((rng.randrange(PAIRED), rng.randrange(HELD, ITEMS)))


def whole(keys: Iterable[int]) -> list[int]:
    """The rows with their partners, in the order in which rows are locked."""
    wanted = set(keys)
    return sorted(wanted | {key ^ 1 for key in wanted if key < PAIRED})


class Writer:
    """Writes until its tasks are cancelled. number: which of the writing processes this is, from 1 to 15."""

    def __init__(self, dsn: str, log: Log, number: int, rng: Random) -> None:
        self.dsn = dsn
        self.log = log
        self.rng = rng
        self._tokens = number << 20 | rng.randrange(
            1 << 19
        )  # a successor of a process that was killed goes on elsewhere

    def token(self) -> int:
        """One that no transaction has had."""
        self._tokens += 1
        return self._tokens

    async def run(self, acts: dict[str, float], pace: str) -> None:
        """Transactions of these kinds, by their weights, on one connection after another."""
        while True:
            with contextlib.suppress(*DOWN):
                connection = await connect(self.dsn)
                try:
                    while True:
                        [kind] = self.rng.choices(list(acts), list(acts.values()))
                        await self.write(connection, kind)
                        await asyncio.sleep(self.rng.expovariate(1 / PAUSES[pace]))
                finally:
                    connection.terminate()
            await asyncio.sleep(0.1)

    async def write(self, connection: Connection, kind: str) -> tuple[int, Versions]:
        """One transaction; returns when it was acknowledged and what it wrote. Raises what the driver does."""
        began = time.monotonic_ns()
        token = self.token()
        async with contextlib.AsyncExitStack() as stack:
            if kind == "plain":  # as psql would: its own connection, simple statements
                connection = await stack.enter_async_context(_own_connection(self.dsn))
            await connection.execute("begin")
            try:
                versions = await ACTS[kind](self, connection, token)
            except DOWN:
                if not connection.is_closed():
                    await connection.execute("rollback")
                raise
            if any(key < PAIRED and key ^ 1 not in versions for key in versions):
                await connection.execute("rollback")  # a row was taken out and put back in between
                return time.monotonic_ns(), {}
            self.note(kind, UNKNOWN, versions, began)
            await connection.execute("rollback" if kind == "rollback" else "commit")
            self.note(kind, ABORTED if kind == "rollback" else COMMITTED, versions, began)
            return time.monotonic_ns(), versions

    def note(self, kind: str, outcome: int, versions: Versions, began: int) -> None:
        now = time.monotonic_ns()
        for key, version in versions.items():
            self.log.wrote(Write(outcome, key, version, began, now, KINDS.index(kind)))
        self.log.flush(force=True)


async def connect(dsn: str) -> Connection:
    settings = {"application_name": "writer", "lock_timeout": "8s"}
    return await asyncpg.connect(dsn, timeout=5, command_timeout=20, server_settings=settings)


@contextlib.asynccontextmanager
async def _own_connection(dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


async def _written(connection: Connection, keys: Iterable[int], token: int) -> Versions:
    """What this transaction has made of these rows."""
    rows = await connection.fetch("select id, version from item where id = any($1::int[])", list(keys))
    return {row["id"]: row["version"] for row in rows if row["version"] & (1 << 24) - 1 == token}


async def _update(connection: Connection, keys: list[int], token: int) -> Versions:
    await connection.fetch("select from item where id = any($1::int[]) order by id for update", keys)
    await connection.execute(RAISE, keys, token)
    return await _written(connection, keys, token)


async def single(writer: Writer, connection: Connection, token: int) -> Versions:
    upper = HELD + HOT_SINGLES if writer.rng.random() < 0.6 else ITEMS
    return await _update(connection, [writer.rng.randrange(HELD, upper)], token)


async def pair(writer: Writer, connection: Connection, token: int) -> Versions:
    """Two statements, so two events of one transaction."""
    first = hot(writer.rng) % PAIRED & ~1
    await _update(connection, [first], token)
    await asyncio.sleep(writer.rng.choice((0, 0, 0.01)))
    await _update(connection, [first + 1], token)
    return await _written(connection, (first, first + 1), token)


async def bulk(writer: Writer, connection: Connection, token: int) -> Versions:
    return await _update(connection, whole(hot(writer.rng) for _ in range(writer.rng.randrange(4, 40))), token)


async def everything(_writer: Writer, connection: Connection, token: int) -> Versions:
    """More rows than an event names, so it tells of the whole table."""
    return await _update(connection, [key for key in range(ITEMS) if not PAIRED <= key < HELD], token)


async def merge(writer: Writer, connection: Connection, token: int) -> Versions:
    keys = whole(hot(writer.rng) for _ in range(3))
    await connection.fetch("select from item where id = any($1::int[]) order by id for update", keys)
    await connection.execute(
        "merge into item i using (select unnest($1::int[]) as id) s on i.id = s.id"
        " when matched then update set version = ((i.version >> 24) + 1 << 24) | $2",
        keys,
        token,
    )
    return await _written(connection, keys, token)


async def copy(writer: Writer, connection: Connection, token: int) -> Versions:
    """Rows are taken out and copied in anew."""
    keys = whole(hot(writer.rng) for _ in range(4))
    await connection.fetch("select from item where id = any($1::int[]) order by id for update", keys)
    gone = await connection.fetch("delete from item where id = any($1::int[]) returning id, version", keys)
    versions = {row["id"]: raised(row["version"], token) for row in gone}
    await connection.copy_records_to_table("item", records=list(versions.items()))
    return versions


async def truncate(_writer: Writer, connection: Connection, token: int) -> Versions:
    await connection.execute("lock table shelf in access exclusive mode")
    rows = await connection.fetch("select id, version from shelf")
    versions = {row["id"]: raised(row["version"], token) for row in rows}
    await connection.execute("truncate shelf")
    await connection.copy_records_to_table("shelf", records=list(versions.items()))
    return {SHELF + key: version for key, version in versions.items()}


async def shelf(writer: Writer, connection: Connection, token: int) -> Versions:
    first = writer.rng.randrange(SHELVES) & ~1
    await connection.execute("lock table shelf in row exclusive mode")
    rows = await connection.fetch(
        "update shelf set version = ((version >> 24) + 1 << 24) | $2 where id = any($1::int[])"
        " returning id, version",
        [first, first + 1],
        token,
    )
    return {SHELF + row["id"]: row["version"] for row in rows}


async def hold(writer: Writer, connection: Connection, token: int) -> Versions:
    """A transaction that commits seconds after it wrote."""
    versions = await _update(connection, [writer.rng.randrange(PAIRED, HELD)], token)
    await asyncio.sleep(writer.rng.uniform(0.2, 3.5))
    return versions


async def plain(writer: Writer, connection: Connection, token: int) -> Versions:
    keys = whole([hot(writer.rng)])
    listed = ",".join(map(str, keys))
    await connection.execute(
        f"select from item where id in ({listed}) order by id for update;"
        "savepoint a; update item set version = version + (9 << 24) where false; rollback to a;"
        f"update item set version = ((version >> 24) + 1 << 24) | {token} where id in ({listed})"
    )
    return await _written(connection, keys, token)


ACTS: dict[str, Act] = {
    "single": single, "pair": pair, "bulk": bulk, "all": everything, "merge": merge, "copy": copy,
    "truncate": truncate, "shelf": shelf, "hold": hold, "rollback": bulk, "plain": plain, "own": single,
}  # fmt: skip
MIXES: list[tuple[str, dict[str, float]]] = [
    ("fast", {"single": 6, "pair": 6, "bulk": 0.4, "rollback": 0.5, "merge": 1}),
    ("fast", {"single": 6, "pair": 6, "merge": 1, "copy": 1, "shelf": 0.5}),
    ("slow", {"bulk": 2, "all": 1, "truncate": 3, "copy": 2, "plain": 2, "rollback": 1}),
    ("hold", {"hold": 1}),
    ("hold", {"hold": 1}),
]


def write(name: str, dsn: str, directory: str, number: int, seed: int) -> None:
    """A writing process, until SIGTERM."""
    die_with_parent()
    log = Log(Path(directory) / f"{name.replace(' ', '-')}-{os.getpid()}.bin")
    writer = Writer(dsn, log, number, Random(seed))
    uvloop.run(_until_told([writer.run(acts, pace) for pace, acts in MIXES]))
    log.flush(force=True)


async def _until_told(loops: list[Any]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = [asyncio.create_task(loop) for loop in loops]
    stopped = asyncio.create_task(stop.wait())
    done, _waiting = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done - {stopped}:
        task.result()
