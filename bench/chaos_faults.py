"""What goes wrong in the chaos check.

Owns: each fault, its rhythm, and how often it struck. Knows neither jobs nor checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any

import asyncpg
import msgspec

from bench.chaos_worker import DEAD_SECONDS
from bench.crew import DOWN, Crew
from pipeline.embedded import EmbeddedServer

HARNESS = "chaos harness"
SPARE_SECONDS = 2.0  # what a woken worker has for its late writes
VICTIM = """
select pg_terminate_backend(a.pid), a.application_name
from pg_stat_activity a
where a.datname = current_database() and a.backend_type = 'client backend' and a.application_name <> $1
order by random() limit 1
"""
BUSY = """
select w.name from chaos.start s
join pipeline.job j on j.id = s.job and j.task = 'chaos.long'
join pipeline.lease l on l.id = s.lease
join pipeline.worker w on w.id = l.worker
where s.at > clock_timestamp() - interval '0.7 seconds'
"""


class Rhythm(msgspec.Struct, frozen=True):
    """Seconds between two faults of a kind; frozen: how long a worker is stopped."""

    kill: float = 1.0
    freeze: float = 6.0
    frozen: float = DEAD_SECONDS * 4 / 3 + 1.0  # others look three times as often
    restart: float = 45.0
    terminate: float = 2.0
    producer: float = 5.0


class Faults:
    """Strikes until its tasks are cancelled. struck: how often each fault did. outages: when the server was away,
    on the wall clock."""

    def __init__(
        self,
        server: EmbeddedServer,
        dsn: str,
        workers: Crew,
        producers: Sequence[Crew],
        rhythm: Rhythm,
        rng: Random,
    ) -> None:
        self.struck: Counter[str] = Counter()
        self.outages: list[tuple[float, float]] = []
        self._server = server
        self._dsn = dsn
        self._workers = workers
        self._producers = producers
        self._rhythm = rhythm
        self._rng = rng
        self._up = asyncio.Lock()

    async def strike(self, seconds: float) -> None:
        """All faults for so long; then everything goes on undisturbed."""
        rhythm = self._rhythm
        faults: list[Coroutine[Any, Any, None]] = [
            self._every(rhythm.kill, self._kill),
            self._every(rhythm.freeze, self._freeze),
            self._every(rhythm.restart, self._restart),
            self._every(rhythm.terminate, self._terminate),
            self._every(rhythm.producer, self._kill_producer),
            self.hold_snapshot(),
        ]
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for fault in faults:
                    group.create_task(fault)
        except TimeoutError:
            pass
        finally:
            for member in self._workers.members:
                if member.stopped:
                    self._workers.wake(member)
        async with self._up:  # a restart that is under way
            await asyncio.to_thread(self._server.start)

    async def hold_snapshot(self) -> None:
        """A transaction that has seen everything, and goes on seeing it; a new one after each crash."""
        while True:
            with contextlib.suppress(*DOWN):
                connection = await asyncpg.connect(self._dsn, server_settings={"application_name": HARNESS})
                try:
                    await connection.execute("begin isolation level repeatable read")
                    await connection.fetchval("select count(*) from pipeline.job")
                    self.struck["snapshots held open"] += 1
                    while True:
                        await asyncio.sleep(0.5)
                        await connection.fetchval("select 1")
                finally:
                    connection.terminate()
            await asyncio.sleep(0.2)

    async def _every(self, seconds: float, fault: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            with contextlib.suppress(*DOWN):
                await fault()

    async def _kill(self) -> None:
        if member := self._workers.pick(self._rng):
            self._workers.kill(member)
            self.struck["workers killed"] += 1

    async def _freeze(self) -> None:
        """One at a time, for longer than a lease holds and others need to notice; if it can be had, one that runs
        a long job, which then has much to say too late."""
        connection = await asyncpg.connect(self._dsn, timeout=5, server_settings={"application_name": HARNESS})
        try:
            for _ in range(60):
                busy = {row["name"] for row in await connection.fetch(BUSY)}
                if busy and self._workers.pick(self._rng, busy):
                    break
                await asyncio.sleep(0.05)
        finally:
            connection.terminate()
        if member := self._workers.pick(self._rng, busy) or self._workers.pick(self._rng):
            self._workers.freeze(member)
            self.struck["workers stopped past their lease"] += 1
            await asyncio.sleep(self._rhythm.frozen)
            self._workers.wake(member, SPARE_SECONDS)

    async def _restart(self) -> None:
        async with self._up:
            since = time.time()
            await asyncio.shield(asyncio.to_thread(self._crash))
            self.outages.append((since, time.time()))
        self.struck["servers crashed"] += 1

    def _crash(self) -> None:
        self._server.stop("immediate")
        self._server.start()

    async def _terminate(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=5, server_settings={"application_name": HARNESS})
        try:
            if await connection.fetchrow(VICTIM, HARNESS):
                self.struck["connections terminated"] += 1
        finally:
            connection.terminate()

    async def _kill_producer(self) -> None:
        """While it is within a transaction, if it ever is."""
        connection = await asyncpg.connect(self._dsn, timeout=5, server_settings={"application_name": HARNESS})
        try:
            for _ in range(100):
                names = await connection.fetch(
                    "select application_name as name from pg_stat_activity"
                    " where application_name like 'producer%' and backend_xid is not null"
                )
                inside = {row["name"] for row in names}
                for crew in self._producers:
                    for member in crew.members:
                        if member.name in inside:
                            crew.kill(member)
                            self.struck["producers killed in a transaction"] += 1
                            return
                await asyncio.sleep(0.02)
        finally:
            connection.terminate()
