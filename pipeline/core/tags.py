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

import sys
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)  # anything but a set


def above(tag: str) -> tuple[str, ...]:
    """The tags above `tag`, the widest first: `a:b:c` gives `a` and `a:b`."""
    found = []
    cut = tag.find(":")
    while cut >= 0:
        found.append(tag[:cut])
        cut = tag.find(":", cut + 1)
    return tuple(found)


class TagIndex(Generic[T]):
    """Which items are filed under which tags.

    Most tags have one item only, so a set is made for the second one: an empty set is 216 bytes.
    """

    def __init__(self) -> None:
        self._exact: dict[str, T | set[T]] = {}
        self._below: dict[str, T | set[T]] = {}  # tag -> items that have a tag below it
        self._held = 0

    @property
    def bytes(self) -> int:
        """Memory of the index, without the tags and the items that it was given."""
        return self._held + sys.getsizeof(self._exact) + sys.getsizeof(self._below)

    def add(self, item: T, tags: Iterable[str]) -> None:
        for tag in tags:
            self._file(self._exact, tag, item)
            if ":" in tag:
                for upper in above(tag):
                    self._file(self._below, upper, item)

    def remove(self, item: T, tags: Iterable[str]) -> None:
        """Undo `add`; the tags must be those that were given to it."""
        for tag in tags:
            self._take(self._exact, tag, item)
            if ":" in tag:
                for upper in above(tag):
                    self._take(self._below, upper, item)

    def touched(self, tag: str) -> set[T]:
        """The items that a change of `tag` touches; a new set."""
        items: set[T] = set()
        _gather(items, self._exact.get(tag))
        _gather(items, self._below.get(tag))
        for upper in above(tag):
            _gather(items, self._exact.get(upper))
        return items

    def starting(self, prefix: str) -> set[T]:
        """The items that a change of every tag that begins with `prefix` touches; a new set.

        Looks at each tag, unless the prefix ends with a colon.
        """
        items: set[T] = set()
        if prefix.endswith(":"):
            _gather(items, self._below.get(prefix[:-1]))
        else:
            for tag, filed in self._exact.items():
                if tag.startswith(prefix):
                    _gather(items, filed)
        for upper in above(prefix):
            _gather(items, self._exact.get(upper))
        return items

    def clear(self) -> None:
        self._exact = {}
        self._below = {}
        self._held = 0

    def _file(self, table: dict[str, T | set[T]], tag: str, item: T) -> None:
        filed = table.setdefault(tag, item)
        if isinstance(filed, set):
            self._held -= sys.getsizeof(filed)
            filed.add(item)
            self._held += sys.getsizeof(filed)
        elif filed != item:
            both = table[tag] = {filed, item}
            self._held += sys.getsizeof(both)

    def _take(self, table: dict[str, T | set[T]], tag: str, item: T) -> None:
        filed = table.get(tag)
        if isinstance(filed, set):
            filed.discard(item)
            if not filed:
                self._held -= sys.getsizeof(filed)
                del table[tag]
        elif filed == item:  # two tags of one item may share what is above them
            del table[tag]

    def __len__(self) -> int:
        """How many tags have something filed under them or below them."""
        return len(self._exact.keys() | self._below.keys())


def _gather(items: set[T], filed: T | set[T] | None) -> None:
    if isinstance(filed, set):
        items |= filed
    elif filed is not None:
        items.add(filed)
