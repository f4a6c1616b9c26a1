"""What the tests of the pool share: a pool that looks after itself often, and a network that can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pipeline
from pipeline.db.pool import Pool

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def pool_of(dsn: str, **options: Any) -> AsyncIterator[Pool]:
    """A pool, closed at once at the end."""
    pool = pipeline.create_pool(dsn, **{"name": "test", "close_timeout": 0.2, **options})
    pool.watch.every, pool.watch.grace = 0.02, 0.05
    await pool
    try:
        yield pool
    finally:
        pool.terminate()
        await asyncio.sleep(0)


class Network:
    """Between a pool and its server. mute: it takes new connections and never says anything."""

    def __init__(self, dsn: str) -> None:
        self.port = 0
        self.connected = 0
        self.mute = False
        self._dsn = dsn
        self._server: asyncio.Server | None = None
        self._pipes: set[Pipe] = set()
        self._dead: set[Pipe] = set()
        self._links: set[asyncio.Task[None]] = set()

    @property
    def dsn(self) -> str:
        """The server's address, as it is reached through here."""
        return f"postgresql://postgres@127.0.0.1:{self.port}{urlsplit(self._dsn).path}?sslmode=disable"

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Cut everything and refuse whoever connects."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def silence(self) -> None:
        """From now on what the connections carry is lost, without a word; new ones are well."""
        self._dead |= self._pipes

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        link = asyncio.ensure_future(self._serve((reader, writer)))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, near: Pipe) -> None:
        far = await self._open()
        self._pipes |= {near, far}
        if self.mute:
            self._dead |= {near, far}
        try:
            await asyncio.gather(self._carry(near, far), self._carry(far, near))
        finally:
            self._pipes -= {near, far}
            near[1].close()
            far[1].close()

    async def _carry(self, source: Pipe, target: Pipe) -> None:
        with suppress(OSError):
            while data := await source[0].read(65536):
                if source not in self._dead:
                    target[1].write(data)
        target[1].close()

    async def _open(self) -> Pipe:
        parts = urlsplit(self._dsn)
        given = parse_qs(parts.query)
        if "host" in given:
            return await asyncio.open_unix_connection(f"{given['host'][0]}/.s.PGSQL.{given['port'][0]}")
        return await asyncio.open_connection(parts.hostname, parts.port)


@asynccontextmanager
async def network(dsn: str) -> AsyncIterator[Network]:
    made = Network(dsn)
    await made.up()
    try:
        yield made
    finally:
        await made.down()
