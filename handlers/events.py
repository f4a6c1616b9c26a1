"""Calls the functions that users registered with `@on`.

Owns: which events go to which function. Knows neither the feed nor how functions are registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from handlers.running import in_thread
from pipeline.core.events import OP_NAMES, Event
from pipeline.registry import Consumer


class UserConsumer:
    """An EventConsumer for one function: called once for each event, in order; again when it raises."""

    def __init__(self, consumer: Consumer) -> None:
        function = consumer.function
        self.table = consumer.table.removeprefix("public.")
        self.name = f"on {self.table}: {function.__module__}.{function.__qualname__}"
        self._ops = consumer.ops
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._done = -1
        self._current: Sequence[Event] = ()

    async def handle(self, events: Sequence[Event]) -> None:
        """Call the function. When it raises, what it has done of these events already is not repeated."""
        if events is not self._current:  # one transaction may report the same twice, in equal lists
            self._current, self._done = events, -1
        for place, event in enumerate(events):
            if place > self._done and self.wants(event):
                await self._call(event)
            self._done = max(self._done, place)

    async def missed(self, reason: str) -> None:
        """Say so by an event of the whole table: whatever the function keeps may be out of date."""
        if not self._ops or "whole" in self._ops:
            await self._call(Event(0, self.table, "w", None, 0, None, reason))

    def wants(self, event: Event) -> bool:
        """Whether the function asked for this event."""
        return event.name == self.table and (not self._ops or OP_NAMES[event.op] in self._ops)

    async def _call(self, event: Event) -> None:
        if self._is_async:
            await self._function(event)
        else:
            await in_thread(lambda: self._function(event))
