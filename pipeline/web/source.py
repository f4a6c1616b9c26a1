"""What the web side asks of the process, and how often it asks.

Owns: the StatusSource protocol and the Sampler in front of it. Knows no HTTP and no database.

The figures have many readers (pages, scrapers, scripts) and one source, so the Sampler asks once for all who
ask within SHARE_SECONDS, and gives up after STATUS_TIMEOUT: a source that hangs costs each reader an error
in time, never a request that hangs as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

import msgspec

from pipeline.core.status import Status
from pipeline.errors import Busy
from pipeline.runtime import Health

SHARE_SECONDS = 0.25  # a scrape and ten open pages cost four samples a second at most
STATUS_TIMEOUT = 3.0  # below the 10 s that Prometheus waits for a scrape


class Liveness(msgspec.Struct, frozen=True):
    """What the probes need, from memory. services: each service's name and how it goes."""

    draining: bool
    services: Mapping[str, Health]

    @property
    def ready(self) -> bool:
        return not self.draining and all(health.ok for health in self.services.values())


class StatusSource(Protocol):
    """The process as the web side sees it."""

    async def status(self) -> Status:
        """Everything that it can tell; may wait for the database and may raise."""

    def live(self) -> Liveness:
        """Draining, and the health of every service; from memory, never waits, never raises."""


class Sampler:
    """Asks a source for its status, once for all who ask at about the same time."""

    def __init__(self, source: StatusSource, *, timeout: float = STATUS_TIMEOUT) -> None:
        self._source = source
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._taken = -SHARE_SECONDS
        self._status: Status | None = None

    async def sample(self) -> Status:
        """A status that is at most SHARE_SECONDS old. Raises Busy when none is to be had in time."""
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                if self._status is None or time.monotonic() - self._taken > SHARE_SECONDS:
                    began = time.monotonic()
                    self._status = await self._source.status()
                    self._taken = began
                return self._status
        except TimeoutError as error:
            raise Busy(
                f"The figures could not be gathered within {self._timeout:g} s.",
                hint="/readyz?verbose tells which service is not well.",
            ) from error
