"""Positions in the history of one Postgres cluster.

Owns: what a snapshot sees and when one snapshot is at or past another. Knows nothing of events.

A position is what `pg_current_snapshot()` returns: every transaction below `xmin` has ended, none at or
above `xmax` has, and those between are in progress when listed in `xip`. Positions order events without
any clock. See https://www.postgresql.org/docs/current/functions-info.html, "pg_snapshot".
"""

from __future__ import annotations

import msgspec


class Snapshot(msgspec.Struct, frozen=True):
    """Which transactions had ended at one moment; transaction ids are 64 bit and never wrap."""

    xmin: int
    xmax: int
    xip: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read the text form, `xmin:xmax:xip,xip,...`. Raises ValueError when it is something else."""
        xmin, xmax, xip = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, xip.split(","))) if xip else frozenset())

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.xip)))}"

    def sees(self, xid: int) -> bool:
        """Whether transaction `xid` had ended, so that a statement with this snapshot sees its commit."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.xip)

    def covers(self, other: Snapshot) -> bool:
        """Whether everything that `other` sees is seen here too."""
        if self.xmax < other.xmax:
            return False
        return not any(xid < other.xmax and xid not in other.xip for xid in self.xip)


class Position(Snapshot, frozen=True):
    """Where the feed stands. wal: a place in the primary's log, in bytes, before which everything lies that the
    position sees; None where nobody told. epoch: of which history both are.
    """

    wal: int | None = None
    epoch: str = ""

    @classmethod
    def at(cls, text: str, wal: int | None, epoch: str) -> Position:
        """Read the text form of the snapshot. Raises ValueError when it is something else."""
        seen = Snapshot.parse(text)
        return cls(seen.xmin, seen.xmax, seen.xip, wal, epoch)


class Loose(Snapshot, frozen=True):
    """What a value contains at the least, where it may contain more than snapshots that the primary gives later:
    a standby shows a commit as soon as it has replayed it, the primary only when its own backend is done with it.
    """

    @classmethod
    def of(cls, snapshot: Snapshot | None) -> Loose:
        """None, unknown, becomes one that sees nothing, which is treated alike."""
        known = snapshot or BEGINNING
        return cls(known.xmin, known.xmax, known.xip)


BEGINNING = Snapshot(1, 1)
"""Before every transaction: whoever reads from here has read nothing yet."""
