"""Doing without sessions, where the only address leads to a transaction pooler.

Owns: which services are off then, and that it is said once. Knows nothing of what they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from pipeline.errors import TransactionPooler
from pipeline.runtime import Health, Service

OFF = "off: the address is a transaction pooler; set listen_dsn"
POLL_SECONDS = 0.2  # nothing tells the workers when to look, so they look more often

log = structlog.get_logger("pgreflex.pooler")


class PollOnly:
    """Whether this process has to do without sessions. entered: called when that turns out, once."""

    def __init__(self, entered: Callable[[], None] = lambda: None) -> None:
        self.on = False
        self._entered = entered

    def enter(self, reason: TransactionPooler) -> None:
        if not self.on:
            self.on = True
            log.warning(
                "the feed is off: caches serve nothing, consumers hear nothing, jobs are found by polling",
                reason=reason.message,
                hint=reason.hint,
            )
            self._entered()


class NeedsSession:
    """A Service that runs another one, or stands still where that finds no session to be had."""

    def __init__(self, service: Service, poll_only: PollOnly) -> None:
        self._service = service
        self._poll_only = poll_only
        self._off = False
        self._stopped = asyncio.Event()

    @property
    def name(self) -> str:
        return self._service.name

    async def start(self) -> None:
        try:
            await self._service.start()
        except TransactionPooler as error:
            self._off = True
            self._poll_only.enter(error)

    async def run(self) -> None:
        if self._off:
            await self._stopped.wait()
        else:
            await self._service.run()

    async def stop(self) -> None:
        self._stopped.set()
        await self._service.stop()

    def healthy(self) -> Health:
        """Well when it is off: there is nothing that a restart would mend."""
        return Health(True, OFF) if self._off else self._service.healthy()
