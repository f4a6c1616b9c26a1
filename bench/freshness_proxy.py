"""A network that can be cut, between one process of the freshness check and the server.

Owns: connections by TCP to this machine, passed on to the server's local socket. Knows no Postgres.

A cut swallows bytes without a word: neither side learns of it, as when a firewall forgets a connection. A
connection that has lost bytes is dead for good. A delay keeps every byte and its order.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

FORGOTTEN_SECONDS = 8.0  # after which the server side of a dead connection is closed, long after the client's


class _Due(NamedTuple):
    at: float
    data: bytes


class Proxy:
    """port: where to connect. up, down: seconds by which bytes to and from the server are late."""

    def __init__(self, socket: str) -> None:
        self.port = 0
        self.up = self.down = 0.0
        self.swallowing = False
        self.refusing = False  # while swallowing, new connections are dead, too
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def open(self) -> Proxy:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def heal(self) -> None:
        self.up = self.down = 0.0
        self.swallowing = self.refusing = False

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            writer.close()
            return
        link = _Link(self, born_dead=self.swallowing and self.refusing)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(link.carry(reader, far_writer, upward=True))
                tasks.create_task(link.carry(far_reader, writer, upward=False))
        except* OSError:
            pass
        finally:
            writer.close()
        try:
            if link.dead:
                await asyncio.sleep(FORGOTTEN_SECONDS)
        finally:
            far_writer.close()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, *, born_dead: bool) -> None:
        self.dead = born_dead
        self._fresh = not born_dead and proxy.swallowing
        self._proxy = proxy

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        """Pass on what comes, until the end of it; a dead link's end is kept to itself."""
        late: asyncio.Queue[_Due | None] = asyncio.Queue()
        passing = asyncio.create_task(self._pass(late, writer))
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(65_536):
                self._fresh = self._fresh and self._proxy.swallowing
                self.dead = self.dead or (self._proxy.swallowing and not self._fresh)
                if not self.dead:
                    late.put_nowait(_Due(loop.time() + (self._proxy.up if upward else self._proxy.down), data))
            late.put_nowait(None)
            await passing
        finally:
            passing.cancel()

    async def _pass(self, late: asyncio.Queue[_Due | None], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while (due := await late.get()) is not None:
            if due.at > loop.time():
                await asyncio.sleep(due.at - loop.time())
            if not self.dead:
                writer.write(due.data)
                await writer.drain()
        if not self.dead:
            writer.close()
