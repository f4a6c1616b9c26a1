"""What one process's cache says of itself.

Owns: sums over the namespaces, and the hit ratio of the last minute. Knows nothing of what is done with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import structs

from pipeline.core.cache import CacheCore
from pipeline.core.cache_check import Tally
from pipeline.core.cache_figures import told
from pipeline.core.status import CacheStatus, HotKey, NamespaceStatus

RATIO_SECONDS = 60.0


class Figures:
    """Call `sample` from time to time."""

    def __init__(self, core: CacheCore, tally: Tally, clock: Callable[[], float]) -> None:
        self._core = core
        self._tally = tally
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque()

    def status(self) -> CacheStatus:
        """Figures of this process. hit_ratio is None until something was asked for."""
        core = self._core
        return structs.replace(
            told(core.namespaces.values(), self._tally),
            entries=len(core.store.entries),
            bytes=core.store.bytes,
            max_bytes=core.store.max_bytes,
            refused_fills_total=core.refused,
            invalidations_total=core.dropped,
            evictions_total=core.store.evictions,
            flushes_total=core.flushes,
            hit_ratio=self._hit_ratio(),
            age_bound_seconds=core.freshness.age(self._clock()),
        )

    def namespaces(self) -> tuple[NamespaceStatus, ...]:
        """Figures of each cached function and namespace, those with the most hits first."""
        spaces = [space.status() for space in self._core.namespaces.values()]
        return tuple(sorted(spaces, key=lambda space: -space.hits_total))

    def hottest(self, count: int) -> tuple[HotKey, ...]:
        """The keys that are asked for most, of all namespaces."""
        found = [key for space in self._core.namespaces.values() for key in space.status().hottest]
        return tuple(sorted(found, key=lambda key: -key.hits)[:count])

    def sample(self) -> None:
        """Remember how many reads there were until now."""
        now = self._clock()
        self._samples.append((now, *self._asked()))
        while self._samples[0][0] < now - RATIO_SECONDS:
            self._samples.popleft()

    def _asked(self) -> tuple[int, int]:
        """Reads that were hits, and all."""
        spaces = self._core.namespaces.values()
        hits = sum(space.hits for space in spaces)
        return hits, hits + sum(space.misses + space.bypassed + space.stale for space in spaces)

    def _hit_ratio(self) -> float | None:
        _at, hits_then, asked_then = self._samples[0] if self._samples else (0.0, 0, 0)
        hits, asked = self._asked()
        return (hits - hits_then) / (asked - asked_then) if asked > asked_then else None
