"""A tiny world for the cache: a database with snapshots, a feed that lags, loads, and a watcher of the
promise.

Time stands still unless `pass_time` is called. A value is the set of transactions that its reader saw, so
that whatever is served can be judged against the true history. A transaction is accounted for once the
cache has heard of it, or of a gap that swallowed it. A change of `~x` is an invalidation of the prefix `x`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.core import invalidation
from pipeline.core.cache import CacheCore
from pipeline.core.cache_policy import PLAIN, Policy
from pipeline.core.events import Batch, Event
from pipeline.core.fill import Flight
from pipeline.core.freshness import Probe
from pipeline.core.snapshot import Position, Snapshot

STALE = 1.0
ANNOUNCED: dict[str, frozenset[str] | None] = {
    "row": frozenset({"t:1"}),
    "table": frozenset({"t"}),
    "late": None,  # only its loader can tell that it depends on t:1
    "soft": frozenset({"t:1"}),  # served stale for a while, to those who ask for it so
    "brief": frozenset({"t:1"}),  # the same, with a time to live
}
SOFT = 0.8
POLICIES = {
    "soft": Policy(stale_while_revalidate=SOFT),
    "brief": Policy(ttl=0.7, stale_while_revalidate=SOFT, early=1.0),
}
DEPENDS: dict[str, frozenset[str]] = {k: v or frozenset({"t:1"}) for k, v in ANNOUNCED.items()}
CHANGES: list[tuple[str, tuple[str, ...] | None]] = [
    ("t", ("1",)),
    ("t", ("2",)),
    ("t", None),
    ("u", None),
    ("~t:", None),
]
LOADERS = ["unknown", "lower", "own", "session"]  # what a loader knows of the snapshot that it reads


@dataclass
class View:
    """What a reader sees: the server's snapshot, and truly."""

    snapshot: Snapshot
    seen: frozenset[int]


@dataclass
class Load:
    flight: Flight
    kind: str
    session: View | None
    view: View | None = None
    lower: Snapshot | None = None
    joiners: list[tuple[int, float, frozenset[int] | None, frozenset[int]]] = field(default_factory=list)


