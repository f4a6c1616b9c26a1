"""How loads use the second level, if there is one.

Owns: which loads ask it, under which name a key is known to all processes, and what it is told. Knows nothing of
how it stores.
"""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Callable, Hashable
from typing import Any

import structlog

from handlers.cache_scope import scope_of_request
from handlers.cache_seams import Loaded, Loader, SharedCache, Use
from pipeline.core.cache import CacheCore
from pipeline.core.cache_policy import Policy
from pipeline.core.cachekey import stable_key
from pipeline.core.fill import Flight, Verdict
from pipeline.errors import UsageError

MOST_TYPES = 10_000  # functions whose annotation is remembered

log = structlog.get_logger("pgreflex.cache")


class SecondLevel:
    """The way from a load to what all processes share. shared None: there is nothing."""

    def __init__(self, core: CacheCore, clock: Callable[[], float], shared: SharedCache | None) -> None:
        self._core = core
        self._clock = clock
        self._shared = shared
        self._returns: dict[Hashable, Any] = {}
        self._warned = False
        if shared is not None:
            shared.join(core)

    async def load(self, flight: Flight, loader: Loader, policy: Policy) -> Loaded:
        """What the other processes share, or else what the loader returns."""
        shared, use = self._shared, await self._use(flight, policy)
        if shared is None or use is None:
            return await call(loader)
        present = self._core.store.entries.get(flight.key)
        found = await shared.get(use, flight.tags, present.load_seconds if present else None)
        if found is not None:
            return found
        self._core.fence.begin(flight, self._clock())  # it reads only now, whoever was waited for
        try:
            loaded = await call(loader)
        except BaseException:
            shared.release(use)
            raise
        shared.loaded(use)
        return loaded

    async def finished(self, flight: Flight, loaded: Loaded, policy: Policy, verdict: Verdict) -> None:
        """The value was judged here: let the others have it, too, or load it."""
        shared, use = self._shared, await self._use(flight, policy)
        if shared is None or use is None:
            return
        entry = self._core.store.entries.get(flight.key) if verdict is Verdict.STORED else None
        if loaded.row is not None and entry is not None:
            entry.shared, entry.load_seconds = loaded.row.version, loaded.row.load_ms / 1000
        elif loaded.row is None and entry is not None:
            shared.put(use, entry)
        elif loaded.row is None:
            shared.release(use)

    def probed(self, asked: float, answer: Any) -> None:
        """The database said where it stands; the question was sent at `asked`."""
        if self._shared is not None:
            self._shared.probed(asked, answer)

    async def _use(self, flight: Flight, policy: Policy) -> Use | None:
        """How the load is shared; None: it is not."""
        shared = self._shared
        if shared is None or not (shared.by_default if policy.shared is None else policy.shared):
            return None
        scope = scope_of_request.get()
        if scope is not None and scope.source is not None:
            return None  # it reads inside a transaction, whose state is nobody else's
        function = flight.key[0] if isinstance(flight.key, tuple) and flight.key else None
        namespace = policy.namespace or ""
        if callable(function) and _is_local(function) and namespace == _name(function):
            self._warn(f"{namespace} is a function of one program only; give it a namespace=")
            return None
        settings = await shared.settings()
        if settings is None:
            return None
        try:
            name = stable_key(namespace, (settings, flight.key))
        except UsageError as error:
            self._warn(error.message)
            return None
        digest = hashlib.blake2b(name, digest_size=16).digest()
        return Use(flight.key, digest, namespace, self._annotation(function))

    def _annotation(self, function: Any) -> Any:
        """What a function says that it returns; None: nothing that can be looked up."""
        if not callable(function):
            return None
        if function not in self._returns:
            if len(self._returns) >= MOST_TYPES:
                self._returns.clear()
            try:
                self._returns[function] = typing.get_type_hints(function).get("return")
            except (NameError, TypeError, AttributeError):  # names that only a type checker imports
                self._returns[function] = None
        return self._returns[function]

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("a value is not shared with other processes", reason=reason)


def _is_local(function: Any) -> bool:
    """Whether its name may mean another function elsewhere."""
    return "<" in getattr(function, "__qualname__", "<") or function.__module__ == "__main__"


def _name(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


async def call(loader: Loader) -> Loaded:
    """What a loader returns, as a Loaded. Raises what it raises, and UsageError for one that is not async."""
    awaitable = loader()
    if not inspect.isawaitable(awaitable):
        raise UsageError(
            f"the loader returned {type(awaitable).__qualname__}, which cannot be awaited",
            hint="Give an async function, or one that returns an awaitable.",
        )
    result = await awaitable
    return result if isinstance(result, Loaded) else Loaded(result)
