"""The cache as a program sees it without naming a client: `pipeline.cache`, `pipeline.cached`, `pipeline.loader`.

Owns: which client's cache is meant, also by a loader. Knows nothing of how it works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from threading import get_ident
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, cast

from handlers.cache import Cache
from handlers.cache_functions import cached_by
from handlers.cache_keys import Tags
from handlers.cache_scope import Seen, bypass, reads, scope_of_request
from handlers.cache_seams import Loaded
from handlers.loader import Loader, LoadMany
from pipeline.core.cache_policy import Options, Span
from pipeline.core.cachekey import seconds
from pipeline.db.transactions import Isolation
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

__all__ = ["Loaded", "cache", "cached", "current", "enter", "http_cache", "leave", "loader"]

T = TypeVar("T")
P = ParamSpec("P")

_open: list[tuple[int, Cache]] = []  # with the thread, which is a third of what asking for the loop costs each hit


def enter(cache: Cache) -> None:
    """From now on `pipeline.cache` means this one, on the event loop that is running."""
    _open.append((get_ident(), cache))


def leave(cache: Cache) -> None:
    """No longer; what was meant before is meant again."""
    _open[:] = [one for one in _open if one[1] is not cache]


def current() -> Cache:
    """The cache of the client that is open on this event loop, the newest of several. Raises UsageError.

    Where no loop is running, which is good for figures only, the newest of all.
    """
    if not _open:
        raise UsageError(
            "no client is open in this process, so there is no cache",
            hint="Open one around the call: async with pipeline.connect() as client: ...; or read inside "
            "`async with pipeline.cache.bypass()`.",
        )
    here = get_ident()
    for thread, cache in reversed(_open):
        if thread == here:
            return cache
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _open[-1][1]
    raise UsageError(
        "the client of this process is open on another event loop, and its connections belong to that one",
        hint="Open a client on each loop: async with pipeline.connect() as client: ...",
    )


def _current_or_bypassed() -> Cache | None:
    """None: no client is open, and none is needed, since the request is inside `bypass()`."""
    if _open:
        thread, cache = _open[-1]
        return cache if thread == get_ident() else current()
    scope = scope_of_request.get()
    return None if scope is not None and scope.bypass else current()


class _Current:
    """Stands for the current cache; every use of it looks anew which one that is."""

    def bypass(self) -> AbstractAsyncContextManager[None]:
        return bypass()  # needs no client

    def reads(self) -> AbstractAsyncContextManager[Seen]:
        return reads()

    def cached(self, **options: Any) -> Any:
        return cached(**options)  # may be used before a client is open

    def __getattr__(self, name: str) -> Any:
        return getattr(current(), name)

    def __repr__(self) -> str:
        return "<the cache of the client that is open>"


cache: Cache = cast(Cache, _Current())


def cached(
    *, tags: Tags, key: Callable[..., Hashable] | None = None, **options: Unpack[Options]
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Cache what an async function returns, in the cache of the client that is open when it is called.

    May be used before any client is open. A call while none is open raises UsageError, unless it is made inside
    `pipeline.cache.bypass()`: then the function simply runs. Arguments as of Cache.cached.
    """
    return cached_by(_current_or_bypassed, tags=tags, key=key, options=options)


def transaction(*, isolation: Isolation | None = None) -> AbstractAsyncContextManager[Any]:
    """A transaction on the client that is open, whose writes its cache reflects at once; see Cache.transaction."""
    return current().transaction(isolation=isolation)


def loader(
    source: str | LoadMany,
    *,
    key: str = "id",
    columns: Sequence[str] = (),
    many: bool = False,
    tags: Tags = None,
    **options: Unpack[Options],
) -> Loader:
    """Loads single things together, through the cache of the client that is open; see Loader for the arguments.

    May be made before any client is open.
    """
    return Loader(current, source, key=key, columns=columns, many=many, tags=tags, options=options)


def http_cache(
    *,
    max_age: Span = 0,
    shared_max_age: Span | None = None,
    stale_while_revalidate: Span = 0,
    stale_if_error: Span = 0,
) -> Middleware:
    """Middleware for an aiohttp application: ETag, 304, Cache-Control and Cache-Groups from what was read.

    max_age: how long a browser may keep a response without asking. shared_max_age: the same for shared caches;
    None: they may not keep it. stale_...: as of RFC 5861. Whatever the handler set itself stays.
    """
    from pipeline.web import http_cache as web  # noqa: PLC0415 - aiohttp is heavy

    lifetime = web.Lifetime(
        max_age=seconds(max_age) or 0,
        shared_max_age=seconds(shared_max_age),
        stale_while_revalidate=seconds(stale_while_revalidate) or 0,
        stale_if_error=seconds(stale_if_error) or 0,
    )
    return web.http_cache(reads, lifetime)
