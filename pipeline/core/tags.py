"""Tags: how a change finds what depends on it.

Owns: the tree of tags and the index from tags to whatever is filed under them. Knows neither values nor
feeds.

Tags form a tree by colons: `orders` is above `orders:42`, which is above `orders:42:items`. Whatever is
tagged `orders` depends on all of it; whatever is tagged `orders:42` depends on that part only. A change
of a tag therefore touches the tag itself, everything above it (the whole has changed) and everything
below it (every part may have). So a change of row 42 touches `orders:42` and `orders` but not
`orders:43`, and a change of unknown extent, on `orders`, touches all three. A key that contains colons
only makes the tree deeper than need be.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable


def above(tag: str) -> tuple[str, ...]:
    """The tags above `tag`, the widest first: `a:b:c` gives `a` and `a:b`."""
    found = []
    cut = tag.find(":")
    while cut >= 0:
        found.append(tag[:cut])
        cut = tag.find(":", cut + 1)
    return tuple(found)


class TagIndex:
    """Which keys are filed under which tags."""

    def __init__(self) -> None:
        self._exact: dict[str, set[Hashable]] = {}
        self._below: dict[str, set[Hashable]] = {}  # tag -> keys that have a tag below it

    def add(self, key: Hashable, tags: Iterable[str]) -> None:
        for tag in tags:
            self._exact.setdefault(tag, set()).add(key)
            for upper in above(tag):
                self._below.setdefault(upper, set()).add(key)

    def remove(self, key: Hashable, tags: Iterable[str]) -> None:
        """Undo `add`; the tags must be those that were given to it."""
        for tag in tags:
            _take(self._exact, tag, key)
            for upper in above(tag):
                _take(self._below, upper, key)

    def touched(self, tag: str) -> set[Hashable]:
        """The keys that a change of `tag` touches; a new set."""
        keys = set(self._exact.get(tag, ()))
        keys.update(self._below.get(tag, ()))
        for upper in above(tag):
            keys.update(self._exact.get(upper, ()))
        return keys

    def starting(self, prefix: str) -> set[Hashable]:
        """The keys that a change of every tag that begins with `prefix` touches; a new set.

        Looks at each tag, unless the prefix ends with a colon.
        """
        if prefix.endswith(":"):
            keys = set(self._below.get(prefix[:-1], ()))
        else:
            keys = set()
            for tag, filed in self._exact.items():
                if tag.startswith(prefix):
                    keys |= filed
        for upper in above(prefix):
            keys.update(self._exact.get(upper, ()))
        return keys

    def clear(self) -> None:
        self._exact.clear()
        self._below.clear()

    def __len__(self) -> int:
        """How many tags have something filed under them or below them."""
        return len(self._exact.keys() | self._below.keys())


def _take(table: dict[str, set[Hashable]], tag: str, key: Hashable) -> None:
    keys = table.get(tag)
    if keys is not None:  # two tags of one key may share what is above them
        keys.discard(key)
        if not keys:
            del table[tag]
