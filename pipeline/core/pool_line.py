"""Who gets the next connection of a pool: strictly first come, first served.

Owns: the line of those who wait, the connections that lie idle, and how many more are to be opened, checked or
closed. Must not know what a connection or a waiter is, nor what time it is: every moment is an argument, in
seconds.

A connection that comes free is handed to the first in line in the same step, so that nobody who comes later can
take it before that one wakes up. Whoever comes while others wait joins the end of the line, even if a
connection lies idle and is only to be checked first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Kept(Protocol):
    """A connection, as far as the line cares. idle_since: when it was put down."""

    idle_since: float


class Waiting(Protocol):
    """One who waits. ticket: the place in the order of arrival, which `join` gives."""

    ticket: int

    def __hash__(self) -> int: ...


W = TypeVar("W", bound=Waiting)
C = TypeVar("C", bound=Kept)


class Line(Generic[W, C]):
    """The state of one pool.

    hand: gives a connection to a waiter; False when that one has gone. most, least: connections. fresh: seconds
    that one may lie idle and still be handed out unchecked. parallel: how many are opened at the same time.
    """

    def __init__(
        self, hand: Callable[[W, C], bool], *, most: int, least: int = 0, fresh: float = 5.0, parallel: int = 4
    ) -> None:
        self.most = most
        self.least = least
        self.fresh = fresh
        self.parallel = parallel
        self.size = 0  # connections that exist: idle, being checked, or out
        self.opening = 0
        self.checking: set[C] = set()
        self.idle: deque[C] = deque()  # the one used last is at the end, and goes first: the others may be closed
        self.waiting: OrderedDict[W, None] = OrderedDict()
        self._hand = hand
        self._tickets = 0

    def take(self, now: float) -> C | None:
        """An idle connection for a newcomer, or None: then the newcomer must `join`."""
        if self.waiting or not self.idle or self.idle[-1].idle_since < now - self.fresh:
            return None
        return self.idle.pop()

    def join(self, waiter: W) -> None:
        """Stand at the end of the line."""
        self._tickets += 1
        waiter.ticket = self._tickets
        self.waiting[waiter] = None

    def rejoin(self, waiter: W) -> None:
        """Stand where one stood before, since the connection that was handed over turned out to be dead."""
        self.waiting[waiter] = None
        self.waiting = OrderedDict.fromkeys(sorted(self.waiting, key=lambda one: one.ticket))

    def leave(self, waiter: W) -> bool:
        """Stop waiting; False: this one was not in line, and may have been handed a connection already."""
        return self.waiting.pop(waiter, self) is None

    def give(self, connection: C, now: float) -> None:
        """A connection that can be used: returned, checked or new. It goes to the first who still waits."""
        self.checking.discard(connection)
        while self.waiting:
            waiter, _ = self.waiting.popitem(last=False)
            if self._hand(waiter, connection):
                return
        connection.idle_since = now
        self.idle.append(connection)

    def check(self) -> C | None:
        """The next idle connection that is to be checked for somebody who waits; `give` or `gone` is to follow."""
        if not self.idle or self._unmet() <= 0:
            return None
        connection = self.idle.pop()
        self.checking.add(connection)
        return connection

    def open(self) -> int:
        """How many connections are to be opened now; `opened` or `not_opened` is to follow for each."""
        wanted = max(self._unmet(), self.least - self.size - self.opening)
        number = max(0, min(wanted, self.most - self.size - self.opening, self.parallel - self.opening))
        self.opening += number
        return number

    def opened(self) -> None:
        """One more exists; it is to be given."""
        self.opening -= 1
        self.size += 1

    def not_opened(self) -> None:
        """It could not be opened, or is not wanted any more."""
        self.opening -= 1

    def gone(self, connection: C) -> None:
        """A connection ended, wherever it was."""
        self.size -= 1
        self.checking.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def tired(self, now: float, longest: float) -> list[C]:
        """Idle connections beyond the least that were not used for `longest` seconds, the longest first."""
        spare = max(0, self.size - self.least)
        return [one for one in islice(self.idle, spare) if one.idle_since <= now - longest]

    def _unmet(self) -> int:
        """Those in line for whom no connection is on its way."""
        return len(self.waiting) - self.opening - len(self.checking)
