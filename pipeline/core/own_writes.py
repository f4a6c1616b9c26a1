"""Read your own writes: what this process itself has written, before the feed tells of it.

Owns: the transactions of this process that the feed has not come to yet, and which loads they hold back. Knows
neither entries nor how transactions are made.

Theory of operation
    A transaction of this process tells what it wrote while it is still open, and is held from then on until the
    feed's position sees it. When the hold begins, entries that do not contain the transaction go (in the cache's
    core). While it lasts, nothing that it touches is stored, shared or joined unless it is known to contain the
    transaction: by its snapshot, or, once the commit has been acknowledged, because it began to read after that.
    So from the acknowledgement on every read of this process reflects the transaction, and nobody has to know
    when, or whether, it committed: if the connection broke during COMMIT, the hold lasts until the feed's
    position tells that the transaction has ended, either way. Loads by others meanwhile are not stored, which
    costs hits only.

    The fence cannot keep these changes itself: it takes for granted that the position at the end of a round sees
    every change noted in it, and this one may commit later. When the position has passed the transaction, its
    events have been delivered, and the fence knows them as it knows any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pipeline.core import invalidation
from pipeline.core.events import Event
from pipeline.core.snapshot import Snapshot
from pipeline.core.tags import above

MOST_HELD = 512  # transactions that the feed has not reached; more are held together, as touching everything


class Hold:
    """Transactions, mostly one. tags: what they changed; None: nobody knows. prefix: every tag that begins so has
    changed, too. since: the number of the fence from which on a load began to read after the commit was
    acknowledged; None: it has not been.
    """

    __slots__ = ("prefix", "since", "tags", "upper", "xids")

    def __init__(self, xids: tuple[int, ...], tags: frozenset[str] | None, prefix: str | None = None) -> None:
        self.xids = xids
        self.tags = tags
        self.prefix = prefix
        self.upper = frozenset(name for tag in tags or () for name in above(tag))
        self.since: int | None = None

    def touches(self, tags: Collection[str]) -> bool:
        if self.tags is None or self.prefix == "":
            return True
        if self.prefix and any(tag.startswith(self.prefix) or self.prefix.startswith(tag + ":") for tag in tags):
            return True
        return any(
            tag in self.tags or tag in self.upper or any(name in self.tags for name in above(tag)) for tag in tags
        )

    def seen_by(self, snapshot: Snapshot) -> bool:
        return all(snapshot.sees(xid) for xid in self.xids)


class OwnWrites:
    """What is held."""

    def __init__(self) -> None:
        self._holds: list[Hold] = []

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def open(self) -> bool:
        """Whether there is one whose commit has not been acknowledged."""
        return any(hold.since is None for hold in self._holds)

    def hold(self, xid: int, tags: frozenset[str] | None, prefix: str | None = None) -> Hold:
        """Transaction `xid`, still open, has changed `tags`; None: something, nobody knows what. prefix: and all
        tags that begin so.
        """
        if len(self._holds) >= MOST_HELD:
            many, self._holds = self._holds, []
            self._holds.append(Hold(tuple(known for one in many for known in one.xids), None))
        made = Hold((xid,), tags, prefix)
        self._holds.append(made)
        return made

    def release(self, hold: Hold) -> None:
        """The transaction was rolled back for certain."""
        if hold in self._holds:
            self._holds.remove(hold)

    def on_position(self, position: Snapshot) -> None:
        """The feed has delivered everything that `position` sees."""
        if self._holds:
            self._holds = [hold for hold in self._holds if not hold.seen_by(position)]

    def parts(self, tags: Collection[str], start: int) -> bool:
        """Whether a load that began at number `start` may lack what this process has written to `tags`."""
        return bool(self._holds) and any(self._before(hold, start) and hold.touches(tags) for hold in self._holds)

    def lacks(self, tags: Collection[str], start: int, snapshot: Snapshot | None) -> bool:
        """As `parts`, for a load that has ended, and may know its snapshot."""
        if snapshot is None:
            return self.parts(tags, start)
        return any(not hold.seen_by(snapshot) and hold.touches(tags) for hold in self._holds)

    def _before(self, hold: Hold, start: int) -> bool:
        return hold.since is None or start < hold.since


def told(events: Iterable[Event]) -> frozenset[str] | None:
    """The tags that events say have changed; None: more than can be named."""
    tags: set[str] = set()
    for event in events:
        tags.update(event.changed())
        if event.op == "e" and event.name == invalidation.CHANNEL:
            said = invalidation.parse(event.payload)
            if said is not None and said.prefix is not None:
                return None
            tags.update(said.tags if said is not None else ())
    return frozenset(tags)