class World:
    now_of_all: ClassVar[float] = 0.0  # for seeded bugs that look at the clock where the real code must not

    def __init__(self) -> None:
        self.core = CacheCore(max_bytes=1 << 20, max_entries=100, max_staleness=STALE)
        self.now = World.now_of_all = 100.0
        self.next_xid = 10
        self.latest = 9
        self.open: dict[int, list[tuple[str, tuple[str, ...] | None]]] = {}
        self.committed: dict[int, tuple[float, list[tuple[str, tuple[str, ...] | None]]]] = {}
        self.unpumped: list[int] = []
        self.wire: list[tuple[list[Event], Snapshot | None]] = []
        self.last_batch: list[Event] = []
        self.epoch, self.lost = 0, False
        self.accounted: set[int] = set()
        self.swallowed: set[int] = set()
        self.own: set[int] = set()  # committed by this process, which has to see them at once
        self.sessions: list[View] = [self.look()]
        self.commit(self.begin(), [("t", None)])  # before the cache began to listen
        self.accounted.update(self.unpumped)
        self.unpumped.clear()
        self.probes: list[tuple[float, Snapshot]] = []
        self.loads: list[Load] = []
        self.hits = self.shared = self.stale = 0

    # -- the database

    def look(self) -> View:
        running = frozenset(xid for xid in self.open if xid <= self.latest)
        snapshot = Snapshot(min(running, default=self.latest + 1), self.latest + 1, running)
        return View(snapshot, frozenset(self.committed))

    def begin(self) -> int:
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        self.open[xid] = []
        return xid

    def others(self) -> list[int]:
        """Open transactions that may end at any time."""
        return list(self.open)

    def commit(self, xid: int, changes: list[tuple[str, tuple[str, ...] | None]]) -> None:
        del self.open[xid]
        self.latest = max(self.latest, xid)
        self.committed[xid] = (self.now, changes)
        self.unpumped.append(xid)

    def abort(self, xid: int) -> None:
        del self.open[xid]
        self.latest = max(self.latest, xid)

    # -- the feed

    def pump(self, *, backwards: bool = False) -> None:
        xids, self.unpumped = self.unpumped, []
        if backwards:  # within a round the order of transactions tells nothing
            xids.reverse()
        events = [event(xid, name, keys) for xid in xids for name, keys in self.committed[xid][1]]
        if events:
            self.wire.append((events, None))
        self.wire.append(([], self.look().snapshot))

    def deliver(self) -> None:
        if not self.wire:
            return
        if self.lost:
            self.lost = False
            self.core.on_flush(self.now)
        events, position = self.wire.pop(0)
        self.accounted |= self.swallowed | {event.xid for event in events}
        self.swallowed = set()
        self.core.on_batch(Batch(str(self.epoch), 1, 0, None, tuple(events)), self.now)
        self.last_batch = events or self.last_batch
        if position is not None:
            at = Position(position.xmin, position.xmax, position.xip, None, str(self.epoch))
            self.core.on_position(at, self.now)

    def again(self) -> None:
        self.core.on_batch(Batch(str(self.epoch), 1, 0, None, tuple(self.last_batch)), self.now)

    def gap(self, *, epoch: bool) -> None:
        """Everything on the wire is lost; the feed notices with the next delivery."""
        self.swallowed |= {event.xid for events, _position in self.wire for event in events}
        self.wire.clear()
        self.last_batch = []
        if epoch:
            self.epoch += 1  # the cache sees it by itself
        else:
            self.lost = True

    # -- probes

    def ask(self) -> tuple[float, Snapshot]:
        return self.now, self.look().snapshot

    def answer(self, probe: tuple[float, Snapshot]) -> None:
        self.core.freshness.answered(probe[0], Probe(probe[1]))

    # -- requests

    def request(self, key: str, kind: str, session: View, *, strict: bool = False) -> None:
        policy = PLAIN if strict else POLICIES.get(key, PLAIN)
        entry = self.core.read(key, self.now)
        if entry is not None:
            self.hits += 1
            self.judge(key, entry.value, self.now, "a hit", frozenset(self.own))
            return
        offer = self.core.offer(key, self.now, policy)
        if offer is not None and offer.stale:
            self.stale += 1
            self.judge(key, offer.entry.value, self.now - policy.stale_while_revalidate, "a stale hit")
            return
        if offer is not None:
            self.judge(key, offer.entry.value, self.now, "an offered hit", frozenset(self.own))
            return
        current = next((load for load in reversed(self.loads) if load.flight.key == key), None)
        if current is not None and self.core.may_join(current.flight, self.now):
            proved = self.now <= self.core.freshness.valid_until
            heard = frozenset(self.accounted) if proved else None
            current.joiners.append((self.core.fence.number, self.now, heard, frozenset(self.own)))
            return
        load = Load(Flight(key, ANNOUNCED[key]), kind, session)
        self.core.begin(load.flight, self.now)
        self.loads.append(load)

    def read(self, load: Load) -> None:
        """The loader reads now; one that asks for the snapshot first may have done so earlier."""
        if load.view is None:
            load.view = load.session if load.kind == "session" else self.look()

    def ask_lower(self, load: Load) -> None:
        if load.kind == "lower" and load.view is None:
            load.lower = self.look().snapshot

    def finish(self, load: Load) -> None:
        self.loads.remove(load)
        if load.kind == "lower" and load.lower is None:
            load.lower = self.look().snapshot if load.view is None else Snapshot(1, 1)
        self.read(load)
        assert load.view is not None
        snapshot = {"unknown": None, "lower": load.lower}.get(load.kind, load.view.snapshot)
        key = str(load.flight.key)
        verdict = self.core.finish(
            load.flight,
            load.view.seen,
            snapshot=snapshot,
            tags=DEPENDS[key],
            policy=POLICIES.get(key, PLAIN),
            current=load.kind == "own",
            now=self.now,
        )
        for joined, arrived, heard, own in load.joiners:
            unproved_at = arrived if heard is None else None
            if self.core.may_share(load.flight, verdict, joined, unproved_at):
                self.shared += 1
                self.judge(key, load.view.seen, -math.inf, "a shared load", own)
                self.judge(key, load.view.seen, arrived, "a shared load", heard or frozenset())

    # -- the promise

    def check(self) -> None:
        """What must hold at every moment, so that the promise holds whenever somebody asks."""
        for key, entry in self.core.store.entries.items():
            if entry.ended_at < math.inf:
                continue
            self.judge(str(key), entry.value, -math.inf, "an entry", frozenset(self.accounted | self.own))
        for xid, (when, _changes) in self.committed.items():
            if when < self.core.freshness.valid_until - STALE and xid not in self.accounted:
                raise AssertionError(f"the proof misses transaction {xid} of {when:.2f}")

    def judge(
        self, key: str, seen: frozenset[int], at: float, what: str, heard: frozenset[int] = frozenset()
    ) -> None:
        for xid, (when, changes) in self.committed.items():
            due = when < at - STALE or xid in heard
            if due and xid not in seen and touches(changes, DEPENDS[key]):
                raise AssertionError(f"{what} of {key!r} at {at:.2f} misses transaction {xid} of {when:.2f}")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        World.now_of_all = self.now


def event(xid: int, name: str, keys: tuple[str, ...] | None) -> Event:
    if name.startswith("~"):
        return Event(xid, invalidation.CHANNEL, "e", payload=f'{{"prefix": "{name[1:]}"}}')
    return Event(xid, name, "u", keys)


def touches(changes: list[tuple[str, tuple[str, ...] | None]], tags: frozenset[str]) -> bool:
    """The meaning of tags, written a second time."""
    for name, keys in changes:
        for tag in tags:
            if name.startswith("~") and (tag.startswith(name[1:]) or name.startswith(f"~{tag}:")):
                return True
            table, _, key = tag.partition(":")
            if table == name and (keys is None or not key or key in keys):
                return True
    return False
