"""What a standby has replayed, told as a snapshot of the primary.

Owns: the feed's positions with their places in the primary's log. Knows neither connections nor reads.

A standby cannot tell which transactions were in progress, only how far it has replayed the log. A position of the
feed comes with a place in the log before which the commits of all lie that it sees. So whoever has replayed up to
that place sees all that the position sees, and the value that he reads is judged as if it had been read under the
position: one long transaction on the primary does not matter.

Places are compared within one epoch only. After a failover the log branches, and a standby that stayed on the old
branch may stand at a higher place without what the new primary wrote below it; so a standby has to show the epoch
that the leader wrote into a table, which it cannot do without having replayed that branch.
"""

from __future__ import annotations

from bisect import bisect_right

from pipeline.core.snapshot import Position, Snapshot

MARKS_KEPT = 512  # the newest half, a second at 5 ms a round, without gaps; older ones ever more sparsely


class Marks:
    """Positions by their place in the log."""

    def __init__(self) -> None:
        self.epoch = ""
        self._places: list[int] = []
        self._positions: list[Position] = []

    @property
    def newest(self) -> int | None:
        """The place that a standby must have reached to have all that was delivered; None: nobody knows."""
        return self._places[-1] if self._places else None

    def on_position(self, position: Snapshot) -> None:
        if not isinstance(position, Position) or position.wal is None:
            return
        if position.epoch != self.epoch:
            self.on_flush()
            self.epoch = position.epoch
        if self._places and self._places[-1] >= position.wal:
            if self._places[-1] == position.wal:
                self._positions[-1] = position
            return
        self._places.append(position.wal)
        self._positions.append(position)
        if len(self._places) > MARKS_KEPT:
            del self._places[: MARKS_KEPT // 2 : 2]
            del self._positions[: MARKS_KEPT // 2 : 2]

    def on_flush(self) -> None:
        self.epoch = ""
        self._places.clear()
        self._positions.clear()

    def at(self, epoch: str | None, wal: int) -> Snapshot | None:
        """All of which is seen by whoever has replayed up to `wal` in this epoch; None: nothing is known."""
        place = bisect_right(self._places, wal)
        if not place or epoch != self.epoch:
            return None
        found = self._positions[place - 1]
        return Snapshot(found.xmin, found.xmax, found.xip)
