"""Writes down what stands for the queries of this process.

Owns: when the fingerprints of new queries are written. Must not know drivers or SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from pipeline.core.fingerprint import Fingerprint
from pipeline.errors import PgreflexError
from pipeline.runtime import Health, describe, wait_for

TICK_SECONDS = 1.0
BATCH = 500

log = structlog.get_logger("pgreflex.queries")


class Source(Protocol):
    """Where new fingerprints are gathered. refusals: what could not be instrumented, and why."""

    refusals: dict[str, str]

    def take_texts(self) -> list[Fingerprint]: ...

    def restore_texts(self, texts: Iterable[Fingerprint]) -> None: ...


class Store(Protocol):
    """Where they are written (pipeline.db.queries)."""

    async def remember(self, found: Iterable[Fingerprint]) -> None: ...


class QueryTexts:
    """A Service. mine: whether this one writes; of several in a process one does."""

    name = "query texts"

    def __init__(self, store: Store, source: Source, *, mine: Callable[[], bool]) -> None:
        self._store = store
        self._source = source
        self._mine = mine
        self._problem = ""
        self._stopping = asyncio.Event()

    async def flush(self) -> None:
        """Write what is new. Raises our database errors; then nothing is lost."""
        texts = self._source.take_texts() if self._mine() else []
        while texts:
            try:
                await self._store.remember(texts[:BATCH])
            except BaseException:
                self._source.restore_texts(texts)
                raise
            del texts[:BATCH]

    async def start(self) -> None:
        """Nothing to get ready."""

    async def run(self) -> None:
        while not self._stopping.is_set():
            await self._try()
            await wait_for(self._stopping, TICK_SECONDS)
        await self._try()

    async def stop(self) -> None:
        self._stopping.set()

    def healthy(self) -> Health:
        if self._problem:
            return Health(False, self._problem)
        refused = [f"{what}: {reason}" for what, reason in self._source.refusals.items()]
        return Health(
            True, "; ".join(["not timed: " + one for one in refused]) or "all that was asked for is timed"
        )

    async def _try(self) -> None:
        try:
            await self.flush()
            self._problem = ""
        except PgreflexError as error:  # what is new is kept; the next round tries again
            if not self._problem:
                log.warning("queries cannot be written down", error=describe(error))
            self._problem = describe(error)
