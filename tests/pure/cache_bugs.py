"""Mistakes that a cache like this one can be built with, each as a patch of the real code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.core import fill
from pipeline.core.cache import CacheCore
from pipeline.core.cache_offer import Offer
from pipeline.core.cache_policy import Policy
from pipeline.core.fill import Fence, Flight, Verdict
from pipeline.core.freshness import Freshness, Probe
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Store
from pipeline.core.tags import TagIndex
from tests.pure.cache_world import World


def fence_off(patch: pytest.MonkeyPatch) -> None:
    """Changes that come while a value is loading are not held against it."""
    original = Fence.judge

    def judge(self: Fence, flight: Flight, tags: Any, snapshot: Snapshot | None) -> Verdict:
        verdict = original(self, flight, tags, snapshot)
        return Verdict.STORED if verdict is Verdict.CHANGED else verdict

    patch.setattr(Fence, "judge", judge)


def join_after_detach(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fence, "detached", lambda self, flight: flight.generation != self.generation)


def past_changes_ignored(patch: pytest.MonkeyPatch) -> None:
    """Only what came during the load counts."""
    original = Fence.judge

    def judge(self: Fence, flight: Flight, tags: Any, snapshot: Snapshot | None) -> Verdict:
        verdict = original(self, flight, tags, snapshot)
        return Verdict.STORED if verdict is Verdict.OLD else verdict

    patch.setattr(Fence, "judge", judge)


def stamp_after_read(patch: pytest.MonkeyPatch) -> None:
    """A load is registered when it ends."""
    original = CacheCore.finish

    def finish(self: CacheCore, flight: Flight, value: Any, **rest: Any) -> Verdict:
        self.fence.begin(flight, rest["now"])
        return original(self, flight, value, **rest)

    patch.setattr(CacheCore, "finish", finish)


def probe_stamped_at_answer(patch: pytest.MonkeyPatch) -> None:
    original = Freshness.answered

    def answered(self: Freshness, t0: float, probe: Probe) -> None:
        original(self, World.now_of_all, probe)

    patch.setattr(Freshness, "answered", answered)


def swallow_own_change(patch: pytest.MonkeyPatch) -> None:
    """After an invalidation of one's own, the changes of that tag in the next round are taken for its
    echo.
    """
    original = CacheCore.change

    def change(self: Any, tag: str, xid: int | None, now: float) -> None:
        echoes = self.__dict__.setdefault("echoes", {})
        if xid is None:
            echoes[tag] = self.fence._round
        elif echoes.get(tag) == self.fence._round:
            return
        original(self, tag, xid, now)

    patch.setattr(CacheCore, "change", change)


def extended_at_receipt(patch: pytest.MonkeyPatch) -> None:
    original = Freshness._extend

    def extend(self: Freshness) -> None:
        before = self.valid_until
        original(self)
        if self.valid_until != before:
            self.valid_until = World.now_of_all + self.max_staleness

    patch.setattr(Freshness, "_extend", extend)


def extended_before_covered(patch: pytest.MonkeyPatch) -> None:
    """A position is taken to cover a probe by its xmax alone."""
    patch.setattr(Snapshot, "covers", lambda self, other: self.xmax >= other.xmax)


def running_taken_for_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Snapshot, "sees", lambda self, xid: xid < self.xmax)


def flush_keeps_flights(patch: pytest.MonkeyPatch) -> None:
    original = Fence.flush

    def flush(self: Fence) -> None:
        generation = self.generation
        original(self)
        self.generation = generation

    patch.setattr(Fence, "flush", flush)


def flush_forgets_its_floor(patch: pytest.MonkeyPatch) -> None:
    original = Fence.flush

    def flush(self: Fence) -> None:
        original(self)
        self._floor = -1
        self._rounds, self._positions = [0], [Snapshot(1, 1)]

    patch.setattr(Fence, "flush", flush)


def flush_keeps_entries(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "end_every", lambda self, at, now, cause: 0)


def epoch_ignored(patch: pytest.MonkeyPatch) -> None:
    original = CacheCore.on_batch

    def on_batch(self: CacheCore, batch: Any, now: float) -> None:
        self._epoch = batch.epoch
        original(self, batch, now)

    patch.setattr(CacheCore, "on_batch", on_batch)


def key_spares_table(patch: pytest.MonkeyPatch) -> None:
    """A change of one row does not touch what depends on the whole table."""
    original = TagIndex.touched

    def touched(self: TagIndex[Any], tag: str) -> set[Any]:
        return {
            entry for entry in original(self, tag) if any(f"{one}:".startswith(f"{tag}:") for one in entry.tags)
        }

    patch.setattr(TagIndex, "touched", touched)


def table_spares_keys(patch: pytest.MonkeyPatch) -> None:
    """A change of unknown extent does not touch what depends on one row."""
    original = TagIndex.touched

    def touched(self: TagIndex[Any], tag: str) -> set[Any]:
        return {entry for entry in original(self, tag) if not any(one.startswith(f"{tag}:") for one in entry.tags)}

    patch.setattr(TagIndex, "touched", touched)


def only_newest_remembered(patch: pytest.MonkeyPatch) -> None:
    """A slot keeps its last transaction and forgets that there were others."""
    original = Fence._reaches
    patch.setattr(fill, "XIDS_KEPT", 1)
    patch.setattr(Fence, "_reaches", lambda self, snapshot, _round: original(self, snapshot, self._floor))


def served_without_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheCore, "read", lambda self, key, now: self.store.entries.get(key))


def old_load_joined_without_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheCore, "may_join", lambda self, flight, now: not self.fence.detached(flight))


def late_tags_shared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheCore, "may_share", lambda self, flight, verdict, *joined: verdict is not Verdict.OLD)


def old_reads_shared(patch: pytest.MonkeyPatch) -> None:
    original = CacheCore.may_share

    def may_share(self: CacheCore, flight: Flight, verdict: Verdict, *joined: Any) -> bool:
        return verdict is Verdict.OLD or original(self, flight, verdict, *joined)

    patch.setattr(CacheCore, "may_share", may_share)


def old_reads_shared_without_proof(patch: pytest.MonkeyPatch) -> None:
    """What a long transaction reads while nothing is proved is taken to be as new as its load."""
    original = CacheCore.may_share

    def may_share(self: CacheCore, flight: Flight, verdict: Verdict, joined: int, *_at: Any) -> bool:
        return original(self, flight, verdict, joined)

    patch.setattr(CacheCore, "may_share", may_share)


def prefix_spares_loads(patch: pytest.MonkeyPatch) -> None:
    """An invalidation of a prefix is not held against loads."""
    patch.setattr(Fence, "note_prefix", lambda self, prefix, xid: None)


def prefix_spares_entries(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "end_prefixed", lambda self, prefix, xid, at, now: 0)


def changed_served_as_good(patch: pytest.MonkeyPatch) -> None:
    """What is kept for those who take it stale is not flagged."""
    original = CacheCore.offer

    def offer(self: CacheCore, key: Any, now: float, policy: Policy) -> Offer | None:
        found = original(self, key, now, policy)
        return None if found is None else found._replace(stale=False)

    patch.setattr(CacheCore, "offer", offer)


def stale_since_delivery(patch: pytest.MonkeyPatch) -> None:
    """The time for which a value may be stale begins when the change is delivered, however late that is."""
    original = Store._end_all
    patch.setattr(
        Store, "_end_all", lambda self, keys, xid, at, now, why: original(self, keys, xid, now, now, why)
    )


def stale_without_proof(patch: pytest.MonkeyPatch) -> None:
    """While nothing is proved, a value counts as good for as long as no change of it is delivered."""
    original = CacheCore.offer

    def offer(self: CacheCore, key: Any, now: float, policy: Policy) -> Offer | None:
        proved, self.freshness.valid_until = self.freshness.valid_until, max(now, self.freshness.valid_until)
        found = original(self, key, now, policy)
        self.freshness.valid_until = proved
        return found and found._replace(stale=now > proved)

    patch.setattr(CacheCore, "offer", offer)


def stale_for_everybody(patch: pytest.MonkeyPatch) -> None:
    """What one request took stale, every other one gets, too."""
    original = CacheCore.offer

    def offer(self: CacheCore, key: Any, now: float, policy: Policy) -> Offer | None:
        entry = self.store.entries.get(key)
        return original(self, key, now, entry.policy if entry else policy)

    patch.setattr(CacheCore, "offer", offer)


def flush_counts_stale_from_itself(patch: pytest.MonkeyPatch) -> None:
    original = Store.end_every
    patch.setattr(Store, "end_every", lambda self, at, now, cause: original(self, now, now, cause))


BUGS: list[Callable[[pytest.MonkeyPatch], None]] = [
    fence_off,
    join_after_detach,
    past_changes_ignored,
    stamp_after_read,
    probe_stamped_at_answer,
    swallow_own_change,
    extended_at_receipt,
    extended_before_covered,
    running_taken_for_ended,
    flush_keeps_flights,
    flush_forgets_its_floor,
    flush_keeps_entries,
    epoch_ignored,
    key_spares_table,
    table_spares_keys,
    only_newest_remembered,
    served_without_proof,
    old_load_joined_without_proof,
    late_tags_shared,
    old_reads_shared,
    prefix_spares_loads,
    prefix_spares_entries,
    changed_served_as_good,
    stale_since_delivery,
    stale_without_proof,
    stale_for_everybody,
    flush_counts_stale_from_itself,
    old_reads_shared_without_proof,
]
