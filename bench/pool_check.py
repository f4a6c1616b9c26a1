"""Whether the pool keeps its word while everything goes wrong. `make check-pool`; BENCH=quick ends within 30 s.

Owns: 200 clients on a pool of 10, and what is done to them: some are cancelled, give up soon, leave transactions
open, fail, or never return what they took; connections are ended, and the server is killed and started again.

Who is served out of turn is seen from outside: each client takes a number when it asks, and is served out of turn
if one with a lower number still waits.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

import pipeline
from bench.jobs_kit import amount
from bench.report import Report
from pipeline.app.daemon import resident_bytes
from pipeline.db.pool import Pool
from pipeline.embedded import EmbeddedServer
from pipeline.errors import PoolExhausted, PoolUnreachable

CLIENTS, SIZE, PATIENCE = 200, 10, 5.0
STORM_SECONDS, RESTARTS_SECONDS = amount(30, 6), amount(20, 6)
HOLD_SECONDS = PATIENCE + 2
GONE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Turns:
    """Numbers for those who ask."""

    def __init__(self) -> None:
        self.served = 0
        self.out_of_turn = 0
        self._next = 0
        self._asking: dict[int, None] = {}

    async def acquire(self, pool: Pool, **options: Any) -> Any:
        self._next += 1
        mine = self._next
        self._asking[mine] = None
        try:
            lent = await pool.acquire(**options)
            self.served += 1
            self.out_of_turn += next(iter(self._asking)) != mine
            return lent
        finally:
            del self._asking[mine]


class Check:
    """One run. rng: for what happens to whom."""

    def __init__(self, server: EmbeddedServer, report: Report) -> None:
        self.server = server
        self.report = report
        self.rng = random.Random(7)
        self.turns = Turns()
        self.happened: Counter[str] = Counter()

    async def run(self) -> None:
        async with pipeline.create_pool(self.server.dsn, name="check", max_size=SIZE, leak_after=None) as pool:
            await pool.fetchval("select 1")
            loops_tasks, memory = len(asyncio.all_tasks()), resident_bytes() or 0
            await self.storm(pool)
            await self.exhaust(pool)
            await self.restarts(pool)
            await self.left(pool, loops_tasks, memory)

    async def storm(self, pool: Pool) -> None:
        """Every kind of client at once."""
        self.report.say(f"{CLIENTS} clients of every kind for {STORM_SECONDS} s")
        async with asyncio.timeout(STORM_SECONDS + 60):
            killer = asyncio.create_task(self.kill(pool))
            end = asyncio.get_running_loop().time() + STORM_SECONDS
            await asyncio.gather(*(self.erratic(pool, end) for _ in range(CLIENTS)))
            killer.cancel()
        stats = pool.stats()
        self.happened.update({"rolled back": stats.rolled_back_total, "reclaimed": stats.reclaimed_total})
        for what, times in sorted(self.happened.items()):
            self.report.figure(f"storm: {what}", times)
        self.report.figure("storm: wait p99, ms", stats.wait.p99 or 0)
        self.report.goal("served out of turn", self.turns.out_of_turn, "<=", 0, f"{self.turns.served} were served")

    async def erratic(self, pool: Pool, end: float) -> None:
        loop, rng = asyncio.get_running_loop(), self.rng
        while loop.time() < end:
            step = asyncio.ensure_future(self.one(pool, rng.random()))
            if rng.random() < 0.1:
                loop.call_later(rng.random() / 5, step.cancel)
            await asyncio.wait([step])
            if step.cancelled():
                self.happened["cancelled"] += 1
            else:
                self.happened["failed" if step.exception() else "done"] += 1

    async def one(self, pool: Pool, chance: float) -> None:
        try:
            connection = await self.turns.acquire(pool, timeout=0.02 if 0.2 < chance < 0.3 else PATIENCE)
        except PoolExhausted:
            self.happened["gave up"] += 1
            return
        if chance < 0.002:
            await connection.fetchval("select 1")
            return  # forgets it
        if chance < 0.004:
            await connection.fetchval("select 1/0")  # fails and never returns it
        try:
            if chance > 0.98:
                await connection.execute("begin")
            await connection.fetchval("select pg_sleep($1)", chance / 100)
        finally:
            await pool.release(connection)

    async def kill(self, pool: Pool) -> None:
        """End a connection of the pool now and then, whatever it does."""
        connection = await asyncpg.connect(self.server.dsn)
        try:
            while True:
                await asyncio.sleep(0.25)
                await connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1"
                    " order by random() limit 1",
                    pool.application_name,
                )
                self.happened["killed"] += 1
        finally:
            await connection.close()

    async def exhaust(self, pool: Pool) -> None:
        """Ten hold what there is; all others must be told after five seconds, by whom."""
        loop = asyncio.get_running_loop()
        errors: list[tuple[float, PoolExhausted]] = []

        async def holds() -> None:
            async with pool.acquire() as connection:
                await connection.fetchval("select pg_sleep($1)", HOLD_SECONDS)

        async def asks() -> None:
            began = loop.time()
            try:
                async with pool.acquire():
                    pass
            except PoolExhausted as error:
                errors.append((loop.time() - began, error))

        self.report.say(f"{CLIENTS - SIZE} clients while {SIZE} hold all connections for {HOLD_SECONDS:g} s")
        holders = [asyncio.create_task(holds()) for _ in range(SIZE)]
        while pool.stats().active < SIZE:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(asks() for _ in range(CLIENTS - SIZE)))
        await asyncio.gather(*holders)
        waits = sorted(wait for wait, _error in errors)
        self.report.goal("the exhausted are told", len(errors), ">=", CLIENTS - SIZE)
        self.report.goal("told after at least, s", waits[0], ">=", PATIENCE - 0.2)
        self.report.goal("told after at most, s", waits[-1], "<=", PATIENCE + 0.2)
        named = sum(len(e.holders) == SIZE and all(h.state == "running" for h in e.holders) for _wait, e in errors)
        self.report.goal("told who holds what", named, ">=", CLIENTS - SIZE, str(errors[0][1])[:200])

    async def restarts(self, pool: Pool) -> None:
        """The server dies twice under the clients. A query that was cut is theirs to repeat; a wait is not."""
        served = [0] * CLIENTS
        loop = asyncio.get_running_loop()
        end = loop.time() + RESTARTS_SECONDS
        unreachable = 0

        async def client(number: int) -> None:
            nonlocal unreachable
            while loop.time() < end:
                try:
                    async with pool.acquire() as connection:
                        await connection.fetchval("select pg_sleep(0.005)")
                    served[number] = served[number] + 1
                except PoolUnreachable:
                    unreachable += 1
                except GONE:
                    self.happened["cut"] += 1

        self.report.say(f"two restarts of the server under {CLIENTS} clients within {RESTARTS_SECONDS} s")
        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        for time in ("first", "second"):
            await asyncio.sleep(RESTARTS_SECONDS / 5)
            before = list(served)
            await asyncio.to_thread(self.server.kill)
            await asyncio.to_thread(self.server.start)
            began = loop.time()
            while any(now == then for now, then in zip(served, before, strict=True)):
                await asyncio.sleep(0.01)
                if loop.time() > began + 30:
                    break
            self.report.figure(f"all clients served after the {time} restart, s", loop.time() - began)
        await asyncio.gather(*clients)
        self.report.figure("queries cut by a restart", self.happened["cut"])
        self.report.goal("clients that waited in vain for a restart", unreachable, "<=", 0)
        self.report.goal("clients served after the last restart", sum(map(bool, served)), ">=", CLIENTS)

    async def left(self, pool: Pool, tasks: int, memory: int) -> None:
        """Nothing may be left of all this but idle connections."""
        gc.collect()
        await asyncio.sleep(4)  # two rounds of those who look for what was lost
        stats = pool.stats()
        lost = stats.total - stats.idle + stats.waiting + stats.opening
        self.report.goal(
            "connections lost", lost, "<=", 0, f"{stats.idle} are idle, of {stats.opened_total} opened"
        )
        connection = await asyncpg.connect(self.server.dsn)
        backends = await connection.fetchval(
            "select count(*) from pg_stat_activity where application_name = $1", pool.application_name
        )
        await connection.close()
        self.report.goal("backends beyond the pool's connections", backends - stats.total, "<=", 0)
        self.report.goal("tasks left", len(asyncio.all_tasks()) - tasks, "<=", 0)
        grown = ((resident_bytes() or 0) - memory) / 2**20
        self.report.goal("memory grown, MB", grown, "<=", 32)
        assert await pool.fetchval("select 1") == 1


def main() -> None:
    logging.getLogger("pgreflex").setLevel(logging.CRITICAL)  # it has much to say here
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="pgreflex-check-") as home:
        Path(home).chmod(0o711)
        with EmbeddedServer(Path(home) / "server", settings={"fsync": "off"}) as server:
            try:
                report = Report("check-pool", server.version)
                with suppress(KeyboardInterrupt):
                    uvloop.run(Check(server, report).run())
                    sys.exit(0 if report.finish() else 1)
            finally:
                server.stop("immediate")


if __name__ == "__main__":
    main()
