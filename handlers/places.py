"""The places of a worker, where all its queues share them.

Owns: who holds a place and who waits for one. Knows neither jobs nor the database.
"""

from __future__ import annotations

import asyncio
from collections import deque

from pipeline.core.shares import Shares


class Places:
    """`total` places; None is no limit: then they are not shared, and nothing waits."""

    def __init__(self, total: int | None) -> None:
        self.shared = total is not None
        self._free = total or 0
        self._shares = Shares()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._weights: dict[str, int] = {}

    async def take(self, queue: str, weight: int) -> None:
        """Wait for a place; queues that wait get theirs in proportion to their weights."""
        if not self.shared:
            return
        if self._free > 0:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(queue, deque()).append(place)
        self._weights[queue] = weight
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._waiting[queue].remove(place)
            else:
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        if not self.shared:
            return
        # One that was cancelled a moment ago still stands in line: its task has not run since.
        first = {name: place for name, line in self._waiting.items() if (place := _first(line)) is not None}
        if not first:
            self._free += 1
            return
        name = self._shares.next({name: self._weights[name] for name in first})
        self._waiting[name].remove(first[name])
        first[name].set_result(None)


def _first(line: deque[asyncio.Future[None]]) -> asyncio.Future[None] | None:
    return next((place for place in line if not place.done()), None)
