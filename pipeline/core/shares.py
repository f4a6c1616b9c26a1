"""Whose turn it is when the places of a worker are shared by queues of different weight.

Owns: that choice, by stride scheduling (Waldspurger and Weihl, 1995): each queue advances by 1 / weight with every
place it gets, and the one that is least advanced is next. Knows neither jobs nor waiting.
"""

from __future__ import annotations


class Shares:
    """How far each queue has come."""

    def __init__(self) -> None:
        self._passed: dict[str, float] = {}

    def next(self, waiting: dict[str, int]) -> str:
        """The queue that gets the next place. waiting: queues that want one, at least one, and their weights.

        A queue that comes back after a pause begins where the others are: it has not saved up for it.
        """
        least = min((self._passed[name] for name in waiting if name in self._passed), default=0.0)
        for name in waiting:
            self._passed[name] = max(self._passed.get(name, least), least)
        chosen = min(sorted(waiting), key=lambda name: self._passed[name])
        self._passed[chosen] += 1 / waiting[chosen]
        return chosen
