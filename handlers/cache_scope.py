"""Where a request to the cache comes from, when it is not plain.

Owns: the one context variable of the cache. A plain request has none set, and pays for one look.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.cache_loads import Load
    from handlers.cache_seams import CacheSource
    from handlers.cache_snapshot import Reading


class Seen:
    """What was read inside `reads()`.

    stale: something was flagged as stale. tags: what all of it depends on, as far as it was told. expires_at: the
    moment on the cache's clock at which the first of it reaches its time to live; math.inf: no end; -math.inf:
    some of it has changed while it was loaded.
    """

    __slots__ = ("expires_at", "outer", "stale", "tags")

    def __init__(self, outer: Seen | None = None) -> None:
        self.stale = False
        self.tags: set[str] = set()
        self.expires_at = math.inf
        self.outer = outer

    def note(self, tags: frozenset[str], expires_at: float, stale: bool) -> None:
        self.stale = self.stale or stale
        self.tags |= tags
        self.expires_at = min(self.expires_at, expires_at)
        if self.outer is not None:
            self.outer.note(tags, expires_at, stale)


class Scope:
    """Inside `bypass()`, `reads()`, `snapshot()`, other loads, or a transaction.

    loads: those that this request is part of, the outermost first. source: on what queries run there in place of
    the cache's own connections. seen: who wants to know what is read. checking: the cache checks itself, so that
    this is no request. reading: what is loaded inside `snapshot()`, which answers instead.
    """

    __slots__ = ("bypass", "checking", "loads", "reading", "seen", "source")

    def __init__(
        self,
        *,
        bypass: bool = False,
        loads: tuple[Load, ...] = (),
        source: CacheSource | None = None,
        seen: Seen | None = None,
        checking: bool = False,
        reading: Reading | None = None,
    ) -> None:
        self.bypass = bypass
        self.checking = checking
        self.loads = loads
        self.source = source
        self.seen = seen
        self.reading = reading

    def but(
        self, *, bypass: bool | None = None, loads: tuple[Load, ...] | None = None, seen: Seen | None = None
    ) -> Scope:
        """The same with something else in its place."""
        return Scope(
            bypass=self.bypass if bypass is None else bypass,
            loads=self.loads if loads is None else loads,
            source=self.source,
            seen=seen or self.seen,
            checking=self.checking,
            reading=self.reading,
        )

    def inside(self, load: Load) -> Scope:
        """The scope of what a load reads: its parts are told to it, and by it to whoever waits for it."""
        return Scope(loads=(*self.loads, load), source=self.source)

    def used(
        self,
        tags: frozenset[str],
        expires_at: float = math.inf,
        *,
        tainted: bool = False,
        stale: bool = False,
        loose: bool = False,
    ) -> None:
        """The request has been answered by a value that depends on `tags`. tainted: it may be part of none.
        stale: it was flagged as such, which a load never gets. loose: see pipeline.core.snapshot.Loose.
        """
        if self.seen is not None:
            # a change that came meanwhile may already have been told to whoever keeps what is made of this
            self.seen.note(tags, -math.inf if tainted else expires_at, stale)
        if self.loads:
            flight = self.loads[-1].flight
            flight.parts |= tags
            flight.parts_expire = min(flight.parts_expire, expires_at)
            flight.tainted = flight.tainted or tainted
            flight.loose = flight.loose or loose


scope_of_request: ContextVar[Scope | None] = ContextVar("pgreflex_cache_scope", default=None)


def flat(scope: Scope | None) -> Scope | None:
    """The scope without loads that have ended: a task that a loader left behind keeps them."""
    if scope is None or not any(load.ended for load in scope.loads):
        return scope
    loads = tuple(load for load in scope.loads if not load.ended)
    return scope.but(loads=loads)


@asynccontextmanager
async def bypass() -> AsyncIterator[None]:
    """Inside, every request of this task to any cache loads for itself: nothing is served, shared or stored."""
    outer = scope_of_request.get() or Scope()
    token = scope_of_request.set(outer.but(bypass=True))
    try:
        yield
    finally:
        scope_of_request.reset(token)


@asynccontextmanager
async def reads() -> AsyncIterator[Seen]:
    """Inside, the Seen that is given out is told of all that this task reads through any cache."""
    outer = scope_of_request.get() or Scope()
    seen = Seen(outer.seen)
    token = scope_of_request.set(outer.but(seen=seen))
    try:
        yield seen
    finally:
        scope_of_request.reset(token)
