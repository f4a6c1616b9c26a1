"""How loads use the second level, if there is one.

Owns: which loads ask it, and what it is told. Knows nothing of how it stores.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from handlers.cache_seams import Loaded, Loader, SharedCache, SharedEntry
from pipeline.core.cache import CacheCore
from pipeline.core.cache_policy import Policy
from pipeline.core.cachekey import stable_key
from pipeline.core.fill import Flight


class SecondLevel:
    """The way from a load to what all processes share. shared None: there is nothing."""

    def __init__(self, core: CacheCore, clock: Callable[[], float], shared: SharedCache | None) -> None:
        self._core = core
        self._clock = clock
        self._shared = shared

    async def load(self, flight: Flight, loader: Loader, policy: Policy) -> Loaded:
        """What the other processes share, or else what the loader returns."""
        shared = self._shared
        if shared is None or not policy.shared:
            return unwrap(await loader())
        key = stable_key(policy.namespace or "", flight.key)
        found = await shared.get(key, flight.tags)
        if found is None and not await shared.lead(key):
            found = await shared.get(key, flight.tags)  # another process has loaded it meanwhile
        return found or unwrap(await loader())

    async def share(self, flight: Flight, loaded: Loaded, policy: Policy) -> None:
        """The value was just stored here: let the others have it, too."""
        entry = self._core.store.entries.get(flight.key)
        if self._shared is None or not policy.shared or loaded.was_shared or entry is None:
            return
        left = entry.expires_at - self._clock()
        await self._shared.put(
            SharedEntry(
                key=stable_key(policy.namespace or "", flight.key),
                namespace=policy.namespace or "",
                value=loaded.value,
                tags=entry.tags,
                snapshot=entry.snapshot,
                ttl=None if math.isinf(left) else left,
            )
        )


def unwrap(result: object) -> Loaded:
    """What a loader returned, as a Loaded."""
    return result if isinstance(result, Loaded) else Loaded(result)
