"""What the parts of the cache benchmark share: a cache without a database, and programs in the peers' environment.

Owns: how each is begun. Knows no part's goals.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.jobs_child import ROOT, Child, child
from bench.jobs_peers import HERE, python_home
from handlers.cache import Cache
from pipeline.core.freshness import Probe
from pipeline.core.snapshot import Snapshot

PACKAGES = ("cashews", "aiocache", "cachetools", "cachebox", "theine", "moka-py", "uvloop")
BEFORE = Snapshot(10, 10)


class Nowhere:
    """Stands for a database that nobody writes to."""

    async def probe(self) -> Probe:
        return Probe(BEFORE)

    async def read(
        self, _query: str, _args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        raise NotImplementedError

    async def invalidate(self, _tags: Sequence[str] | None, _prefix: str | None) -> int:
        raise NotImplementedError


async def lone_cache(**options: Any) -> Cache:
    """A cache that may serve for an hour without another word from the feed."""
    cache = Cache(prober=Nowhere(), max_staleness=3_600, **options)
    for _ in range(2):  # the first position ends the time before the cache was listening
        await cache.probe()
        cache.on_position(BEFORE)
    return cache


@asynccontextmanager
async def peer_program(name: str, *args: str) -> AsyncIterator[Child]:
    """One of bench/peers, run in their environment. Raises NotToBeHad."""
    python = python_home("caches", PACKAGES) / "bin" / "python"
    async with child(name, [python, HERE / name, *args], env={"PYTHONPATH": str(ROOT)}) as running:
        yield running
