"""Several values of one single database state.

Owns: which entries have the value that they have at a given snapshot. Knows neither connections nor loaders.

Theory of operation
    A block of reads has a snapshot S. A value is AT S when reading it under S would give the same. An entry is at
    S when it contains whatever S sees of its tags, and nothing that S does not see.

    Nothing else: the whole of its reading had ended before S was asked for, on the server that S is of; what it
    saw had committed, so S sees it. Therefore entries that were stored after the block began to ask for S do not
    count (`newer`). Snapshots are not compared for this: an entry's own snapshot may be earlier than its reading.

    Everything: let P be the feed's position before S was asked for. A transaction T that S sees either is seen by
    P, so it was delivered before, and an entry that is still there contains it (see cache.py). Or it is not, and
    then it is among the changes that the database itself tells in the transaction of S, of what lies between P
    and S; what they touch does not count, unless the entry's snapshot sees T.

    If the two are not of one history (epoch), or that list is not whole, no entry counts. So the block need not
    wait until the feed covers S, which an idle feed does only every beat and a busy one hardly ever at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from pipeline.core.events import Event
from pipeline.core.own_writes import Hold, told
from pipeline.core.snapshot import Loose, Position, Snapshot
from pipeline.core.store import Entry


class Between(msgspec.Struct, frozen=True):
    """A snapshot, and what it sees beyond the feed's position. epoch: of which history it is. lost: `events` are
    not all.
    """

    seen: Snapshot
    epoch: str
    lost: bool
    events: Sequence[Event] = ()


class Place:
    """One state. since: the feed's position before its snapshot is asked for; None: the feed is down. began: when.

    To be made, and listed in CacheCore.places, before the snapshot is asked for; it ends when it is taken off.
    """

    def __init__(self, since: Snapshot | None, began: float = 0.0) -> None:
        self.since = since
        self.began = began
        self.seen: Snapshot | None = None
        self.newer: set[Hashable] = set()
        self._changes: list[tuple[Hold, bool]] = []  # and whether an entry may contain it; see `has`

    def settle(self, between: Between) -> None:
        """The snapshot is known now. Changes that nobody can name would touch everything."""
        self.seen = between.seen
        epoch = self.since.epoch if isinstance(self.since, Position) else None
        if not between.lost and epoch == between.epoch:
            self._changes = [(Hold((event.xid,), told((event,))), event.op != "w") for event in between.events]
        else:
            self.since = None

    def has(self, key: Hashable, entry: Entry) -> bool:
        """Whether the entry, which may be served, has the value of this state."""
        if self.since is None or self.seen is None or key in self.newer or isinstance(entry.snapshot, Loose):
            return False
        # after a change of what a tag stands for (w) the entry may lack tags, even if it was read after that
        return not any(
            change.touches(entry.tags)
            and not (containable and entry.snapshot is not None and change.seen_by(entry.snapshot))
            for change, containable in self._changes
        )
