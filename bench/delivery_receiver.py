"""The far end of a webhook that breaks in every way, and remembers what it accepted.

Owns: the ways to break, and what is believed: what was accepted, each id once. Knows nothing of who tells it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from bench.alerts_kit import free_port

MODES = ("loses its answers", "is gone", "answers 500", "hangs", "answers 429", "is gone")


class Receiver:
    """believes: the alerts that fire, with their episodes. bodies: what was accepted, by id. most: requests at a
    time. again: how often an id came again that was accepted before; changed: with other words. twice: an
    episode came as new under another id. unknown: the end came of what was not believed.
    """

    def __init__(self) -> None:
        self.mode = "works"
        self.url = ""
        self.port = free_port()
        self.believes: dict[tuple[str, str], int] = {}
        self.bodies: dict[str, str] = {}
        self.asked = self.again = self.changed = self.twice = self.unknown = self.most = 0
        self._at_once = 0
        self._fired: set[tuple[str, str, int]] = set()
        self._runner: web.AppRunner | None = None

    async def become(self, mode: str) -> None:
        """Break in this way from now on, or work. A receiver that is gone refuses connections."""
        self.mode = mode
        if mode == "is gone":
            await self.close()
        elif self._runner is None:
            await self.open()

    async def open(self) -> None:
        application = web.Application(client_max_size=64 * 2**20)
        application.router.add_post("/", self.take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.url = f"http://127.0.0.1:{self.port}/"

    async def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        self._at_once += 1
        self.most = max(self.most, self._at_once)
        try:
            return await self._answer(request, await request.text())
        finally:
            self._at_once -= 1

    async def _answer(self, request: web.Request, body: str) -> web.Response:
        match self.mode:
            case "answers 500":
                return web.Response(status=500)
            case "answers 429":
                return web.Response(status=429, headers={"Retry-After": "2"})
            case "hangs":
                await asyncio.sleep(3_600)
            case "loses its answers":
                self.accept(request.headers["Pgreflex-Id"], body)
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
        self.accept(request.headers["Pgreflex-Id"], body)
        return web.Response()

    def accept(self, id_: str, body: str) -> None:
        if id_ in self.bodies:
            self.again += 1
            self.changed += self.bodies[id_] != body
            return
        self.bodies[id_] = body
        said = json.loads(body)
        for line in said["alerts"]:
            key, episode = (line["rule"], line["instance"]), line["episode"]
            if line["status"] == "resolved":
                self.unknown += self.believes.pop(key, None) != episode
                continue
            self.twice += (*key, episode) in self._fired and said["reason"] == "new"
            self._fired.add((*key, episode))
            self.believes[key] = episode


@asynccontextmanager
async def receivers() -> AsyncIterator[tuple[Receiver, Receiver, Receiver]]:
    """Three of them, on ports of their own."""
    made = Receiver(), Receiver(), Receiver()
    try:
        for one in made:
            await one.open()
        yield made
    finally:
        for one in made:
            await one.close()
