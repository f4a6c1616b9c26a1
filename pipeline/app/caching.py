"""The cache as a program sees it without naming a client: `pipeline.cache`, `pipeline.cached`, `pipeline.loader`.

Owns: which client's cache is meant, also by a loader. Knows nothing of how it works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from handlers.cache import Cache, Tags, cached_by
from handlers.cache_scope import Seen, bypass, reads, scope_of_request
from handlers.loader import Loader, LoadMany
from pipeline.core.cache_policy import Options
from pipeline.errors import UsageError

T = TypeVar("T")
P = ParamSpec("P")

_open: list[Cache] = []


def enter(cache: Cache) -> None:
    """From now on `pipeline.cache` means this one."""
    _open.append(cache)


def leave(cache: Cache) -> None:
    """No longer; what was meant before is meant again."""
    if cache in _open:
        _open.remove(cache)


def current() -> Cache:
    """The cache of the client that is open in this process, the newest of several. Raises UsageError."""
    if not _open:
        raise UsageError(
            "no client is open in this process, so there is no cache",
            hint="Open one around the call: async with pipeline.connect() as client: ...; or read inside "
            "`async with pipeline.cache.bypass()`.",
        )
    return _open[-1]


def _current_or_bypassed() -> Cache | None:
    """None: no client is open, and none is needed, since the request is inside `bypass()`."""
    if _open:
        return _open[-1]
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
