"""A world of several caches that share rows: one database, one feed that remembers a part, a table of rows.

A row is never deleted, and any row that was ever written may be read at any time, in the form that it had at any
time: the table may be as late, as old and as stubborn as it likes. The database is that of cache_world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec

from pipeline.core.cache import CacheCore
from pipeline.core.cache_policy import PLAIN
from pipeline.core.cache_shared import HandedOut, SharedRow, may_use, provable, stands
from pipeline.core.events import Batch, Event
from pipeline.core.fill import Flight, Verdict
from pipeline.core.freshness import Probe
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Entry
from tests.pure.cache_world import DEPENDS, POLICIES, STALE, Load, World, event, touches

KEYS = sorted(DEPENDS)


@dataclass
class Row:
    """As it stood in the table at some time."""

    key: str
    seen: frozenset[int]
    row: SharedRow
    epoch: str


@dataclass
class Node:
    """A process."""

    core: CacheCore
    cursor: int
    epoch: int
    accounted: set[int]
    handed_out: HandedOut = field(default_factory=HandedOut)
    loads: list[Load] = field(default_factory=list)
    queue: list[tuple[str, Entry, float]] = field(default_factory=list)
    had: dict[str, frozenset[int]] = field(default_factory=dict)


class SharedWorld(World):
    def __init__(self) -> None:
        self.log: list[Batch] = []  # all that was ever broadcast; a batch's number is its place
        self.oldest = 0  # the first that is remembered
        self.lost_xids: dict[int, set[int]] = {}  # place of a flush -> what was lost there
        self.rows: list[Row] = []
        self.nodes: list[Node] = []
        self.versions = 0
        self.taken = self.raised = 0
        super().__init__()
        self.pump()
        self.start()
        self.start()

    # -- the feed

    def pump(self, *, backwards: bool = False, parts: bool = False, full: bool = False) -> None:
        """A round. parts: in two batches, of which the first has no position. full: the events were lost."""
        xids, self.unpumped = self.unpumped, []
        if backwards:
            xids.reverse()
        events = [event(xid, name, keys) for xid in xids for name, keys in self.committed[xid][1]]
        position = str(self.look().snapshot)
        if full:
            self.lost_xids[len(self.log)] = set(xids)
            self.broadcast([], None, flush=True)
            self.broadcast([], position)
            return
        if parts and len(events) > 1:
            self.broadcast(events[:1], None)
            events = events[1:]
        self.broadcast(events, position)

    def broadcast(self, events: list[Event], position: str | None, *, flush: bool = False) -> None:
        place = len(self.log)
        self.log.append(Batch(str(self.epoch), place, place - 1, position, tuple(events), flush))

    def hear(self, node: Node) -> None:
        """The next batch reaches a process, or it notices that the server was restarted."""
        if node.epoch != self.epoch:
            self.begin_anew(node)
        elif node.cursor < len(self.log):
            batch = self.log[node.cursor]
            node.cursor += 1
            node.accounted |= {event.xid for event in batch.events} | self.lost_xids.get(batch.seq, set())
            if batch.flush:
                node.core.on_flush(self.now)
                node.handed_out.flush()
            node.core.on_batch(batch, self.now)
            if batch.position is not None:
                node.core.on_position(Snapshot.parse(batch.position), self.now)

    def hear_all(self, node: Node) -> None:
        while node.epoch != self.epoch or node.cursor < len(self.log):
            self.hear(node)

    def begin_anew(self, node: Node) -> None:
        """As the follower does it after a gap: flush, recall, go on from the end."""
        node.epoch, node.cursor = self.epoch, len(self.log)
        node.accounted = {event.xid for batch in self.log for event in batch.events}.union(
            *self.lost_xids.values()
        )
        node.had.clear()
        node.core.on_flush(self.now)
        node.handed_out.flush()
        node.core.on_recall(str(self.epoch), self.remembered(), self.now)

    def remembered(self) -> list[Batch]:
        return [batch for batch in self.log[self.oldest :] if batch.epoch == str(self.epoch)]

    def forget(self, count: int) -> None:
        self.oldest = min(self.oldest + count, len(self.log))

    def restart(self, *, loses: bool = False) -> None:
        """The server begins anew; what had committed is broadcast in the new epoch.

        loses: as when a standby takes over, the last transaction never was, and its number is used again.
        """
        self.epoch += 1
        if not loses or self.open or self.latest not in self.committed or self.latest + 1 != self.next_xid:
            return
        lost = self.latest
        del self.committed[lost]
        self.latest, self.next_xid = lost - 1, lost
        self.unpumped = [xid for xid in self.unpumped if xid != lost]
        self.log = [
            msgspec.structs.replace(batch, events=tuple(event for event in batch.events if event.xid != lost))
            for batch in self.log
        ]
        for swallowed in self.lost_xids.values():
            swallowed.discard(lost)
        self.sessions = [self.look()]
        for row in self.rows:  # what they contain of it is not what will have its number
            row.seen -= {lost}
        for node in self.nodes:
            node.loads.clear()

    def start(self) -> Node:
        core = CacheCore(max_bytes=1 << 20, max_entries=100, max_staleness=STALE)
        node = Node(core, 0, self.epoch, set())
        self.begin_anew(node)
        self.nodes.append(node)
        return node

    def prove(self, node: Node) -> None:
        t0, snapshot = self.ask()
        node.core.freshness.answered(t0, Probe(snapshot))
        node.handed_out.probed(t0, snapshot)
        self.pump()
        self.hear_all(node)

    # -- values

    def load(self, node: Node, key: str, kind: str, pick: int) -> Load:
        load = Load(Flight(key, DEPENDS[key]), kind, self.sessions[pick % len(self.sessions)])
        node.core.begin(load.flight, self.now)
        node.loads.append(load)
        return load

    def end(self, node: Node, load: Load) -> None:
        node.loads.remove(load)
        if load.kind == "lower" and load.lower is None:
            load.lower = self.look().snapshot if load.view is None else Snapshot(1, 1)
        self.read(load)
        assert load.view is not None
        snapshot = {"unknown": None, "lower": load.lower}.get(load.kind, load.view.snapshot)
        key = str(load.flight.key)
        verdict = node.core.finish(
            load.flight, load.view.seen, snapshot=snapshot, policy=POLICIES.get(key, PLAIN), now=self.now
        )
        node.handed_out.had(key, self.now)
        node.had[key] = load.view.seen
        if verdict is Verdict.STORED:
            node.queue.append((key, node.core.store.entries[key], self.now))

    def write_rows(self, node: Node) -> None:
        """Share what was queued, as far as it still stands in the store."""
        for key, entry, when in node.queue:
            snapshot = provable(node.core, entry)
            if snapshot is not None:
                self.versions += 1
                row = SharedRow(b"", entry.tags, snapshot, self.versions, self.look().snapshot)
                self.rows.append(Row(key, entry.value, row, str(node.core.epoch)))
                entry.shared = row.version
                node.handed_out.wrote(key, when, row.version, row.upper)
        node.queue.clear()

    def raise_rows(self, node: Node) -> None:
        for key, entry in node.core.store.entries.items():
            snapshot, epoch = node.core.position, node.core.epoch
            if entry.shared and stands(node.core, entry) and snapshot is not None and epoch is not None:
                for row in [row for row in self.rows if self.is_held(row, str(key), entry) and row.epoch == epoch]:
                    new = SharedRow(b"", row.row.tags, snapshot, row.row.version, row.row.upper)
                    self.rows.append(Row(row.key, row.seen, new, epoch))
                    self.raised += 1

    def is_held(self, row: Row, key: str, entry: Entry) -> bool:
        return row.row.version == entry.shared

    def take(self, node: Node, row: Row) -> None:
        """A process comes upon a row."""
        core = node.core
        if row.epoch != core.epoch or node.epoch != self.epoch:
            return  # what a process serves that has not noticed a restart yet is judged in test_freshness
        if not (may_use(core, DEPENDS[row.key], row.row, self.now) and node.handed_out.allows(row.key, row.row)):
            return
        self.taken += 1
        self.judge(row.key, row.seen, self.now, "a row", frozenset(node.accounted))
        for xid in node.had.get(row.key, frozenset()) - row.seen:
            if touches(self.committed[xid][1], DEPENDS[row.key]):
                raise AssertionError(f"what is served of {row.key!r} goes back behind transaction {xid}")
        flight = Flight(row.key, DEPENDS[row.key])
        core.begin(flight, self.now)
        verdict = core.finish(flight, row.seen, snapshot=row.row.snapshot, tags=row.row.tags, now=self.now)
        node.handed_out.had(row.key, self.now, row.row)
        node.had[row.key] = row.seen
        if verdict is Verdict.STORED:
            core.store.entries[row.key].shared = row.row.version

    def hit(self, node: Node, key: str) -> None:
        entry = node.core.read(key, self.now)
        if entry is not None and node.epoch == self.epoch:
            self.hits += 1
            self.judge(key, entry.value, self.now, "a hit", frozenset(node.accounted))

    # -- the promise

    def check(self) -> None:
        for row in [row for row in self.rows if row.epoch == str(self.epoch)]:
            for xid, (when, changes) in self.committed.items():
                if row.row.snapshot.sees(xid) and xid not in row.seen and touches(changes, DEPENDS[row.key]):
                    raise AssertionError(
                        f"a row of {row.key!r} lacks transaction {xid} of {when:.2f}, which it claims"
                    )
        for node in [node for node in self.nodes if node.epoch == self.epoch]:
            for key, entry in node.core.store.entries.items():
                if not stands(node.core, entry):
                    continue  # kept for those who take it stale
                self.judge(str(key), entry.value, -math.inf, "an entry", frozenset(node.accounted))
