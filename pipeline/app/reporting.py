"""Tells the daemon, through the feed, how a process's cache does.

Owns: the rhythm. Knows nothing of what is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.app.board import REPORT_SECONDS
from pipeline.runtime import Health, wait_for


class Reporter:
    """A Service that calls `report` every REPORT_SECONDS; what it raises makes the supervisor pause."""

    name = "reporter"

    def __init__(self, report: Callable[[], Awaitable[None]]) -> None:
        self._report = report
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Nothing to get ready."""

    async def run(self) -> None:
        while not self._stopping.is_set():
            await self._report()
            await wait_for(self._stopping, REPORT_SECONDS)

    async def stop(self) -> None:
        self._stopping.set()

    def healthy(self) -> Health:
        return Health(True)
