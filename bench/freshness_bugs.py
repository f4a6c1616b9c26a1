"""Mistakes that a cache like this one can be built with, each a patch of the real code in a reading process.

Owns: the list, and with which faults each must be found (`make check-freshness-bugs`). Knows no rule.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from handlers import cache_shared
from handlers.cache import Cache
from pipeline.core.cache import CacheCore
from pipeline.core.events import Batch
from pipeline.core.fill import Fence, Flight, Verdict
from pipeline.core.freshness import Freshness, Probe
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Store
from pipeline.core.tags import TagIndex
from pipeline.db import feed as feed_sessions
from pipeline.feed.follower import Follower

CUTS = {"feed cut": 2.5, "listener terminated": 2.0}
CRASHES = {"server crashed, pump frozen": 4.0}
LATE = {"feed late": 2.0}
NONE: Mapping[str, float] = {}


class Bug(msgspec.Struct, frozen=True):
    """install: patches the classes of this process. rhythm: the faults that show it, as in freshness_nemesis."""

    name: str
    install: Callable[[], None]
    rhythm: Mapping[str, float] = NONE
    seconds: float = 12.0


def _verdicts(passed: Verdict) -> None:
    original = Fence.judge

    def judge(self: Fence, flight: Flight, tags: Any, snapshot: Snapshot | None) -> Verdict:
        verdict = original(self, flight, tags, snapshot)
        return Verdict.STORED if verdict is passed else verdict

    Fence.judge = judge  # type: ignore[method-assign]


def fence_off() -> None:
    """A change that comes while a value is loading is not held against it."""
    _verdicts(Verdict.CHANGED)


def past_changes_ignored() -> None:
    """What was read under an old snapshot is stored although later changes have been delivered."""
    _verdicts(Verdict.OLD)


def join_after_detach() -> None:
    Fence.detached = lambda self, flight: False  # type: ignore[method-assign]


def stamped_after_reading() -> None:
    """A load is registered when it ends, so that nothing came during it."""
    original = CacheCore.finish

    def finish(self: CacheCore, flight: Flight, value: Any, **rest: Any) -> Verdict:
        self.fence.begin(flight, rest["now"])
        return original(self, flight, value, **rest)

    CacheCore.finish = finish  # type: ignore[method-assign]


def swallowed_own_change() -> None:
    """After an invalidation of one's own, changes of that tag are taken for its echo for two seconds."""
    original = CacheCore.change

    def change(self: Any, tag: str, xid: int | None, *rest: Any) -> None:
        echoes = self.__dict__.setdefault("echoes", {})
        if xid is None:
            echoes[tag] = time.monotonic()
        elif time.monotonic() - echoes.get(tag, -9) < 2:
            return
        original(self, tag, xid, *rest)

    CacheCore.change = change  # type: ignore[method-assign]


def own_change_not_applied() -> None:
    """A process drops what it has invalidated itself only once the feed tells."""

    async def invalidate(self: Cache, tags: Any = None, *, prefix: str | None = None) -> None:
        await self.source.invalidate(sorted(tags), prefix)

    Cache.invalidate = invalidate  # type: ignore[method-assign]


def reconnect_without_replay() -> None:
    """After a new connection the follower goes on from where the feed stands then."""
    original = Follower.start

    async def start(self: Follower) -> None:
        await original(self)
        standing = await self.session.standing()
        if standing is not None and standing.epoch == self.epoch:
            self.seq = standing.seq

    Follower.start = start  # type: ignore[method-assign]


def gap_not_noticed() -> None:
    """Whatever comes is delivered, also where batches before it were lost."""
    original = Follower._take

    async def take(self: Follower, batch: Batch) -> None:
        if batch.epoch == self.epoch and batch.seq > self.seq:
            self.seq = batch.previous if batch.seq != batch.previous else batch.seq
        await original(self, batch)

    async def take_in(self: Follower) -> None:
        self._overflowed = False
        await original_take_in(self)

    original_take_in = Follower._take_in
    Follower._take = take  # type: ignore[method-assign]
    Follower._take_in = take_in  # type: ignore[method-assign]


def beats_are_proof() -> None:
    """A sign of life of the feed counts as proof, whatever position it tells."""

    def beat(self: Follower, batch: Batch) -> None:
        self._last_beat = time.monotonic()
        self.up = True
        for sink in self._sinks:
            if isinstance(sink, Cache) and batch.position is not None:
                sink.on_position(Snapshot.parse(batch.position))
                sink.core.freshness.valid_until = time.monotonic() + sink.core.freshness.max_staleness

    Follower._beat = beat  # type: ignore[method-assign]


def served_without_proof() -> None:
    """A feed that is down keeps nothing from being served."""
    original = CacheCore.read

    def read(self: CacheCore, key: Any, _now: float, *rest: Any) -> Any:
        return original(self, key, self.freshness.valid_until, *rest)

    CacheCore.read = read  # type: ignore[method-assign]


def stamped_at_the_answer() -> None:
    """The time of a proof counts from the answer of the database and not from the question."""
    original = Freshness.answered

    def answered(self: Freshness, t0: float, probe: Probe) -> None:
        original(self, time.monotonic(), probe)

    Freshness.answered = answered  # type: ignore[method-assign]


def stamped_at_the_position() -> None:
    """The time of a proof counts from when the feed's position came in."""
    original = Freshness._extend

    def extend(self: Freshness) -> None:
        before = self.valid_until
        original(self)
        if self.valid_until != before:
            self.valid_until = time.monotonic() + self.max_staleness

    Freshness._extend = extend  # type: ignore[method-assign]


