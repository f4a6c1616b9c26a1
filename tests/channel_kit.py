"""What the tests of delivery share: a receiver on a real socket, and a daemon that tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.app.daemon import Daemon
from pipeline.config import Config
from pipeline.registry import Registry
from tests.conftest import eventually

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Hook:
    """The far end of a webhook. told: bodies that were answered with acceptance; asked: every request."""

    def __init__(self) -> None:
        self.answer: int | Answering = 200
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.told: list[dict[str, Any]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((dict(request.headers), body))
        if not isinstance(self.answer, int):
            return await self.answer(request)
        if self.answer == 200:
            self.told.append(json.loads(body))
        return web.Response(status=self.answer, headers=self.headers)

    @property
    def ids(self) -> list[str]:
        return [headers["Pgreflex-Id"] for headers, _body in self.asked]

    def said(self) -> list[tuple[str, str, str]]:
        """What it accepted: reason, status and rule of each alert."""
        return [(one["reason"], line["status"], line["rule"]) for one in self.told for line in one["alerts"]]


@asynccontextmanager
async def hooks(*paths: str) -> AsyncIterator[list[Hook]]:
    found = [Hook() for _ in paths]
    app = web.Application()
    for path, hook in zip(paths, found, strict=True):
        app.router.add_post(path, hook.take)
    async with TestServer(app) as server:
        for path, hook in zip(paths, found, strict=True):
            hook.url = str(server.make_url(path))
        yield found


@asynccontextmanager
async def telling(dsn: str, *, leads: bool = True, **alerts: Any) -> AsyncIterator[Daemon]:
    """A daemon with these settings of `alerts`; it leads, if no other does."""
    config = Config(dsn=dsn, http={"port": 0}, jobs={"queues": "mail:1", "drain_seconds": 1}, alerts=alerts)
    daemon = Daemon(config, registry=Registry())
    task = asyncio.create_task(daemon.run())
    try:
        await eventually(lambda: daemon.consumers.leading >= leads and daemon.follower.up, within=20)
        yield daemon
    finally:
        daemon.shutdown()
        await task
