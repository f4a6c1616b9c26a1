"""What the parts with a daemon share: the daemon as users run it, and a webhook of our own.

Owns: how both are begun and surely ended. Knows no part's goals.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from bench.jobs_kit import execute

START_SECONDS = 30.0
END_SECONDS = 20.0
ROOT = Path(__file__).parents[1]


class Ear:
    """A webhook that takes everything. got: when each post came (perf_counter), and its body."""

    def __init__(self) -> None:
        self.got: list[tuple[float, str]] = []
        self.url = ""
        self._news = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.text()
        async with self._news:
            self.got.append((time.perf_counter(), body))
            self._news.notify_all()
        return web.Response()

    async def hear(self, text: str, within: float) -> float:
        """When the first post came that contains `text`. Raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within), self._news:
            while True:
                for at, body in self.got:
                    if text in body:
                        return at
                await self._news.wait()


@asynccontextmanager
async def webhook() -> AsyncIterator[Ear]:
    """An Ear that listens on a port of its own."""
    ear = Ear()
    application = web.Application(client_max_size=64 * 2**20)
    application.router.add_post("/", ear.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ear.url = f"http://127.0.0.1:{port}/"
        yield ear
    finally:
        await runner.cleanup()


@asynccontextmanager
async def daemon(dsn: str, ear: Ear) -> AsyncIterator[None]:
    """`pgreflex run` over a database that no built-in rule disturbs, telling `ear` what it has to tell."""
    await execute(dsn, "delete from pipeline.alert_rule")
    port = free_port()
    env = {
        **os.environ,
        "PGREFLEX_HTTP_PORT": str(port),
        "PGREFLEX_LOG_LEVEL": "error",
        "PGREFLEX_ALERTS_WEBHOOK_URL": ear.url,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "run.py", "run", "--dsn", dsn, env=env, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not await ready(port):
            if process.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError("the daemon did not become ready")
            await asyncio.sleep(0.05)
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ready(port: int) -> bool:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(f"http://127.0.0.1:{port}/readyz") as response,
        ):
            return response.status == 200
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