def epoch_ignored() -> None:
    """A server that was restarted is taken for the same: nothing is forgotten."""
    original = Follower._catch_up
    answered = Freshness.answered

    async def catch_up(self: Follower) -> None:
        standing = await self.session.standing()
        if standing is not None and self.epoch is not None and standing.epoch not in (None, self.epoch):
            self.epoch, self.seq = standing.epoch, standing.seq
        await original(self)

    def on_batch(self: CacheCore, batch: Batch, *rest: Any) -> None:
        self._epoch = batch.epoch
        take_in(self, batch, *rest)

    take_in = CacheCore.on_batch
    Follower._catch_up = catch_up  # type: ignore[method-assign]
    CacheCore.on_batch = on_batch  # type: ignore[method-assign]
    Freshness.answered = lambda self, t0, probe: answered(  # type: ignore[method-assign]
        self, t0, Probe(probe.snapshot)
    )


def flush_keeps_entries() -> None:
    Store.end_every = lambda self, *_how: 0  # type: ignore[method-assign]


def running_taken_for_ended() -> None:
    """What was in progress for a snapshot is taken to be seen by it."""
    Snapshot.sees = lambda self, xid: xid < self.xmax  # type: ignore[method-assign]


def table_spares_rows() -> None:
    """A change of unknown extent does not touch what depends on one row."""
    _touches(lambda changed, tag: tag == changed or changed.startswith(tag + ":"))


def row_spares_table() -> None:
    """A change of one row does not touch what depends on the whole table."""
    _touches(lambda changed, tag: tag == changed or tag.startswith(changed + ":"))


def _touches(touches: Callable[[str, str], bool]) -> None:
    original = TagIndex.touched

    def touched(self: TagIndex, changed: str) -> Any:
        return {one for one in original(self, changed) if any(touches(changed, tag) for tag in one.tags)}

    TagIndex.touched = touched  # type: ignore[method-assign]


def shared_unjudged() -> None:
    """What another process has shared is taken as it is found."""
    cache_shared.may_use = lambda *_what: True
    cache_shared.HandedOut.allows = lambda *_what: True  # type: ignore[method-assign]


def own_commit_not_told() -> None:
    """A process sees what it has committed itself only once the feed tells."""
    CacheCore.hold = lambda self, *_what: None
    CacheCore.committed = lambda self, _hold: None


def states_mixed() -> None:
    """What is read within snapshot() is read as anywhere."""

    @asynccontextmanager
    async def snapshot(_self: Cache, **_options: Any) -> AsyncIterator[None]:
        yield

    Cache.snapshot = snapshot


def _statement(name: str, *changes: tuple[str, str]) -> None:
    original = feed_sessions.statement
    text = original(name)
    for old, new in changes:
        if old not in text:
            raise ValueError(f"{name} no longer holds {old!r}")
        text = text.replace(old, new)
    feed_sessions.statement = lambda wanted: text if wanted == name else original(wanted)  # type: ignore[assignment]


def id_above_last() -> None:
    """The pump goes on behind the highest transaction that it has read, and skips what commits below it."""
    _statement(
        "feed/read",
        ("where o.xid = any (array(select x from pg_snapshot_xip(s.since) x", "where false and o.xid = any (array("
         "select x from pg_snapshot_xip(s.since) x"),
    )  # fmt: skip


def waits_for_xmin() -> None:
    """The pump reads only below the oldest transaction in progress, and yet tells the newest position."""
    original = feed_sessions.LeaderSession.read

    async def read(self: Any, since: Snapshot, upto: Snapshot | None, *rest: Any) -> Any:
        since = Snapshot(since.xmin, since.xmin)
        reading = await original(self, since, upto, *rest)
        lines = [line for line in reading.lines if line.xid < reading.upto.xmin]
        return msgspec.structs.replace(reading, lines=lines, ages_ms=[0.0] * len(lines))

    feed_sessions.LeaderSession.read = read  # type: ignore[method-assign]


BUGS = [
    Bug("fence off", fence_off),
    Bug("past changes ignored", past_changes_ignored),
    Bug("join after detach", join_after_detach),
    Bug("stamped after reading", stamped_after_reading),
    Bug("own change swallowed", swallowed_own_change),
    Bug("own change not applied", own_change_not_applied),
    Bug("reconnect without replay", reconnect_without_replay, {"listener terminated": 0.7}),
    Bug("gap not noticed", gap_not_noticed, {"reader frozen": 1.0}),
    Bug("beats are proof", beats_are_proof, LATE),
    Bug("served without proof", served_without_proof, CUTS),
    Bug("stamped at the answer", stamped_at_the_answer, {"answers late, feed cut": 1.5}),
    Bug("stamped at the position", stamped_at_the_position, LATE),
    Bug("epoch ignored", epoch_ignored, CRASHES),
    Bug("flush keeps entries", flush_keeps_entries, CRASHES),
    Bug("running taken for ended", running_taken_for_ended),
    Bug("a table spares its rows", table_spares_rows),
    Bug("a row spares its table", row_spares_table),
    Bug("shared values are not judged", shared_unjudged),
    Bug("own commit not told", own_commit_not_told),
    Bug("states mixed in snapshot()", states_mixed),
    Bug("id > last", id_above_last),
    Bug("xmin watermark", waits_for_xmin),
]


def install(name: str) -> None:
    """Put the mistake of this name into this process."""
    [bug] = [bug for bug in BUGS if bug.name == name]
    bug.install()
