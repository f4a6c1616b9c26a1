"""A server that dies under a pool: whoever waits is served when it is back."""

from __future__ import annotations

import asyncio

import asyncpg

from pipeline.embedded import EmbeddedServer
from tests.conftest import eventually
from tests.crash.embedded_kit import FAST, directory
from tests.pool_kit import pool_of


async def test_a_restart_in_the_middle_of_traffic_ends_with_all_clients_served() -> None:
    with directory() as home, EmbeddedServer(home / "server", settings=FAST) as server:
        async with pool_of(server.dsn, max_size=5) as pool:
            served = [0] * 40
            done = asyncio.Event()

            async def client(number: int) -> None:
                while not done.is_set():
                    async with pool.acquire(timeout=60) as connection:
                        try:
                            await connection.fetchval("select pg_sleep(0.002)")
                        except (
                            OSError,
                            asyncpg.PostgresError,
                            asyncpg.InterfaceError,
                            asyncpg.InternalClientError,
                        ):
                            continue
                    served[number] += 1

            clients = [asyncio.create_task(client(number)) for number in range(len(served))]
            await eventually(lambda: all(served))
            await asyncio.to_thread(server.kill)
            before = list(served)
            await asyncio.to_thread(server.start)
            await eventually(lambda: all(now > then for now, then in zip(served, before, strict=True)))
            done.set()
            await asyncio.gather(*clients)
            await eventually(lambda: pool.stats().idle == pool.stats().total)
            assert pool.stats().failed_total <= 60, "attempts are paced"
        server.stop("immediate")
