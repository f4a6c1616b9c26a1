"""Until when the cache may serve, proved by positions and not by clocks.

Owns: the moment up to which entries may be served. Knows neither entries nor how probes are sent.

A probe notes the local time t0, then asks the database for its snapshot. Once the feed's position covers
that snapshot, every transaction that had committed by t0 has been delivered, so whatever the cache still
holds reflects all of them: it may serve until t0 + max_staleness. No clock is compared with another
machine's; a feed that looks alive but is deaf, late or stuck simply stops covering probes, and the cache
stops serving.

The time that counts is the one BEFORE the question. The one at which the answer or the position came in would
promise freshness for the time that they took to travel, during which others may have committed.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from pipeline.core.snapshot import Snapshot

KEPT_PROBES = 16  # four probes are sent in each max_staleness; older ones could extend nothing


class Probe(msgspec.Struct, frozen=True):
    """An answer of the database. server: which start of which server gave it."""

    snapshot: Snapshot
    server: str = ""


class Freshness:
    """Times are seconds on one local monotonic clock; `valid_until` is never moved back but by a flush."""

    def __init__(self, max_staleness: float) -> None:
        self.max_staleness = max_staleness
        self.valid_until = -math.inf
        self.newest: tuple[float, Snapshot] | None = (
            None  # what was last seen of the database, and when it was asked
        )
        self._probes: deque[tuple[float, Snapshot]] = deque(maxlen=KEPT_PROBES)
        self._position: Snapshot | None = None  # None: the feed is down or has not spoken yet
        self._server: str | None = None
        self._foreign = False  # probes come from another server than the one that the feed last flushed for

    @property
    def position(self) -> Snapshot | None:
        """Everything that it sees has been delivered; None: the feed is down."""
        return self._position

    @property
    def proved_at(self) -> float:
        """Everything that had committed by this moment has been delivered."""
        return self.valid_until - self.max_staleness

    def answered(self, t0: float, probe: Probe) -> None:
        """A probe that was sent at `t0` has been answered.

        An answer from another server, or from the same one after a restart, is not comparable with the feed's
        positions before the feed has noticed too, which it tells by a flush.
        """
        if self._server is not None and probe.server != self._server:
            self._foreign = True
            self._probes.clear()
            self.newest = None
        self._server = probe.server
        self._probes.append((t0, probe.snapshot))
        if self.newest is None or probe.snapshot.covers(self.newest[1]):
            self.newest = t0, probe.snapshot
        self._extend()

    def read(self, snapshot: Snapshot) -> None:
        """A load has read under this snapshot, which may be an old one."""
        if self.newest is not None and snapshot.covers(self.newest[1]):
            self.newest = self.newest[0], snapshot

    def on_position(self, position: Snapshot) -> None:
        """The feed has delivered everything that `position` sees."""
        self._position = position
        self._extend()

    def on_down(self) -> None:
        """The feed is interrupted: what is valid stays valid until its time, and no longer."""
        self._position = None

    def on_flush(self) -> None:
        """Everything was forgotten; start anew with the next probe and the next position."""
        self.valid_until = -math.inf
        self._probes.clear()
        self._position = None
        self._foreign = False

    def age(self, now: float) -> float | None:
        """How old a read served at `now` may be, in seconds; None: nothing may be served."""
        if now > self.valid_until:
            return None
        return now - (self.valid_until - self.max_staleness)

    def _extend(self) -> None:
        position = self._position
        if position is None or self._foreign:
            return
        while self._probes and position.covers(self._probes[0][1]):
            t0, _snapshot = self._probes.popleft()
            self.valid_until = max(self.valid_until, t0 + self.max_staleness)
