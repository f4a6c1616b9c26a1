"""What is counted and bounded together: the values of one cached function, or of one namespace.

Owns: the counters, the bounds, and which keys are asked for most. Knows neither what is stored nor when.

A hit may cost next to nothing, so it adds one to a plain int, and only every 61st is looked at: its key goes to a
sketch of a bounded number of keys (Space-Saving, Metwally et al., 2005). 61 is prime, so that a program that asks
for its keys in turns is not always sampled at the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Literal

from pipeline.core.status import HotKey, NamespaceStatus

SAMPLED = 61
KEYS_COUNTED = 128
KEYS_SHOWN = 10
LONGEST_KEY = 200  # characters of a key that are shown

Cause = Literal["size", "count", "expired", "changed", "cleared", "flushed", "replaced"]


class Namespace:
    """Counters are plain ints that the reader's path may raise. Bounds of None are those of the whole cache.

    gone: entries by what ended them. refused: fills that were not stored, by reason. loads, load_seconds: those
    that ended well.
    """

    __slots__ = (
        "bypassed",
        "bytes",
        "entries",
        "gone",
        "hits",
        "load_seconds",
        "loads",
        "max_bytes",
        "max_entries",
        "misses",
        "name",
        "order",
        "refused",
        "sketch",
        "stale",
    )

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.max_bytes: int | None = None
        self.max_entries: int | None = None
        self.hits = self.misses = self.bypassed = self.stale = 0
        self.entries = self.bytes = 0
        self.loads, self.load_seconds = 0, 0.0
        self.gone: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.order: dict[Hashable, None] | None = None  # the keys, the oldest first, where it has bounds
        self.sketch = Sketch()

    def enter(self, key: Hashable, size: int) -> None:
        if self.order is not None:
            self.order[key] = None
        self.entries += 1
        self.bytes += size

    def leave(self, key: Hashable, size: int, cause: Cause) -> None:
        if self.order is not None:
            del self.order[key]
        self.entries -= 1
        self.bytes -= size
        self.gone[cause] += 1

    def crowded(self, size: int) -> Cause | None:
        """Which bound of its own one more value of `size` bytes would break."""
        if self.max_bytes is not None and self.bytes + size > self.max_bytes:
            return "size"
        if self.max_entries is not None and self.entries >= self.max_entries:
            return "count"
        return None

    def hit(self, key: Hashable) -> None:
        """One more hit."""
        self.hits = hits = self.hits + 1
        if not hits % SAMPLED:
            self.sketch.add(key)

    @property
    def mean_load(self) -> float:
        """Seconds; 0 before the first."""
        return self.load_seconds / self.loads if self.loads else 0.0

    @property
    def saved_seconds(self) -> float:
        """What hits would have cost as loads."""
        return self.mean_load * (self.hits + self.stale)

    def status(self) -> NamespaceStatus:
        return NamespaceStatus(
            name=self.name,
            entries=self.entries,
            bytes=self.bytes,
            max_entries=self.max_entries,
            max_bytes=self.max_bytes,
            hits_total=self.hits,
            misses_total=self.misses,
            stale_total=self.stale,
            bypassed_total=self.bypassed,
            refused=dict(self.refused),
            gone=dict(self.gone),
            mean_load_ms=self.mean_load * 1000 if self.loads else None,
            saved_seconds=self.saved_seconds,
            hottest=tuple(
                HotKey(shown(key), count * SAMPLED, self.name) for key, count in self.sketch.top(KEYS_SHOWN)
            ),
        )


def shown(key: Hashable) -> str:
    """A key for people: of a function's call its arguments, of a query its text and arguments."""
    if isinstance(key, tuple) and key and callable(key[0]):
        return ", ".join(map(repr, key[1:]))[:LONGEST_KEY]
    if isinstance(key, tuple) and len(key) == 4 and key[0] == "sql":
        return f"{' '.join(str(key[1]).split())[:LONGEST_KEY]} {key[2]!r}"[: 2 * LONGEST_KEY]
    return repr(key[2] if isinstance(key, tuple) and key and key[0] == "namespace" else key)[:LONGEST_KEY]


class Sketch:
    """Counts of the keys that came most often, in bounded memory.

    A key that is new when all places are taken inherits the count of the rarest one: counts may be too
    high by that much, never too low.
    """

    __slots__ = ("counts", "last")

    def __init__(self) -> None:
        self.counts: dict[Hashable, int] = {}
        self.last: Hashable = None  # the one that came last

    def add(self, key: Hashable) -> None:
        counts = self.counts
        self.last = key
        if key not in counts and len(counts) >= KEYS_COUNTED:
            rarest = min(counts, key=counts.__getitem__)
            counts[key] = counts.pop(rarest)
        counts[key] = counts.get(key, 0) + 1

    def top(self, count: int) -> list[tuple[Hashable, int]]:
        """The keys that came most often, the most frequent first."""
        return sorted(self.counts.items(), key=lambda item: -item[1])[:count]
